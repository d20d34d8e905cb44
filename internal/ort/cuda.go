package ort

/*
#include <stdlib.h>
#include "cuda.h"
*/
import "C"

import (
	"fmt"
	"runtime/cgo"
	"unsafe"
)

// cudaError is a failure that the CUDA runtime reported.
type cudaError struct {
	doing   string
	code    int
	message string
}

func (e *cudaError) Error() string { return fmt.Sprintf("CUDA: %s: %s", e.doing, e.message) }

// Status codes of the CUDA runtime.
const (
	cudaOutOfMemory        = 2
	cudaInsufficientDriver = 35
	cudaNoDevice           = 100
)

func cudaCheck(status C.int, format string, args ...any) error {
	if status == 0 {
		return nil
	}
	return &cudaError{fmt.Sprintf(format, args...), int(status), C.GoString(C.cudax_message(status))}
}

// preloadLibrary loads a library by its path, or by a name that the system's
// loader finds, so that libraries which need it find it under its own name.
func preloadLibrary(path string) error {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	if message := C.cudax_preload(name); message != nil {
		return fmt.Errorf("%s", C.GoString(message))
	}
	return nil
}

// openCUDA makes a loaded libcudart, by its file name, the one that is called.
func openCUDA(name string) error {
	cname := C.CString(name)
	defer C.free(unsafe.Pointer(cname))
	if message := C.cudax_open(cname); message != nil {
		return fmt.Errorf("%s: %s", name, C.GoString(message))
	}
	return nil
}

// cudaVersions returns the versions of CUDA that the driver offers, 0 without a
// driver, and that the runtime has: 13000 is 13.0.
func cudaVersions() (driver, runtime int, err error) {
	var d, r C.int
	err = cudaCheck(C.cudax_versions(&d, &r), "reading the versions")
	return int(d), int(r), err
}

func cudaDevices() (int, error) {
	var n C.int
	err := cudaCheck(C.cudax_count(&n), "counting the devices")
	return int(n), err
}

func cudaUse(device int) error {
	return cudaCheck(C.cudax_use(C.int(device)), "choosing device %d", device)
}

func cudaCapability(device int) (major, minor int, err error) {
	var a, b C.int
	err = cudaCheck(C.cudax_capability(C.int(device), &a, &b), "reading the compute capability of device %d", device)
	return int(a), int(b), err
}

// cudaMemory returns how many bytes of the current device are free, and how
// many it has.
func cudaMemory() (free, total int, err error) {
	var f, t C.size_t
	err = cudaCheck(C.cudax_memory(&f, &t), "asking for free memory")
	return int(f), int(t), err
}

func cudaStream() (unsafe.Pointer, error) {
	var stream unsafe.Pointer
	err := cudaCheck(C.cudax_stream(&stream), "creating a stream")
	return stream, err
}

func cudaCloseStream(stream unsafe.Pointer) error {
	return cudaCheck(C.cudax_close_stream(stream), "closing the stream")
}

func cudaWait(stream unsafe.Pointer) error {
	return cudaCheck(C.cudax_wait(stream), "waiting for the device")
}

func cudaEvent() (unsafe.Pointer, error) {
	var event unsafe.Pointer
	err := cudaCheck(C.cudax_event(&event), "creating an event")
	return event, err
}

func cudaCloseEvent(event unsafe.Pointer) error {
	return cudaCheck(C.cudax_close_event(event), "closing an event")
}

func cudaRecord(event, stream unsafe.Pointer) error {
	return cudaCheck(C.cudax_record(event, stream), "recording an event")
}

func cudaWaitEvent(event unsafe.Pointer) error {
	return cudaCheck(C.cudax_wait_event(event), "waiting for an event")
}

func cudaAllocate(size int, pinned bool) (unsafe.Pointer, error) {
	var address unsafe.Pointer
	err := cudaCheck(C.cudax_allocate(C.size_t(max(size, 1)), flag(pinned), &address), "allocating %d bytes", size)
	return address, err
}

func cudaFree(address unsafe.Pointer, pinned bool) error {
	return cudaCheck(C.cudax_free(address, flag(pinned)), "freeing memory")
}

func cudaCopy(to, from unsafe.Pointer, size int, stream unsafe.Pointer) error {
	return cudaCheck(C.cudax_copy(to, from, C.size_t(size), stream), "copying %d bytes", size)
}

func cudaClear(to unsafe.Pointer, size int, stream unsafe.Pointer) error {
	return cudaCheck(C.cudax_clear(to, C.size_t(size), stream), "clearing %d bytes", size)
}

func flag(on bool) C.int {
	if on {
		return 1
	}
	return 0
}

// cStrings copies the keys and values of options to C memory.
func cStrings(options [][2]string) (keys, values **C.char, free func()) {
	n := len(options)
	block := C.malloc(C.size_t(2*n+1) * C.size_t(unsafe.Sizeof(uintptr(0))))
	all := unsafe.Slice((**C.char)(block), 2*n)
	for i, o := range options {
		all[i], all[n+i] = C.CString(o[0]), C.CString(o[1])
	}
	return (**C.char)(block), (**C.char)(unsafe.Add(block, uintptr(n)*unsafe.Sizeof(uintptr(0)))), func() {
		for _, s := range all {
			C.free(unsafe.Pointer(s))
		}
		C.free(block)
	}
}

func appendCUDA(sessionOptions unsafe.Pointer, options [][2]string, stream unsafe.Pointer) error {
	keys, values, free := cStrings(options)
	defer free()
	return check(C.cudax_append(sessionOptions, keys, values, C.size_t(len(options)), stream), "adding the CUDA provider")
}

func shareCUDAArena(env unsafe.Pointer, device int, options [][2]string) error {
	keys, values, free := cStrings(options)
	defer free()
	return check(C.cudax_share_arena(env, C.int(device), keys, values, C.size_t(len(options))), "registering the shared arena of device %d", device)
}

func setRunOption(runOptions unsafe.Pointer, key, value string) error {
	k, v := C.CString(key), C.CString(value)
	defer C.free(unsafe.Pointer(k))
	defer C.free(unsafe.Pointer(v))
	return check(C.cudax_run_option(runOptions, k, v), "setting %s=%s", key, value)
}

func keepOptimized(sessionOptions unsafe.Pointer, path string) error {
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	return check(C.cudax_keep_optimized(sessionOptions, p), "writing the optimized model to %s", path)
}

// placement lists the nodes of a session: operators by provider, counted.
func placement(session unsafe.Pointer) (map[string]map[string]int, error) {
	placed := map[string]map[string]int{}
	handle := cgo.NewHandle(placed)
	defer handle.Delete()
	err := check(C.cudax_placement(session, C.uintptr_t(handle)), "reading where nodes were placed")
	return placed, err
}

//export cudaxPlaced
func cudaxPlaced(user C.uintptr_t, provider, op *C.char) {
	placed := cgo.Handle(user).Value().(map[string]map[string]int)
	p := C.GoString(provider)
	if placed[p] == nil {
		placed[p] = map[string]int{}
	}
	placed[p][C.GoString(op)]++
}
