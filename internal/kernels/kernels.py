"""The kernels that criteria launches on an NVIDIA GPU, in Triton.

build.py compiles them ahead of time; interpret.py runs them on the CPU, for
tests. Products and sums are rounded one by one, roots and quotients to the
nearest: so a kernel gives the bits that the same arithmetic gives on a CPU.
"""

import triton
import triton.language as tl


@triton.jit
def dropout(x, y, position, seed, site, threshold, scale, n, BLOCK: tl.constexpr):
    """y = keep ? x * scale : 0, of n elements.

    Element i is kept if word i % 4 of Philox4x32-10 (Salmon et al.: Parallel
    Random Numbers: As Easy as 1, 2, 3; SC 2011) is not below the threshold. The
    counter is (i / 4, site, position), the key the seed. The position within the
    training, 64 bits, is read from the GPU's memory: launches that a CUDA graph
    repeats drop other elements each time. What was dropped is known again in
    the backward pass: nothing of it is kept.
    """
    first = tl.program_id(0) * BLOCK
    at = tl.load(position)
    counter = first // 4 + tl.arange(0, BLOCK // 4)
    a, b, c, d = tl.philox(seed, counter, site, at.to(tl.int32), (at >> 32).to(tl.int32))
    keep = tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), [BLOCK]) >= threshold
    i = first + tl.arange(0, BLOCK)
    # A mask that may end anywhere would have elements loaded one by one.
    if first + BLOCK <= n:
        drop(x + i, y + i, keep, scale, None)
    else:
        drop(x + i, y + i, keep, scale, i < n)


@triton.jit
def drop(x, y, keep, scale, mask):
    value = tl.load(x, mask=mask).to(tl.float32)
    tl.store(y, tl.where(keep, value * scale, 0.0).to(y.dtype.element_ty), mask=mask)


@triton.jit
def sum_squares(x, sums, n, SPAN: tl.constexpr, BLOCK: tl.constexpr):
    """sums[k] = the sum of the squares of elements k * SPAN to (k + 1) * SPAN."""
    first = tl.program_id(0) * SPAN
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, SPAN, BLOCK):
        i = first + start + tl.arange(0, BLOCK)
        value = tl.load(x + i, mask=i < n, other=0.0)
        total += value * value
    tl.store(sums + tl.program_id(0), tl.sum(total, axis=0))


@triton.jit
def adamw_step(p, m, v, g, scalars):
    """One step of AdamW, in the order of operations of internal/optim.

    scalars: 1 - lr * weight decay, beta2, 1 - beta1, 1 - beta2, lr / (1 - beta1^t),
    1 / sqrt(1 - beta2^t), epsilon, the factor of the gradients.
    """
    decay = tl.load(scalars)
    beta2 = tl.load(scalars + 1)
    weight1 = tl.load(scalars + 2)
    weight2 = tl.load(scalars + 3)
    step = tl.load(scalars + 4)
    correction = tl.load(scalars + 5)
    epsilon = tl.load(scalars + 6)
    g = g * tl.load(scalars + 7)
    m = m + weight1 * (g - m)
    v = v * beta2 + weight2 * g * g
    p = p * decay - tl.div_rn(step * m, tl.sqrt_rn(v) * correction + epsilon)
    return p, m, v


@triton.jit
def keep(p, copy, first, i, value, mask):
    """p[i] = value, and the same in the precision of the copy, which has p's elements from first on."""
    tl.store(p + i, value, mask=mask)
    if copy is not None:
        tl.store(copy + (i - first), value.to(copy.dtype.element_ty), mask=mask & (i >= first))


@triton.jit
def adamw(p, g, m, v, scalars, new_p, new_m, new_v, n, BLOCK: tl.constexpr):
    """adamw_step on n elements, if scalars[8] is not 0; else all stays as it was."""
    adamw_block(p, g, m, v, scalars, new_p, new_m, new_v, None, 0, n, BLOCK)


@triton.jit
def adamw_copying(p, g, m, v, scalars, new_p, new_m, new_v, copy, first, n, BLOCK: tl.constexpr):
    """adamw, and the new parameters from first on in low precision, for products to read."""
    adamw_block(p, g, m, v, scalars, new_p, new_m, new_v, copy, first, n, BLOCK)


@triton.jit
def adamw_block(p, g, m, v, scalars, new_p, new_m, new_v, copy, first, n, BLOCK: tl.constexpr):
    """Either of them; copy may be None."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    old_p = tl.load(p + i, mask=i < n)
    old_m = tl.load(m + i, mask=i < n)
    old_v = tl.load(v + i, mask=i < n)
    next_p, next_m, next_v = adamw_step(old_p, old_m, old_v, tl.load(g + i, mask=i < n), scalars)
    finite = tl.load(scalars + 8) != 0
    keep(new_p, copy, first, i, tl.where(finite, next_p, old_p), i < n)
    tl.store(new_m + i, tl.where(finite, next_m, old_m), mask=i < n)
    tl.store(new_v + i, tl.where(finite, next_v, old_v), mask=i < n)


@triton.jit
def quantise(x, largest, cells):
    """The codes of x: of 65536 equal cells of [-1, 1], the code that a table has."""
    cell = ((tl.div_rn(x, largest) + 1.0) * 32768.0).to(tl.int32)
    code = tl.load(cells + tl.minimum(tl.maximum(cell, 0), 65535))
    return tl.where(largest > 0, code, 0)


@triton.jit
def adamw8bit(p, g, codes, floats, owners, tensors, values, cells, scalars, n, BLOCK: tl.constexpr):
    """adamw_step in place on n blocks, with moments in 8 bits as in internal/optim.

    Every program works on a block of a tensor: the one that owners names. A row of
    tensors has the number of its first block; its place in p and g and its size; the
    places of the scales of its first and second moment in floats, and of their codes;
    and that of its scalars. A tensor without codes (-1) has its moments in floats.
    Codes and floats are the same memory. values and cells are the codebooks of both
    moments.
    """
    adamw8bit_block(p, g, codes, floats, owners, tensors, values, cells, scalars, None, 0, BLOCK)


@triton.jit
def adamw8bit_copying(p, g, codes, floats, owners, tensors, values, cells, scalars, copy, first, n, BLOCK: tl.constexpr):
    """adamw8bit, and the new parameters from first on in low precision, for products to read."""
    adamw8bit_block(p, g, codes, floats, owners, tensors, values, cells, scalars, copy, first, BLOCK)


@triton.jit
def adamw8bit_block(p, g, codes, floats, owners, tensors, values, cells, scalars, copy, first, BLOCK: tl.constexpr):
    """Either of them; copy may be None."""
    block = tl.program_id(0)
    row = tensors + 8 * tl.load(owners + block)
    k = block - tl.load(row)
    i = k * BLOCK + tl.arange(0, BLOCK)
    inside = i < tl.load(row + 2)
    at = tl.load(row + 1) + i
    floats1 = floats + tl.load(row + 3)
    floats2 = floats + tl.load(row + 4)
    code1 = tl.load(row + 5)
    codes1 = codes + code1 + i
    codes2 = codes + tl.load(row + 6) + i
    scalars += tl.load(row + 7)
    if tl.load(scalars + 8) != 0:
        old = tl.load(p + at, mask=inside, other=0.0)
        grad = tl.load(g + at, mask=inside, other=0.0)
        if code1 >= 0:
            m = tl.load(values + tl.load(codes1, mask=inside, other=0).to(tl.int32)) * tl.load(floats1 + k)
            v = tl.load(values + 256 + tl.load(codes2, mask=inside, other=0).to(tl.int32)) * tl.load(floats2 + k)
            new, m, v = adamw_step(old, tl.where(inside, m, 0.0), tl.where(inside, v, 0.0), grad, scalars)
            largest1 = tl.max(tl.abs(m), axis=0)
            largest2 = tl.max(v, axis=0)
            tl.store(floats1 + k, largest1)
            tl.store(floats2 + k, largest2)
            tl.store(codes1, quantise(m, largest1, cells), mask=inside)
            tl.store(codes2, quantise(v, largest2, cells + 65536), mask=inside)
            keep(p, copy, first, at, new, inside)
        else:
            m = tl.load(floats1 + i, mask=inside, other=0.0)
            v = tl.load(floats2 + i, mask=inside, other=0.0)
            new, m, v = adamw_step(old, m, v, grad, scalars)
            tl.store(floats1 + i, m, mask=inside)
            tl.store(floats2 + i, v, mask=inside)
            keep(p, copy, first, at, new, inside)


# How each binary is made: its kernel, the types of its arguments in their order
# ("%16": a multiple of 16), the warps of a program, the elements that a program
# works on, constants.
def variant(kernel, types, warps, block, **constants):
    return dict(kernel=kernel, types=types.split(), warps=warps, block=block, constants=constants)


LOW = [("float16", "fp16"), ("bfloat16", "bf16")]

# What AdamW reads and writes whether there is a copy or not.
VECTORS = "*fp32 *fp32 *fp32 *fp32 *fp32 *fp32 *fp32 *fp32"
TABLES = "*fp32 *fp32 *u8 *fp32 *i32 *i64 *fp32 *u8 *fp32"

VARIANTS = {
    f"dropout_{name}": variant(dropout, f"*{t} *{t} *i64 u64 i32 u32 fp32 i32", 4, 1024, BLOCK=1024)
    for name, t in [("float32", "fp32")] + LOW
} | {
    "sum_squares": variant(sum_squares, "*fp32 *fp32 i32%16", 8, 65536, SPAN=65536, BLOCK=4096),
    "adamw": variant(adamw, f"{VECTORS} i32%16", 4, 1024, BLOCK=1024),
    "adamw8bit": variant(adamw8bit, f"{TABLES} i32", 4, 1, BLOCK=256),
} | {
    f"adamw_{name}": variant(adamw_copying, f"{VECTORS} *{t} i32%16 i32%16", 4, 1024, BLOCK=1024) for name, t in LOW
} | {
    f"adamw8bit_{name}": variant(adamw8bit_copying, f"{TABLES} *{t} i32%16 i32", 4, 1, BLOCK=256) for name, t in LOW
}
