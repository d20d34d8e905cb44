"""Runs kernels on the CPU, by Triton's interpreter, for tests.

Reads cases from standard input and writes what became of their tensors to
standard output:

    [{"kernel": "adamw", "programs": 3, "arguments": [{"type": "fp32", "data": "<base64>"}, 5, 0.5]}]
    [["<base64>", null, null]]
"""

import base64
import json
import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

import attention
import kernels

VARIANTS = kernels.VARIANTS | attention.VARIANTS


def rounding(convert):
    """The interpreter cuts bfloat16 off, where a GPU rounds to the nearest, ties to even."""

    def converted(self, x, to):
        if (x.dtype.scalar, to.scalar) != (tl.float32, tl.bfloat16):
            return convert(self, x, to)
        bits = x.data.view(np.uint32)
        nearest = np.where(np.isnan(x.data), bits | 0x400000, bits + 0x7FFF + (bits >> 16 & 1))
        return interpreter.TensorHandle((nearest >> 16).astype(np.uint16), tl.bfloat16)

    return converted


interpreter.InterpreterBuilder.cast_impl = rounding(interpreter.InterpreterBuilder.cast_impl)


def widening(multiply):
    """The interpreter takes bfloat16 for integers in products of matrices: they are made float32 before."""

    def multiplied(self, a, b, *rest):
        a, b = (self.cast_impl(x, tl.float32) if x.dtype.scalar == tl.bfloat16 else x for x in (a, b))
        return multiply(self, a, b, *rest)

    return multiplied


interpreter.InterpreterBuilder.create_dot = widening(interpreter.InterpreterBuilder.create_dot)


class Tensor:
    """As much of a torch.Tensor on the CPU as the interpreter asks for."""

    def __init__(self, type, data):
        self.dtype = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "i64": "int64", "i32": "int32", "u8": "uint8"}[type]
        self.bytes = np.frombuffer(data, np.uint8).copy()

    def data_ptr(self):
        return self.bytes.ctypes.data

    def untyped_storage(self):
        return self

    def cpu(self):
        return self

    def copy_(self, other):
        pass

    def new_empty(self, *size, device):
        return self

    def set_(self, *storage):
        pass

    def storage_offset(self):
        return 0

    size = stride = storage_offset


def run(case):
    variant = VARIANTS[case["kernel"]]
    arguments = [Tensor(a["type"], base64.b64decode(a["data"])) if isinstance(a, dict) else a for a in case["arguments"]]
    with np.errstate(all="ignore"):
        variant["kernel"][(case["programs"],)](*arguments, **variant["constants"])
    return [base64.b64encode(a.bytes).decode() if isinstance(a, Tensor) else None for a in arguments]


if __name__ == "__main__":
    json.dump([run(case) for case in json.load(sys.stdin)], sys.stdout)
