//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
)

// cudaPart is a wheel with libraries that a GPU needs. They lie in one folder:
// ONNX Runtime looks for its providers beside itself.
type cudaPart struct {
	wheelPart
	tag, sha256 string
	members     map[string]string // path in the wheel → file name
}

// cudaRuntime is ONNX Runtime with its CUDA provider. Version 1.31.1 is built
// for CUDA 13.0, and needs cuDNN for none of the operators of our graphs.
var cudaRuntime = cudaPart{
	wheelPart: wheelPart{distribution: "onnxruntime-gpu", version: "1.31.1", abi: "cp312"},
	tag:       "manylinux_2_28_x86_64",
	sha256:    "05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7",
	members: map[string]string{
		"onnxruntime/capi/libonnxruntime.so.1.31.1":           "libonnxruntime.so",
		"onnxruntime/capi/libonnxruntime_providers_cuda.so":   "libonnxruntime_providers_cuda.so",
		"onnxruntime/capi/libonnxruntime_providers_shared.so": "libonnxruntime_providers_shared.so",
	},
}

// cudaLibraries are NVIDIA's own, of CUDA 13.0: the oldest driver that runs them
// is 580. Nothing of cuRAND is called, but the provider is linked to it.
var cudaLibraries = []cudaPart{
	{wheelPart{distribution: "nvidia-cuda-runtime", version: "13.0.96"}, "manylinux_2_17_x86_64",
		"7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548", nvidia("libcudart.so.13")},
	{wheelPart{distribution: "nvidia-cublas", version: "13.1.0.3"}, "manylinux_2_27_x86_64",
		"ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171", nvidia("libcublas.so.13", "libcublasLt.so.13")},
	{wheelPart{distribution: "nvidia-curand", version: "10.4.0.35"}, "manylinux_2_27_x86_64",
		"1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc", nvidia("libcurand.so.10")},
}

func nvidia(names ...string) map[string]string {
	members := map[string]string{}
	for _, name := range names {
		members[path.Join("nvidia/cu13/lib", name)] = name
	}
	return members
}

// hasCUDA tells whether there are wheels for this platform.
func hasCUDA() bool { return platform() == "linux/amd64" }

// cudaPaths says where the parts for a GPU lie.
type cudaPaths struct {
	onnxruntime string // libonnxruntime.so, with its CUDA provider beside it
	nvidia      string // folder of NVIDIA's libraries
}

// cuda returns where the parts for a GPU lie, and provides the missing ones
// first: ONNX Runtime (255 MB to download) and, if asked for, NVIDIA's libraries
// (480 MB). They have a folder of their own: a program that computes on the CPU
// looks for libonnxruntime in the other one, and must not find this.
func (c *cache) cuda(ctx context.Context, libraries bool) (cudaPaths, error) {
	if !hasCUDA() {
		return cudaPaths{}, fmt.Errorf("ONNX Runtime with CUDA comes for linux/amd64, this is %s", platform())
	}
	folder := func(name string) string {
		return filepath.Join(c.dir+"-cuda", name+"-"+runtime.GOOS+"-"+runtime.GOARCH)
	}
	p := cudaPaths{nvidia: folder("nvidia-13.0")}
	dir := folder("onnxruntime-" + cudaRuntime.version)
	p.onnxruntime = filepath.Join(dir, "libonnxruntime.so")
	if err := c.provide(ctx, cudaRuntime, dir); err != nil {
		return p, err
	}
	if !libraries {
		return p, nil
	}
	for _, part := range cudaLibraries {
		if err := c.provide(ctx, part, p.nvidia); err != nil {
			return p, err
		}
	}
	return p, nil
}

// provide installs the libraries of a wheel in a folder unless they are there.
func (c *cache) provide(ctx context.Context, part cudaPart, dir string) error {
	paths := map[string]string{}
	complete := true
	for member, name := range part.members {
		paths[member] = filepath.Join(dir, name)
		complete = complete && exists(paths[member])
	}
	if complete {
		return nil
	}
	if err := checkTools([]tool{pip}); err != nil {
		return err
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	fmt.Fprintf(c.stderr, "deps: providing %s %s\n", part.distribution, part.version)
	err = c.download(ctx, part.wheelPart, part.tag, func(file string) error { return c.unpackAll(file, part.sha256, paths) })
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted while providing %s; run it again to go on", part.distribution)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", part.distribution, err)
	}
	return nil
}
