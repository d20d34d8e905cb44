package ort

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unsafe"
)

// EnvCUDALibrary names the environment variable that holds the path of an ONNX
// Runtime with a CUDA provider, or of a folder that contains it.
const EnvCUDALibrary = "CRITERIA_CUDA_ORT_LIB"

// EnvCUDA names the environment variable that holds the folder of NVIDIA's
// libraries (libcudart, libcublas, …).
const EnvCUDA = "CRITERIA_CUDA_LIB"

const (
	cudaProvider     = "CUDAExecutionProvider"
	cudaProviderFile = "libonnxruntime_providers_cuda.so"
	cudaRemedy       = "run `make deps-cuda`, or set " + EnvCUDALibrary + " to the libonnxruntime of onnxruntime-gpu and " + EnvCUDA + " to the folder of NVIDIA's libraries; device=cpu trains without a GPU"
)

// findCUDALibrary returns the path of an ONNX Runtime with a CUDA provider: the
// first of explicit, the environment variable [EnvCUDALibrary], the variable
// [EnvLibrary] if it names one, the newest below the folder "criteria-cuda" of
// the user's cache, and the system loader's. The error is a [*RuntimeError].
func findCUDALibrary(explicit string) (path string, tried []string, err error) {
	spec := searchSpec{
		what:     "ONNX Runtime with CUDA",
		explicit: explicit,
		env:      EnvCUDALibrary,
		cache:    "criteria-cuda",
		prefixes: []string{"libonnxruntime"},
		remedy:   cudaRemedy,
		loader:   loaderPath,
	}
	if explicit == "" && os.Getenv(EnvCUDALibrary) == "" {
		if path, tried, err := FindLibrary(os.Getenv(EnvLibrary)); err == nil && hasCUDAProvider(path) {
			return path, tried, nil
		}
	}
	return find(spec)
}

func hasCUDAProvider(library string) bool {
	real, err := filepath.EvalSymlinks(library)
	if err != nil {
		return false
	}
	_, err = os.Stat(filepath.Join(filepath.Dir(real), cudaProviderFile))
	return err == nil
}

// CUDAOptions says which GPU to use, and how.
type CUDAOptions struct {
	Ordinal   int    // number of the device, from 0
	Libraries string // folder of NVIDIA's libraries; empty: EnvCUDA, the user's cache, the system
	TF32      bool   // products of float32 with 10 bits of mantissa
	TuneGEMM  bool   // time the candidates for every product in the first run
	Attention bool   // load the kernels of fused attention as well
}

// A Device is where sessions run: a GPU, or the host in the place of one. It has
// memory and one stream of work, on which copies and runs follow each other in
// the order of the calls; only [Device.Wait] and [Event.Wait] wait for them. All
// of it happens on one thread of the operating system, since the provider keeps
// its state by thread.
type Device struct {
	ordinal int
	host    bool
	stream  unsafe.Pointer
	options CUDAOptions
	kernels *gpuKernels // nil: standard operators alone
	name    string

	work   chan func()
	joined chan struct{}
	once   sync.Once
}

// HostDevice returns the host as a device: what is written for a GPU runs there
// with the same results.
func HostDevice() *Device { return &Device{host: true, name: "host"} }

// number is -1 for host memory.
func (d *Device) number() int {
	if d == nil {
		return -1
	}
	return d.ordinal
}

// OpenCUDA returns a GPU. Whatever is missing for it, in the runtime, among
// NVIDIA's libraries, of the driver or of the machine, is a [*RuntimeError] that
// names it. The caller closes the device, after all sessions and buffers on it.
func (r *Runtime) OpenCUDA(opts CUDAOptions) (_ *Device, err error) {
	if runtime.GOOS != "linux" {
		return nil, &RuntimeError{Want: "Linux for a GPU", Got: runtime.GOOS, Remedy: "device=cpu trains without a GPU"}
	}
	info := r.Info()
	if !slices.Contains(info.Providers, cudaProvider) || !hasCUDAProvider(info.Library) {
		return nil, &RuntimeError{Library: info.Library, Want: "ONNX Runtime with a CUDA provider (" + cudaProviderFile + " beside it)",
			Got: "one with " + strings.Join(info.Providers, ", "), Tried: info.Tried, Remedy: cudaRemedy}
	}
	if err := loadCUDA(info.Library, opts.Libraries); err != nil {
		return nil, err
	}
	d := &Device{ordinal: opts.Ordinal, options: opts, work: make(chan func()), joined: make(chan struct{})}
	go d.serve()
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	return d, d.do(func() error { return d.start() })
}

// serve runs the calls of do on one thread.
func (d *Device) serve() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(d.joined)
	for f := range d.work {
		f()
	}
}

// do calls f on the device's thread.
func (d *Device) do(f func() error) error {
	if d == nil || d.host {
		return f()
	}
	result := make(chan error, 1)
	d.work <- func() { result <- f() }
	return <-result
}

func (d *Device) start() error {
	driver, version, err := cudaVersions()
	if err != nil {
		return err
	}
	dotted := func(v int) string { return fmt.Sprintf("%d.%d", v/1000, v%1000/10) }
	// Within a major version of CUDA, an older driver runs what is newer.
	if driver/1000 < version/1000 {
		got := "none"
		if driver > 0 {
			got = "one for CUDA " + dotted(driver)
		}
		return &RuntimeError{Want: fmt.Sprintf("an NVIDIA driver for CUDA %d", version/1000), Got: got,
			Remedy: fmt.Sprintf("install a newer NVIDIA driver (%s), or a libonnxruntime for the CUDA of this one (%s); device=cpu trains without a GPU", minimalDriver(version/1000), EnvCUDALibrary)}
	}
	count, err := cudaDevices()
	var cuda *cudaError
	if errors.As(err, &cuda) && cuda.code == cudaNoDevice {
		count, err = 0, nil
	}
	if err != nil {
		return &RuntimeError{Want: "a GPU", Got: "a driver that cannot be used", Err: err, Remedy: "see what nvidia-smi says; device=cpu trains without a GPU"}
	}
	if d.ordinal < 0 || d.ordinal >= count {
		return &RuntimeError{Want: fmt.Sprintf("GPU number %d", d.ordinal), Got: fmt.Sprintf("a machine with %d GPUs", count),
			Remedy: "see what nvidia-smi lists and what CUDA_VISIBLE_DEVICES hides; device=cpu trains without a GPU"}
	}
	if err := cudaUse(d.ordinal); err != nil {
		return err
	}
	major, minor, err := cudaCapability(d.ordinal)
	if err != nil {
		return err
	}
	if d.stream, err = cudaStream(); err != nil {
		return err
	}
	var unusable error
	d.kernels, unusable = loadKernels(major, minor, d.options.Attention)
	d.name = fmt.Sprintf("CUDA device %d (compute capability %d.%d, CUDA %s, %s)", d.ordinal, major, minor, dotted(version), describeKernels(d.kernels, unusable))
	return shareArenaOnce(d.ordinal, d.arenaOptions())
}

// minimalDriver says which driver a major version of CUDA needs.
func minimalDriver(major int) string {
	switch major {
	case 12:
		return "525 or newer"
	case 13:
		return "580 or newer"
	}
	return "for CUDA " + strconv.Itoa(major)
}

// String describes the device for people.
func (d *Device) String() string { return d.name }

// IsHost reports whether the device is the host itself.
func (d *Device) IsHost() bool { return d.host }

// Close waits for the device's work and ends its thread. Closing twice does
// nothing.
func (d *Device) Close() error {
	if d.host {
		return nil
	}
	var err error
	d.once.Do(func() {
		err = d.do(func() error {
			if d.stream == nil {
				return nil
			}
			err := errors.Join(cudaWait(d.stream), cudaCloseStream(d.stream))
			if d.kernels != nil {
				err = errors.Join(err, d.kernels.free())
			}
			return err
		})
		close(d.work)
		<-d.joined
	})
	return err
}

// NewBuffer returns memory of the device, zeroed. [OutOfMemoryError] says that
// it has not got as much.
func (d *Device) NewBuffer(size int) (*Buffer, error) { return d.buffer(size, false) }

// NewStaging returns memory of the host from and to which copies are fast and
// need not wait: pages that stay in their place.
func (d *Device) NewStaging(size int) (*Buffer, error) { return d.buffer(size, true) }

func (d *Device) buffer(size int, pinned bool) (*Buffer, error) {
	if d.host {
		return NewBuffer(size)
	}
	if size < 0 {
		return nil, fmt.Errorf("ort: buffer of %d bytes", size)
	}
	b := &Buffer{size: size}
	err := d.do(func() error {
		address, err := cudaAllocate(size, pinned)
		if err != nil {
			return d.outOfMemory(err, size)
		}
		if pinned {
			b.data = unsafe.Slice((*byte)(address), size)
			clear(b.data)
		} else {
			b.device, b.address = d, address
			if err := cudaClear(address, size, d.stream); err != nil {
				return errors.Join(err, cudaFree(address, false))
			}
		}
		b.release = func() error {
			return d.do(func() error { return errors.Join(cudaWait(d.stream), cudaFree(address, pinned)) })
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Copy copies a tensor's elements to another one of the same size, between host
// and device either way. It happens in its turn on the device's stream: memory
// of the host must not be touched before [Device.Wait], or before [Event.Wait] of
// an event recorded after it.
func (d *Device) Copy(to, from Tensor) error {
	n := from.Len() * from.dtype.Size()
	if m := to.Len() * to.dtype.Size(); m != n {
		return fmt.Errorf("ort: copying %d bytes to %d", n, m)
	}
	if d.host {
		copy(to.Bytes(), from.Bytes())
		return nil
	}
	return d.do(func() error { return cudaCopy(to.pointer(), from.pointer(), n, d.stream) })
}

// Clear sets a tensor's elements to 0, in its turn on the device's stream.
func (d *Device) Clear(t Tensor) error {
	if d.host {
		clear(t.Bytes())
		return nil
	}
	return d.do(func() error { return cudaClear(t.pointer(), t.Len()*t.dtype.Size(), d.stream) })
}

// Wait returns when all that was asked of the device is done.
func (d *Device) Wait() error {
	if d.host {
		return nil
	}
	return d.do(func() error { return cudaWait(d.stream) })
}

// An Event is a place in a device's work, for which one can wait while the device
// continues with what comes after it.
type Event struct {
	device *Device
	native unsafe.Pointer // nil on the host, where all is done at once
}

// NewEvent returns an event, to be closed before the device.
func (d *Device) NewEvent() (*Event, error) {
	e := &Event{device: d}
	if d.host {
		return e, nil
	}
	return e, d.do(func() (err error) {
		e.native, err = cudaEvent()
		return err
	})
}

// Record moves the event to after all that was asked of the device so far.
func (e *Event) Record() error {
	if e.native == nil {
		return nil
	}
	return e.device.do(func() error { return cudaRecord(e.native, e.device.stream) })
}

// Wait returns when the device has come to where the event was last recorded; at
// once if it never was.
func (e *Event) Wait() error {
	if e.native == nil {
		return nil
	}
	return e.device.do(func() error { return cudaWaitEvent(e.native) })
}

// Close frees the event. Closing twice does nothing.
func (e *Event) Close() error {
	if e.native == nil {
		return nil
	}
	native := e.native
	e.native = nil
	return e.device.do(func() error { return cudaCloseEvent(native) })
}

// MemoryInUse returns how many bytes of the device are in use, by whomever; 0 on
// the host.
func (d *Device) MemoryInUse() (used int, err error) {
	if d.host {
		return 0, nil
	}
	err = d.do(func() error {
		free, total, err := cudaMemory()
		used = total - free
		return err
	})
	return used, err
}

// OutOfMemoryError says that a device has too little memory.
type OutOfMemoryError struct {
	Device string
	Wanted int // bytes of the allocation that failed; 0 if it is not known
	Free   int // bytes that no process uses
	Total  int // bytes of the device
	Err    error
}

func (e *OutOfMemoryError) Error() string {
	const mib = 1 << 20
	wanted := ""
	if e.Wanted > 0 {
		wanted = fmt.Sprintf(" for %d MiB", e.Wanted/mib)
	}
	return fmt.Sprintf("%s is out of memory%s: %d of %d MiB are free: %v", e.Device, wanted, e.Free/mib, e.Total/mib, e.Err)
}

func (e *OutOfMemoryError) Unwrap() error { return e.Err }

// bufferSize finds the size in what ONNX Runtime's arena says when it has no
// more memory.
var bufferSize = regexp.MustCompile(`requested buffer of size (\d+)|Requested bytes: (\d+)`)

// outOfMemory makes an [*OutOfMemoryError] of an error that means it, whether
// CUDA or ONNX Runtime says so. It is called on the device's thread.
func (d *Device) outOfMemory(err error, wanted int) error {
	var cuda *cudaError
	var status *StatusError
	switch {
	case errors.As(err, &cuda) && cuda.code == cudaOutOfMemory:
	case errors.As(err, &status):
		m := bufferSize.FindStringSubmatch(status.Message)
		if m == nil && !strings.Contains(status.Message, "out of memory") {
			return err
		}
		if m != nil {
			wanted, _ = strconv.Atoi(m[1] + m[2])
		}
	default:
		return err
	}
	free, total, infoErr := cudaMemory()
	return &OutOfMemoryError{Device: d.name, Wanted: wanted, Free: free, Total: total, Err: errors.Join(err, infoErr)}
}

// arenaOptions are the provider's options that concern memory.
func (d *Device) arenaOptions() [][2]string {
	return [][2]string{
		{"device_id", strconv.Itoa(d.ordinal)},
		// The other strategy doubles the arena each time and may end above what
		// fixed shapes ever need.
		{"arena_extend_strategy", "kSameAsRequested"},
	}
}

// sessionOptions are the provider's options.
func (d *Device) sessionOptions(capture bool) [][2]string {
	zeroOne := func(on bool) string { return strconv.Itoa(int(flag(on))) }
	return append(d.arenaOptions(),
		[2]string{"use_tf32", zeroOne(d.options.TF32)},
		[2]string{"enable_cuda_graph", zeroOne(capture)},
		[2]string{"tunable_op_enable", zeroOne(d.options.TuneGEMM)},
		[2]string{"tunable_op_tuning_enable", zeroOne(d.options.TuneGEMM)},
	)
}

// shareArenaOnce registers one arena for all sessions on a device, so that their
// memory is about that of the largest and not the sum of all.
func shareArenaOnce(device int, options [][2]string) error {
	environment.Lock()
	defer environment.Unlock()
	if environment.pool == nil || slices.Contains(environment.arenas, device) {
		return nil // in a borrowed environment every session has its own
	}
	if err := shareCUDAArena(environment.pool, device, options); err != nil {
		return err
	}
	environment.arenas = append(environment.arenas, device)
	return nil
}

var cudaLibraryName = regexp.MustCompile(`^lib(cu|nv)\w*\.so`)

// loadCUDA loads what the CUDA provider beside a library is linked to. The
// provider itself says where to look for nothing of it.
func loadCUDA(library, libraries string) error {
	real, err := filepath.EvalSymlinks(library)
	if err != nil {
		return err
	}
	provider := filepath.Join(filepath.Dir(real), cudaProviderFile)
	file, err := elf.Open(provider)
	if err != nil {
		return &RuntimeError{Library: provider, Want: "the CUDA provider", Got: "a file that cannot be read", Remedy: cudaRemedy, Err: err}
	}
	defer file.Close()
	all, err := file.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("onnxruntime: %s: %w", provider, err)
	}
	needed := slices.DeleteFunc(all, func(name string) bool { return !cudaLibraryName.MatchString(name) })
	folder, err := cudaFolder(libraries)
	if err != nil {
		return err
	}
	// Some need others of them: go around until nothing more can be loaded.
	missing, failures := needed, map[string]error{}
	for {
		var left []string
		for _, name := range missing {
			if failures[name] = preloadFrom(folder, name); failures[name] != nil {
				left = append(left, name)
			}
		}
		progress := len(left) < len(missing)
		missing = left
		if len(missing) == 0 || !progress {
			break
		}
	}
	if i := slices.Index(missing, "libcuda.so.1"); i >= 0 {
		return &RuntimeError{Library: "libcuda.so.1", Want: "the NVIDIA driver", Got: "nothing",
			Remedy: "install the driver (nvidia-smi should work), or add the folder of its libcuda.so.1 to LD_LIBRARY_PATH; device=cpu trains without a GPU", Err: failures[missing[i]]}
	}
	if len(missing) > 0 {
		return &RuntimeError{Library: missing[0], Want: "NVIDIA's libraries that " + provider + " is linked to", Got: "all but " + strings.Join(missing, ", "),
			Tried: []string{folder + " (" + EnvCUDA + ", or the user's cache)", "the system's loader"}, Remedy: cudaRemedy, Err: failures[missing[0]]}
	}
	i := slices.IndexFunc(needed, func(name string) bool { return strings.HasPrefix(name, "libcudart.so") })
	if i < 0 {
		return fmt.Errorf("onnxruntime: %s is linked to %v: no CUDA runtime", provider, needed)
	}
	return openCUDA(needed[i])
}

// cudaFolder returns the folder in which NVIDIA's libraries are looked for
// first; "" if there is none.
func cudaFolder(explicit string) (string, error) {
	for _, order := range []struct{ source, folder string }{{"the option", explicit}, {EnvCUDA, os.Getenv(EnvCUDA)}} {
		if order.folder == "" {
			continue
		}
		if _, err := os.Stat(order.folder); err != nil {
			return "", &RuntimeError{Library: order.folder, Want: "a folder with NVIDIA's libraries", Got: "nothing usable",
				Tried: []string{order.folder + " (" + order.source + ")"}, Remedy: cudaRemedy, Err: err}
		}
		return order.folder, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", nil
	}
	found, _ := filepath.Glob(filepath.Join(cache, "criteria-cuda", "nvidia-*"))
	if len(found) == 0 {
		return "", nil
	}
	return slices.MaxFunc(found, compareVersions), nil
}

func preloadFrom(folder, name string) error {
	if folder != "" {
		path := filepath.Join(folder, name)
		if _, err := os.Stat(path); err == nil {
			return preloadLibrary(path)
		}
	}
	return preloadLibrary(name)
}
