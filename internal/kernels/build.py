"""Compiles kernels.py and attention.py for every architecture, without a GPU.

    python build.py DIR

writes DIR/<architecture>/<kernel>.cubin or .ptx and DIR/manifest.json. The same
sources and the same version of Triton give the same bytes.
"""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

cache = tempfile.TemporaryDirectory()
os.environ["TRITON_CACHE_DIR"] = cache.name  # whatever another version has left in the user's
os.environ["TRITON_DISABLE_LINE_INFO"] = "1"  # it has paths of this machine

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import attention
import kernels

# PTX is for what comes after these; a driver compiles it when it is loaded.
# Triton would write the newest version of PTX, which only the newest driver
# reads; this one, of CUDA 12.0, is all that the kernels need.
PTX_VERSION = 80
TARGETS = {"sm_80": 80, "sm_86": 86, "sm_89": 89, "sm_90a": 90, "sm_120a": 120, "compute_80": 80}

SOURCES = ["attention.py", "build.py", "kernels.py"]

VARIANTS = kernels.VARIANTS | attention.VARIANTS


def compile(variant, capability):
    """Returns what Triton makes of a variant, and the PTX."""
    arguments = variant["kernel"].arg_names
    types = [t.partition("%")[0] for t in variant["types"]]
    signature = dict(zip(arguments, types)) | {name: "constexpr" for name in variant["constants"]}
    # All addresses are multiples of 16: four elements are loaded at once.
    divisors = {(i,): 16 if t.startswith("*") else int(t.partition("%")[2] or 1) for i, t in enumerate(variant["types"])}
    aligned = {i: [["tt.divisibility", d]] for i, d in divisors.items() if d > 1}
    source = ASTSource(variant["kernel"], signature, variant["constants"], aligned)
    options = {"num_warps": variant["warps"], "enable_fp_fusion": False} | variant.get("options", {})
    if capability < 100:  # Blackwell is not known to PTX 8.0
        options["ptx_version"] = PTX_VERSION
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def assemble(ptx, target, fuse):
    """Returns the machine code. ptxas writes the file names that it is given into it."""
    tool = knobs.nvidia.ptxas if int(target.strip("sma_")) < 100 else knobs.nvidia.ptxas_blackwell
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "kernel.ptx").write_text(ptx)
        # The second option is a remedy of Triton's for a defect of ptxas 13.
        options = [f"--fmad={str(fuse).lower()}", "--regAllocOptLevel=2", f"--gpu-name={target}"]
        subprocess.run([tool.path, *options, "kernel.ptx", "-o", "kernel.cubin"], cwd=folder, check=True)
        return pathlib.Path(folder, "kernel.cubin").read_bytes()


def main(out):
    here = pathlib.Path(__file__).parent
    manifest = {
        "triton": triton.__version__,
        "sources": {name: hashlib.sha256((here / name).read_bytes()).hexdigest() for name in SOURCES},
        "kernels": [],
    }
    for name, variant in VARIANTS.items():
        images = []
        for target in variant.get("targets", TARGETS):
            compiled = compile(variant, TARGETS[target])
            metadata = compiled.metadata
            if metadata.global_scratch_size or metadata.num_ctas != 1:
                sys.exit(f"{name}: launching it is more than a grid and shared memory")
            ptx = compiled.asm["ptx"]
            if target.startswith("sm_"):
                file, code = f"{target}/{name}.cubin", assemble(ptx, target, metadata.enable_fp_fusion)
            else:
                file, code = f"{target}/{name}.ptx", ptx.encode()
            path = pathlib.Path(out, file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(code)
            images.append({
                "target": target,
                "file": file,
                "sha256": hashlib.sha256(code).hexdigest(),
                "warps": metadata.num_warps,
                "shared": metadata.shared,
            })
        manifest["kernels"].append({
            "name": name,
            "entry": variant["kernel"].__name__,
            "arguments": [f"{a} {t}" for a, t in zip(variant["kernel"].arg_names, variant["types"])],
            "block": variant["block"],
            "images": images,
        })
    pathlib.Path(out, "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
