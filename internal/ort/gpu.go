package ort

/*
#cgo linux LDFLAGS: -lm
#include <stdlib.h>
#include "gpu.h"
#include "ops.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/criteria-go/criteria/internal/kernels"
)

// kernelNames returns the kernels of package kernels that operators launch, in the
// order of their numbers: all of them, or all but those of attention.
func kernelNames(attention bool) []string {
	n := C.int(C.GPU_ATTENTION)
	if attention {
		n = C.GPU_KERNELS
	}
	names := make([]string, n)
	for i := range n {
		names[i] = C.GoString(C.gpu_kernel_name(i))
	}
	return names
}

// gpuKernels are kernels that were loaded on a GPU.
type gpuKernels struct {
	module *C.gpu_module
	target string // of the images: "sm_90a"
}

// loadKernels loads what package kernels has for a GPU of this compute
// capability, which the calling thread has made current. If nothing of it can be
// used the error says why, and standard operators have to do.
//
// The kernels of attention are loaded if they are asked for: they are large, and
// a driver that compiles PTX takes its time.
func loadKernels(major, minor int, attention bool) (*gpuKernels, error) {
	manifest, err := kernels.All()
	if err != nil {
		return nil, err
	}
	targets := manifest.Targets(major, minor)
	if len(targets) == 0 {
		return nil, errors.New("none was compiled for this GPU")
	}
	if message := C.gpu_open(); message != nil {
		return nil, errors.New(C.GoString(message))
	}
	var errs []error
	names := kernelNames(attention)
	for i, target := range targets {
		k, err := loadTargets(manifest, targets[i:], names)
		if err == nil {
			return k, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", target, err))
	}
	return nil, errors.Join(errs...)
}

// loadTargets loads kernels from the images for the first target; those that have
// none from the next.
func loadTargets(manifest kernels.Manifest, targets, names []string) (_ *gpuKernels, err error) {
	k := &gpuKernels{C.gpu_new(), targets[0]}
	if k.module == nil {
		return nil, errors.New("out of memory")
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, k.free())
		}
	}()
	for i, name := range names {
		at := slices.IndexFunc(manifest.Kernels, func(k kernels.Kernel) bool { return k.Name == name })
		if at < 0 {
			return nil, fmt.Errorf("there is no kernel %s", name)
		}
		kernel := manifest.Kernels[at]
		var image kernels.Image
		if !slices.ContainsFunc(targets, func(target string) (ok bool) {
			image, ok = kernel.For(target)
			return ok
		}) {
			return nil, fmt.Errorf("there is no image of %s", name)
		}
		code, err := image.Code()
		if err != nil {
			return nil, err
		}
		entry := C.CString(kernel.Entry)
		launch := C.gpu_kernel{threads: C.uint(32 * image.Warps), shared: C.uint(image.Shared), block: C.size_t(kernel.Block), arguments: C.size_t(len(kernel.Arguments))}
		status := C.gpu_load(k.module, C.int(i), unsafe.Pointer(&code[0]), entry, launch)
		C.free(unsafe.Pointer(entry))
		if status != 0 {
			return nil, fmt.Errorf("loading %s: %s", name, C.GoString(C.gpu_message(status)))
		}
	}
	return k, nil
}

// register lets the session to be made launch the kernels.
func (k *gpuKernels) register(options unsafe.Pointer) error {
	return check(C.gpu_register(k.module, options), "registering the operators of domain %q on the GPU", Domain)
}

func (k *gpuKernels) free() error {
	if status := C.gpu_free(k.module); status != 0 {
		return fmt.Errorf("ort: unloading kernels: %s", C.GoString(C.gpu_message(status)))
	}
	return nil
}

// Operators returns the names of the operators of domain [Domain] that models on
// the device may use, sorted: none on a GPU that the library's kernels do not
// fit, as [Device.String] says.
func (d *Device) Operators() []string {
	if !d.host && d.kernels == nil {
		return nil
	}
	return operatorsOf(func(row C.ops_row) bool {
		return row.place == C.OPS_ON_DEVICE && (row.needs != C.OPS_NEEDS_ATTENTION || d.host || d.options.Attention)
	})
}

// describeKernels says for people which kernels are used.
func describeKernels(k *gpuKernels, err error) string {
	if err != nil {
		return "no custom kernels: " + strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return "kernels " + k.target
}
