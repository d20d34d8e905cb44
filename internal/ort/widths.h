// Compiles the loops in the file LOOPS for every width of vectors, and chooses among
// them when the program runs:
//
//	#define LOOPS "op_loops.h"
//	#include "widths.h"
//	CHOOSE(f, (x, y)); // calls f_avx2(x, y) or f_base(x, y), which are NAME(f) in LOOPS
//
// For LOOPS, WIDTH is the number of floats in a vector and TARGET what a function that
// works on vectors is declared with. All widths give the same bits: nothing contracts
// products and sums.
//
// Packages ort and optim have a copy each, and a test compares them: the go command would
// not build one anew when a header in the other changes.

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF // gcc: off because of -std=c11
#endif

#ifdef __x86_64__
#include <immintrin.h>

#define WIDTH 8
#define TARGET __attribute__((target("avx2")))
#define NAME(f) f##_avx2
#include LOOPS
#undef WIDTH
#undef TARGET
#undef NAME

#define CHOOSE(f, args) (__builtin_cpu_supports("avx2") ? f##_avx2 args : f##_base args)
#else
#define CHOOSE(f, args) f##_base args
#endif

#define WIDTH 4
#define TARGET
#define NAME(f) f##_base
#include LOOPS
