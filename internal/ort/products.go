package ort

// #include "blas.h"
import "C"

import "time"

// Product says what matrix products of one kind have cost: op(A)·op(B) with
// op(A) of M × K and op(B) of K × N elements.
type Product struct {
	M, N, K        int
	TransA, TransB bool
	Batch          int           // products of this kind in one run of an operator
	Operators      int           // runs of operators
	Threads        time.Duration // the time of all threads together
}

// FLOP returns the number of multiplications and additions.
func (p Product) FLOP() float64 {
	return 2 * float64(p.M) * float64(p.N) * float64(p.K) * float64(p.Batch) * float64(p.Operators)
}

// CountProducts begins to count the matrix products that the BLAS does for the
// operators of domain [Domain], in all sessions of the process, or ends it. What
// was counted before is forgotten.
func CountProducts(on bool) {
	var flag C.int
	if on {
		flag = 1
	}
	C.blas_count(flag)
}

// Products returns what was counted since [CountProducts], in the order in which
// the kinds of products were first met.
func Products() []Product {
	var kinds [512]C.blas_product
	n := C.blas_products(&kinds[0], C.size_t(len(kinds)))
	products := make([]Product, n)
	for i, k := range kinds[:n] {
		products[i] = Product{
			M: int(k.m), N: int(k.n), K: int(k.k), TransA: k.trans_a != 0, TransB: k.trans_b != 0,
			Batch: int(k.batch), Operators: int(k.operators), Threads: time.Duration(k.thread_ns),
		}
	}
	return products
}
