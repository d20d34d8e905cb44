"""Disentangled attention without its matrix of probabilities, in Triton.

The scores of query i and key j of one sequence and head are

    A[i, j] = scale * q_i·k_j + C[i, j-i+n-1] + P[j, i-j+n-1]

with tables C and P of the products with all 2n-1 relative positions, made by
ordinary products. A row of a table has 2n columns, the last of which is used by
no pair. Rows and columns of the scores are gone over in blocks, with a running
maximum and sum (Dao: FlashAttention-2, arXiv:2307.08691); kept for the backward
pass are the result and one number for every row. There every element of every
gradient has one writer, those of the tables included: sums have one order.

q, k, v and the result are [batch * n, heads * size]; tables [heads, batch, n, 2n];
what there is for every row of the scores [heads, batch, n]. Positions after the
last token of a sequence yield 0 and get no gradient. n is a multiple of 4, size
one of 8, at most SIZE.
"""

import triton
import triton.language as tl

from kernels import variant


@triton.jit
def filled(tokens, n):
    """The number of positions of a sequence up to its last token."""
    last = 0
    for start in range(0, n, 1024):
        j = start + tl.arange(0, 1024)
        token = tl.load(tokens + j, mask=j < n, other=0.0)
        last = tl.maximum(last, tl.max(tl.where(token != 0, j + 1, 0), axis=0))
    return last


@triton.jit
def load_rows(x, i, end, width, size, SIZE: tl.constexpr):
    """Rows i of one head, as far as they are before end: [i, SIZE], filled up with zeros."""
    d = tl.arange(0, SIZE)
    return tl.load(x + i[:, None] * width + d[None, :], mask=(i < end)[:, None] & (d < size)[None, :], other=0.0)


@triton.jit
def store_rows(x, i, n, width, size, value, SIZE: tl.constexpr):
    d = tl.arange(0, SIZE)
    mask = (i < n)[:, None] & (d < size)[None, :]
    tl.store(x + i[:, None] * width + d[None, :], value.to(x.dtype.element_ty), mask=mask)


@triton.jit
def dot(a, b, sum=None):
    """A product of matrices, added to a sum in float32; numbers in float32 are not rounded for it."""
    return tl.dot(a, b, acc=sum, input_precision="ieee")


@triton.jit
def score(products, c2p, p2c, tokens, i, j, n, end, scale):
    """The scores of queries i and keys j, whichever of them are rows; far below all others for padding."""
    inside = (i < end) & (j < end)
    c = tl.load(c2p + i * (2 * n) + (j - i + n - 1), mask=inside, other=0.0).to(tl.float32)
    p = tl.load(p2c + j * (2 * n) + (i - j + n - 1), mask=inside, other=0.0).to(tl.float32)
    token = tl.load(tokens + j, mask=j < end, other=0.0)
    return tl.where(token != 0, products * scale + c + p, -1e30)


@triton.jit
def kept(position, seed, site, threshold, rows, start, n, COLUMNS: tl.constexpr):
    """Which probabilities of some rows dropout keeps, from column start on: as kernels.dropout says
    of a tensor [heads, batch, n, n]."""
    at = tl.load(position)
    counter = rows[:, None] * (n // 4) + (start // 4 + tl.arange(0, COLUMNS // 4))[None, :]
    a, b, c, d = tl.philox(seed, counter, site, at.to(tl.int32), (at >> 32).to(tl.int32))
    words = tl.join(tl.join(a, c), tl.join(b, d))
    return tl.reshape(words, [rows.shape[0], COLUMNS]) >= threshold


@triton.jit
def clear(table, i, start, n, COLUMNS: tl.constexpr):
    """Zeros for rows i of a table's gradient where there is no pair, or none from other side start on.

    A row is a ring of 2n columns: counted from its first pair, start, ..., 2n - 1 are left.
    """
    for first in range(start, 2 * n, COLUMNS):
        j = (first + tl.arange(0, COLUMNS))[None, :]
        t = j - i[:, None] + n - 1
        t = tl.where(t >= 2 * n, t - 2 * n, t)
        zero = tl.zeros([i.shape[0], COLUMNS], table.dtype.element_ty)
        tl.store(table + i[:, None] * (2 * n) + t, zero, mask=(i < n)[:, None] & (j < 2 * n))


@triton.jit
def place(batch, heads, n, size, ROWS: tl.constexpr):
    """What a program works on: its first row, the pair of head and sequence, the sequence, and where
    the pair begins in the vectors of the heads."""
    blocks = tl.cdiv(n, ROWS)
    pair = tl.program_id(0) // blocks
    sequence = pair % batch
    begin = sequence.to(tl.int64) * n * heads * size + pair // batch * size
    return tl.program_id(0) % blocks * ROWS, pair, sequence, begin


@triton.jit
def flash_attention(q, k, v, c2p, p2c, tokens, position, context, lse, seed, site, threshold, keep, scale,
                    batch, heads, n, size, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SIZE: tl.constexpr):
    """context = dropout(softmax(A)) v, and the logarithms of the sums of exp(A), for a block of queries.

    position, seed, site and threshold are those of kernels.dropout; with threshold 0 nothing
    is dropped. keep is the factor of what is kept.
    """
    first, pair, sequence, begin = place(batch, heads, n, size, ROWS)
    width = heads * size
    table = pair.to(tl.int64) * n * (2 * n)
    tokens += sequence * n
    end = filled(tokens, n)
    i = first + tl.arange(0, ROWS)
    queries = load_rows(q + begin, i, end, width, size, SIZE)
    largest = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    sum = tl.zeros([ROWS, SIZE], tl.float32)
    for start in range(0, tl.where(first < end, end, 0), COLUMNS):
        j = start + tl.arange(0, COLUMNS)
        keys = load_rows(k + begin, j, end, width, size, SIZE)
        values = load_rows(v + begin, j, end, width, size, SIZE)
        s = score(dot(queries, tl.trans(keys)), c2p + table, p2c + table, tokens, i[:, None], j[None, :], n, end, scale)
        larger = tl.maximum(largest, tl.max(s, axis=1))
        p = tl.exp(s - larger[:, None])
        shrink = tl.exp(largest - larger)
        total = total * shrink + tl.sum(p, axis=1)
        if threshold > 0:
            p = tl.where(kept(position, seed, site, threshold, pair * n + i, start, n, COLUMNS), p, 0.0)
        sum = dot(p.to(values.dtype), values, sum * shrink[:, None])
        largest = larger
    result = tl.where((i < end)[:, None], sum * (keep / total)[:, None], 0.0)
    store_rows(context + begin, i, n, width, size, result, SIZE)
    tl.store(lse + pair * n + i, largest + tl.log(total), mask=i < n)


@triton.jit
def flash_attention_queries(dcontext, q, k, v, c2p, p2c, context, lse, tokens, position, dq, dc2p, delta,
                            seed, site, threshold, keep, scale, batch, heads, n, size,
                            ROWS: tl.constexpr, COLUMNS: tl.constexpr, SIZE: tl.constexpr):
    """The gradients of q and c2p for a block of queries, and for every row the sum delta of
    dcontext * context, which is that of the probabilities times their gradients."""
    first, pair, sequence, begin = place(batch, heads, n, size, ROWS)
    width = heads * size
    table = pair.to(tl.int64) * n * (2 * n)
    tokens += sequence * n
    end = filled(tokens, n)
    i = first + tl.arange(0, ROWS)
    queries = load_rows(q + begin, i, end, width, size, SIZE)
    slopes = load_rows(dcontext + begin, i, end, width, size, SIZE)
    results = load_rows(context + begin, i, end, width, size, SIZE)
    row_delta = tl.sum(slopes.to(tl.float32) * results.to(tl.float32), axis=1)
    tl.store(delta + pair * n + i, row_delta, mask=i < n)
    row_lse = tl.load(lse + pair * n + i, mask=i < end, other=float("inf"))
    sum = tl.zeros([ROWS, SIZE], tl.float32)
    last = tl.where(first < end, end, 0)
    for start in range(0, last, COLUMNS):
        j = start + tl.arange(0, COLUMNS)
        keys = load_rows(k + begin, j, end, width, size, SIZE)
        values = load_rows(v + begin, j, end, width, size, SIZE)
        s = score(dot(queries, tl.trans(keys)), c2p + table, p2c + table, tokens, i[:, None], j[None, :], n, end, scale)
        p = tl.exp(s - row_lse[:, None])
        dp = dot(slopes, tl.trans(values))
        if threshold > 0:
            dp = tl.where(kept(position, seed, site, threshold, pair * n + i, start, n, COLUMNS), dp * keep, 0.0)
        ds = (p * (dp - row_delta[:, None])).to(keys.dtype)
        sum = dot(ds, keys, sum)
        at = i[:, None] * (2 * n) + (j[None, :] - i[:, None] + n - 1)
        tl.store(dc2p + table + at, ds, mask=(i < n)[:, None] & (j < n)[None, :])
    clear(dc2p + table, i, tl.minimum(tl.cdiv(last, COLUMNS) * COLUMNS, n), n, COLUMNS)
    store_rows(dq + begin, i, n, width, size, sum * scale, SIZE)


@triton.jit
def flash_attention_keys(dcontext, q, k, v, c2p, p2c, lse, delta, tokens, position, dk, dv, dp2c,
                         seed, site, threshold, keep, scale, batch, heads, n, size,
                         ROWS: tl.constexpr, COLUMNS: tl.constexpr, SIZE: tl.constexpr):
    """The gradients of k, v and p2c for a block of keys, after flash_attention_queries. Keys are the
    rows here, queries the columns."""
    first, pair, sequence, begin = place(batch, heads, n, size, ROWS)
    width = heads * size
    table = pair.to(tl.int64) * n * (2 * n)
    tokens += sequence * n
    end = filled(tokens, n)
    j = first + tl.arange(0, ROWS)
    keys = load_rows(k + begin, j, end, width, size, SIZE)
    values = load_rows(v + begin, j, end, width, size, SIZE)
    sum_k = tl.zeros([ROWS, SIZE], tl.float32)
    sum_v = tl.zeros([ROWS, SIZE], tl.float32)
    last = tl.where(first < end, end, 0)
    for start in range(0, last, COLUMNS):
        i = start + tl.arange(0, COLUMNS)
        queries = load_rows(q + begin, i, end, width, size, SIZE)
        slopes = load_rows(dcontext + begin, i, end, width, size, SIZE)
        row_lse = tl.load(lse + pair * n + i, mask=i < end, other=float("inf"))
        row_delta = tl.load(delta + pair * n + i, mask=i < end, other=0.0)
        s = score(dot(keys, tl.trans(queries)), c2p + table, p2c + table, tokens, i[None, :], j[:, None], n, end, scale)
        p = tl.exp(s - row_lse[None, :])
        dp = dot(values, tl.trans(slopes))
        dropped = p
        if threshold > 0:
            mask = tl.trans(kept(position, seed, site, threshold, pair * n + i, first, n, ROWS))
            dropped = tl.where(mask, p * keep, 0.0)
            dp = tl.where(mask, dp * keep, 0.0)
        sum_v = dot(dropped.to(slopes.dtype), slopes, sum_v)
        ds = (p * (dp - row_delta[None, :])).to(queries.dtype)
        sum_k = dot(ds, queries, sum_k)
        at = j[:, None] * (2 * n) + (i[None, :] - j[:, None] + n - 1)
        tl.store(dp2c + table + at, ds, mask=(j < n)[:, None] & (i < n)[None, :])
    clear(dp2c + table, j, tl.minimum(tl.cdiv(last, COLUMNS) * COLUMNS, n), n, COLUMNS)
    store_rows(dk + begin, j, n, width, size, sum_k * scale, SIZE)
    store_rows(dv + begin, j, n, width, size, sum_v, SIZE)


# A GPU that has no image of its own takes that of an older one of its family.
TARGETS = ["sm_80", "sm_90a", "sm_120a", "compute_80"]

# Rows, columns and warps with which a program's sums fit into registers (but for a few of the keys'),
# and its shared memory into the 48 KB that every GPU gives without being asked.
SHAPES = {
    "fp32": [(32, 16, 4), (32, 16, 4), (32, 16, 4)],
    "fp16": [(64, 32, 4), (64, 32, 4), (64, 32, 8)],
    "bf16": [(64, 32, 4), (64, 32, 4), (64, 32, 8)],
}


def variants(name, t):
    """The three kernels for a type of numbers."""
    kernels = [
        (flash_attention, f"*{t} *{t} *{t} *{t} *{t} *fp32 *i64 *{t} *fp32"),
        (flash_attention_queries, f"*{t} *{t} *{t} *{t} *{t} *{t} *{t} *fp32 *fp32 *i64 *{t} *{t} *fp32"),
        (flash_attention_keys, f"*{t} *{t} *{t} *{t} *{t} *{t} *fp32 *fp32 *fp32 *i64 *{t} *{t} *{t}"),
    ]
    return {
        f"{kernel.__name__}_{name}": variant(
            kernel, types + " u64 i32 u32 fp32 fp32 i32 i32 i32%4 i32%8", warps, rows, ROWS=rows, COLUMNS=columns, SIZE=64
        ) | dict(targets=TARGETS, options={"num_stages": 2, "enable_fp_fusion": True})
        for (kernel, types), (rows, columns, warps) in zip(kernels, SHAPES[t])
    }


VARIANTS = variants("float32", "fp32") | variants("float16", "fp16") | variants("bfloat16", "bf16")
