//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"

	"github.com/criteria-go/criteria/internal/wheel"
)

// cudaRuntime is ONNX Runtime with its CUDA provider. Version 1.31.1 is built
// for CUDA 13.0, and needs cuDNN for none of the operators of our graphs. ONNX
// Runtime looks for its providers beside itself.
var cudaRuntime = wheel.Wheel{
	Distribution: "onnxruntime-gpu", Version: "1.31.1",
	SHA256: "05d548956197b9d01f59b625de740e0d6be3593f874e241a12dc0362650ecdf7",
	Members: map[string]string{
		"onnxruntime/capi/libonnxruntime.so.1.31.1":           "libonnxruntime.so",
		"onnxruntime/capi/libonnxruntime_providers_cuda.so":   "libonnxruntime_providers_cuda.so",
		"onnxruntime/capi/libonnxruntime_providers_shared.so": "libonnxruntime_providers_shared.so",
	},
}

// cudaLibraries are NVIDIA's own, of CUDA 13.0: the oldest driver that runs them
// is 580. Nothing of cuRAND is called, but the provider is linked to it.
var cudaLibraries = []wheel.Wheel{
	{Distribution: "nvidia-cuda-runtime", Version: "13.0.96",
		SHA256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548", Members: nvidia("libcudart.so.13")},
	{Distribution: "nvidia-cublas", Version: "13.1.0.3",
		SHA256:  "ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171",
		Members: nvidia("libcublas.so.13", "libcublasLt.so.13")},
	{Distribution: "nvidia-curand", Version: "10.4.0.35",
		SHA256: "1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc", Members: nvidia("libcurand.so.10")},
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
	dir := folder("onnxruntime-" + cudaRuntime.Version)
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
func (c *cache) provide(ctx context.Context, w wheel.Wheel, dir string) error {
	complete := true
	for _, name := range w.Members {
		complete = complete && exists(filepath.Join(dir, name))
	}
	if complete {
		return nil
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	fmt.Fprintf(c.stderr, "deps: providing %s %s\n", w.Distribution, w.Version)
	err = w.Fetch(ctx, dir)
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted while providing %s; run it again to go on", w.Distribution)
	}
	return err
}
