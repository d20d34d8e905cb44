package ort

/*
#cgo CFLAGS: -O3 -std=c11 -Wall -Wextra -Werror=incompatible-pointer-types -Werror=int-conversion
#cgo linux LDFLAGS: -ldl
#cgo noescape ortx_tensor
#cgo nocallback ortx_tensor
#cgo noescape ortx_bind
#cgo nocallback ortx_bind
#include <stdlib.h>
#include "api.h"
#include "blas.h"
#include "ops.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unsafe"
)

// StatusError is a failure that ONNX Runtime reported.
type StatusError struct {
	Doing   string // what was being done
	Code    int    // OrtErrorCode
	Message string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("onnxruntime: %s: %s", e.Doing, e.Message)
}

// check turns a status into an error and releases it.
func check(status *C.OrtStatus, format string, args ...any) error {
	if status == nil {
		return nil
	}
	var code C.int
	var message *C.char
	C.ortx_error(status, &code, &message)
	err := &StatusError{Doing: fmt.Sprintf(format, args...), Code: int(code), Message: strings.TrimSpace(C.GoString(message))}
	C.ortx_release_status(status)
	return err
}

// library is an open ONNX Runtime library.
type library struct {
	handle  unsafe.Pointer
	version string
}

// openLibrary opens the library at path, or with this name for the system's
// loader, and reads its version.
func openLibrary(path string) (*library, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var l library
	var version *C.char
	if message := C.ortx_open(name, &l.handle, &version); message != nil {
		return nil, errors.New(C.GoString(message))
	}
	l.version = C.GoString(version)
	return &l, nil
}

// findLoaded returns the path of the ONNX Runtime of this version that is
// already part of the process.
func findLoaded(version string) (string, bool) {
	v := C.CString(version)
	defer C.free(unsafe.Pointer(v))
	const size = 4096
	buf := (*C.char)(C.malloc(size))
	defer C.free(unsafe.Pointer(buf))
	if C.ortx_find_loaded(v, buf, size) == 0 {
		return "", false
	}
	return C.GoString(buf), true
}

func (l *library) path() string {
	const size = 4096
	buf := (*C.char)(C.malloc(size))
	defer C.free(unsafe.Pointer(buf))
	if C.ortx_path(l.handle, buf, size) == 0 {
		return ""
	}
	return C.GoString(buf)
}

// use makes this library the one that all later calls go to.
func (l *library) use() error {
	if message := C.ortx_use(l.handle); message != nil {
		return errors.New(C.GoString(message))
	}
	return nil
}

func (l *library) close() { C.ortx_dlclose(l.handle) }

// createEnvironment creates the process-wide environment with one pool of
// threads for all sessions.
func createEnvironment(threads int) (unsafe.Pointer, error) {
	var env *C.OrtEnv
	err := check(C.ortx_create_env(C.int(threads), 1, &env), "creating the environment with %d threads", threads)
	return unsafe.Pointer(env), err
}

func releaseEnvironment(env unsafe.Pointer) { C.ortx_release_env(env) }

// trimMemory gives what the C library keeps for later back to the system. The
// sessions of a training take memory on several threads, for each of which
// glibc has a heap of its own; without this, a process that trains again and
// again would hold the sum of what each of them ever needed.
func trimMemory() { _ = C.ortx_trim() }

func availableProviders() ([]string, error) {
	var names **C.char
	var n C.int
	if err := check(C.ortx_providers(&names, &n), "listing the execution providers"); err != nil {
		return nil, err
	}
	defer C.ortx_release_providers(names, n)
	out := make([]string, n)
	for i, name := range unsafe.Slice(names, n) {
		out[i] = C.GoString(name)
	}
	return out, nil
}

// rawPointer returns the C pointer that an object of onnxruntime_go holds in an
// unexported field, reached through the fields in path. That binding offers no
// other way to its objects. It panics if a release has renamed a field, which no
// test survives.
func rawPointer(object any, path ...string) unsafe.Pointer {
	v := reflect.ValueOf(object)
	for _, field := range path {
		for v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		v = v.FieldByName(field)
	}
	return v.UnsafePointer()
}

// registerOperators lets the session to be made use the domain "criteria". The
// caller holds the environment's lock.
func registerOperators(options unsafe.Pointer) error {
	return check(C.ops_register(options), "registering the operators of domain %q", Domain)
}

// loadBLAS makes the library at path the one that products go to.
func loadBLAS(path string, cores int) error {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	if message := C.blas_load(name, C.int(cores)); message != nil {
		return errors.New(C.GoString(message))
	}
	return nil
}

func shareThreads(options unsafe.Pointer) error {
	return check(C.ortx_share_threads(options), "sharing the environment's threads")
}

func setDeterministic(options unsafe.Pointer, on bool) error {
	var flag C.int
	if on {
		flag = 1
	}
	return check(C.ortx_deterministic(options, flag), "setting deterministic compute to %t", on)
}

// sessionValues lists the inputs or outputs of a compiled model.
func sessionValues(session unsafe.Pointer, output bool) ([]ValueInfo, error) {
	kind, flag := "inputs", C.int(0)
	if output {
		kind, flag = "outputs", 1
	}
	var n C.size_t
	if err := check(C.ortx_count(session, flag, &n), "counting the %s", kind); err != nil {
		return nil, err
	}
	out := make([]ValueInfo, n)
	for i := range out {
		var name *C.char
		if err := check(C.ortx_name(session, flag, C.size_t(i), &name), "reading the names of the %s", kind); err != nil {
			return nil, err
		}
		out[i].Name = C.GoString(name)
		C.ortx_free_name(name)
		const maxRank = 16
		var dims [maxRank]C.int64_t
		rank := C.size_t(maxRank)
		var dtype C.int
		if err := check(C.ortx_type(session, flag, C.size_t(i), &dtype, &dims[0], &rank), "reading the type of %q", out[i].Name); err != nil {
			return nil, err
		}
		if rank > maxRank {
			return nil, fmt.Errorf("onnxruntime: %q has %d dimensions, %d at most are supported", out[i].Name, rank, maxRank)
		}
		out[i].DType = DType(dtype)
		out[i].Shape = make([]int, rank)
		for d := range out[i].Shape {
			out[i].Shape[d] = int(dims[d])
		}
	}
	return out, nil
}

// bindValue creates a value over the tensor's memory and binds it. The caller
// releases the value once the binding is closed or has got another one.
func bindValue(binding unsafe.Pointer, output bool, name string, t Tensor) (unsafe.Pointer, error) {
	var few [4]C.int64_t // of what is bound in every run: it must not be allocated
	dims := few[:]       // a scalar has no dimensions, but C wants an address
	if len(t.shape) > len(few) {
		dims = make([]C.int64_t, len(t.shape))
	}
	for i, d := range t.shape {
		dims[i] = C.int64_t(d)
	}
	bytes, device := t.Len()*t.dtype.Size(), t.buffer.device.number()
	var made *C.OrtValue
	if status := C.ortx_tensor(t.pointer(), C.size_t(bytes), &dims[0], C.size_t(len(t.shape)), C.int(t.dtype),
		C.int(device), &made); status != nil {
		return nil, check(status, "creating a tensor for %q", name)
	}
	value := unsafe.Pointer(made)
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	var flag C.int
	if output {
		flag = 1
	}
	if status := C.ortx_bind(binding, flag, cname, value); status != nil {
		C.ortx_release_value(value)
		return nil, check(status, "binding %q", name)
	}
	return value, nil
}

func releaseValue(value unsafe.Pointer) { C.ortx_release_value(value) }

func runBinding(session, runOptions, binding unsafe.Pointer) error {
	return check(C.ortx_run(session, runOptions, binding), "running the model")
}
