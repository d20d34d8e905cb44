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

from kernels import VARIANTS


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
