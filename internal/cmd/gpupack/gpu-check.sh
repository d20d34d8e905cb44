#!/bin/sh
# Unpacks gpu-check and runs it: sh gpu-check/gpu-check [options of gpucheck]
# It needs an NVIDIA driver (580 or newer) and a Python with PyTorch for CUDA 13 and
# transformers: $PYTHON, or python3.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM
tar -xzf "$here/parts.tar.gz" -C "$work"

# NVIDIA's libraries are those of PyTorch's own packages.
if [ -z "${CRITERIA_CUDA_LIB:-}" ]; then
	CRITERIA_CUDA_LIB=$("$python" -c '
import glob, os
import nvidia
for root in nvidia.__path__:
    for path in glob.glob(os.path.join(root, "**", "libcublas.so.13"), recursive=True):
        print(os.path.dirname(path))
        raise SystemExit
') || CRITERIA_CUDA_LIB=
fi
if [ -n "$CRITERIA_CUDA_LIB" ]; then export CRITERIA_CUDA_LIB; else unset CRITERIA_CUDA_LIB; fi
# Code is loaded when it is first wanted: what was emptied is never read.
unset CUDA_MODULE_LOADING
export CRITERIA_CUDA_ORT_LIB="$work/ort/libonnxruntime.so"
export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}/usr/local/nvidia/lib64:/usr/local/nvidia/lib:$work/stub"
"$work/gpucheck" -golden "$work/golden" -python "$python" "$@"
