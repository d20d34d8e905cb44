package ort

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"unsafe"

	"github.com/shirou/gopsutil/v4/cpu"
	binding "github.com/yalue/onnxruntime_go"

	"github.com/criteria-go/criteria/internal/parallel"
)

// Options says which libraries [Acquire] uses.
type Options struct {
	Library string // ONNX Runtime, a file or folder; empty: see FindLibrary
	CUDA    bool   // look for a library with a CUDA provider; see findCUDALibrary
	BLAS    string // BLAS for matrix products, a file or folder, or NoBLAS; empty: see findBLAS
	Threads int    // size of the shared pool, if this reference is the first; 0: DefaultThreads
}

// RuntimeInfo describes the runtime in use.
type RuntimeInfo struct {
	Library   string   // path of the shared library
	Version   string   // its version, such as "1.32.0"
	Providers []string // execution providers built into it, best first
	Tried     []string // places where the library was looked for, in order
	Borrowed  bool     // whether the host program initialised it
	Threads   int      // size of the pool that sessions share; 0 if each has its own
	BLAS      string   // path or name of the BLAS for matrix products; empty if they are ONNX Runtime's
	BLASTried []string // places where the BLAS was looked for, in order
}

// Runtime is one reference to the process-wide environment of ONNX Runtime.
type Runtime struct {
	info RuntimeInfo

	mu     sync.Mutex
	closed bool
}

// environment is the state of ONNX Runtime's environment, of which a process
// has one: the package-level variable mirrors what is global in the library.
var environment struct {
	sync.Mutex
	refs     int
	info     RuntimeInfo
	library  *library       // stays open for ever: unloading threads' code is not safe
	pool     unsafe.Pointer // our reference to the environment with the shared pool, nil if borrowed
	arena    bool           // whether we registered the shared arena
	borrowed bool
	arenas   []int // CUDA devices for which there is a shared arena

	blas      string // stays loaded, too
	blasTried []string
}

// DefaultThreads returns the number of physical cores that the process may use,
// by affinity and by the quota of its cgroup.
func DefaultThreads() int {
	n := parallel.Cores()
	if cores, err := cpu.Counts(false); err == nil && cores > 0 {
		n = min(n, cores)
	}
	return n
}

// Acquire returns a reference to ONNX Runtime. The first one finds the library
// and creates the environment; the last Close destroys it. If the host program
// has initialised onnxruntime_go already, its environment is borrowed: used as
// it is and never destroyed.
//
// All sessions that do not ask for another number of threads share one pool, of
// the size that the first reference asked for, so that several trainers in a
// process do not fight for the cores, and all share one memory arena, so that
// their memory is about that of the largest and not the sum of all. (In a borrowed
// environment each session has its own threads.)
//
// A library that is missing, or older than [MinVersion], or another one than
// the process already uses, is a [*RuntimeError]. A BLAS that was not asked for
// may be missing.
func Acquire(opts Options) (*Runtime, error) {
	environment.Lock()
	defer environment.Unlock()
	if environment.refs == 0 {
		if err := openEnvironment(opts); err != nil {
			return nil, err
		}
	} else if err := sameLibrary(opts.Library, environment.info.Library); err != nil {
		return nil, err
	}
	info := environment.info
	var err error
	if info.BLAS, info.BLASTried, err = openBLAS(opts.BLAS); err != nil {
		if environment.refs == 0 {
			err = errors.Join(err, closeEnvironment())
		}
		return nil, err
	}
	environment.refs++
	return &Runtime{info: info}, nil
}

// sameLibrary checks that an explicit library is the one in use.
func sameLibrary(explicit, inUse string) error {
	if explicit == "" {
		return nil
	}
	path, tried, err := FindLibrary(explicit)
	if err != nil {
		return err
	}
	a, errA := os.Stat(path)
	b, errB := os.Stat(inUse)
	if errA == nil && errB == nil && os.SameFile(a, b) {
		return nil
	}
	return &RuntimeError{Library: path, Want: "the library that this process already uses, " + inUse, Got: "another one", Tried: tried}
}

func openEnvironment(opts Options) error {
	borrowed := binding.IsInitialized()
	var (
		path  string
		tried []string
		err   error
	)
	if borrowed {
		version := binding.GetVersion()
		var ok bool
		if path, ok = findLoaded(version); !ok {
			return &RuntimeError{Want: "the library of the environment that the host program initialised", Got: "nothing of version " + version + " among the loaded libraries"}
		}
		tried = []string{path + " (initialised by the host program)"}
		if err := sameLibrary(opts.Library, path); err != nil {
			return err
		}
	} else if path, tried, err = opts.find(); err != nil {
		return err
	}

	lib := environment.library
	if lib == nil || environment.info.Library != path {
		if lib, err = openLibrary(path); err != nil {
			return &RuntimeError{Library: path, Want: "ONNX Runtime " + MinVersion + " or newer", Got: "a file that cannot be loaded", Tried: tried, Err: err}
		}
	}
	if compareVersions(lib.version, MinVersion) < 0 {
		lib.close()
		return &RuntimeError{Library: path, Want: "ONNX Runtime " + MinVersion + " or newer", Got: lib.version, Tried: tried}
	}
	if err := lib.use(); err != nil {
		return &RuntimeError{Library: path, Want: "ONNX Runtime " + MinVersion + " or newer", Got: lib.version, Tried: tried, Err: err}
	}
	info := RuntimeInfo{Library: path, Version: lib.version, Tried: tried, Borrowed: borrowed}
	if info.Providers, err = availableProviders(); err != nil {
		return err
	}

	var pool unsafe.Pointer
	if !borrowed {
		// The environment is created twice on purpose: our call decides on the
		// shared threads, the one of the binding then only takes a reference.
		info.Threads = cmp.Or(opts.Threads, DefaultThreads())
		if pool, err = createEnvironment(info.Threads); err != nil {
			return err
		}
		binding.SetSharedLibraryPath(path)
		if err := binding.InitializeEnvironment(); err != nil {
			releaseEnvironment(pool)
			return &RuntimeError{Library: path, Want: "ONNX Runtime " + MinVersion + " or newer", Got: lib.version, Tried: tried, Err: err}
		}
	}
	arena, err := registerArena()
	if err != nil && !borrowed {
		err = errors.Join(err, binding.DestroyEnvironment())
		releaseEnvironment(pool)
		return err
	}
	// In a borrowed environment a refusal means that the host has registered an
	// arena of its own; sessions use that one.

	environment.info = info
	environment.library = lib
	environment.pool = pool
	environment.arena = arena
	environment.borrowed = borrowed
	return nil
}

// find returns the library that was asked for.
func (o Options) find() (path string, tried []string, err error) {
	if o.CUDA {
		return findCUDALibrary(o.Library)
	}
	return FindLibrary(o.Library)
}

func registerArena() (bool, error) {
	memory, err := binding.GetMemoryInfo()
	if err != nil {
		return false, fmt.Errorf("onnxruntime: describing CPU memory: %w", err)
	}
	if err := binding.CreateAndRegisterAllocator(memory, nil); err != nil {
		return false, fmt.Errorf("onnxruntime: registering the shared arena: %w", err)
	}
	return true, nil
}

// addReference is called for every session, so that the environment outlives
// all of them.
func addReference() {
	environment.Lock()
	defer environment.Unlock()
	environment.refs++
}

func dropReference() error {
	environment.Lock()
	defer environment.Unlock()
	environment.refs--
	if environment.refs > 0 {
		return nil
	}
	return closeEnvironment()
}

func closeEnvironment() error {
	if environment.borrowed {
		if !environment.arena {
			return nil
		}
		memory, err := binding.GetMemoryInfo()
		if err == nil {
			err = binding.UnregisterAllocator(memory)
		}
		if err != nil {
			return fmt.Errorf("onnxruntime: taking back the shared arena: %w", err)
		}
		return nil
	}
	err := binding.DestroyEnvironment()
	releaseEnvironment(environment.pool)
	environment.pool = nil
	environment.arenas = nil
	trimMemory()
	if err != nil {
		return fmt.Errorf("onnxruntime: destroying the environment: %w", err)
	}
	return nil
}

// Info describes the runtime.
func (r *Runtime) Info() RuntimeInfo {
	info := r.info
	info.Providers = slices.Clone(info.Providers)
	info.Tried = slices.Clone(info.Tried)
	info.BLASTried = slices.Clone(info.BLASTried)
	return info
}

// Close gives the reference back. Sessions made from it stay usable until they
// are closed themselves. Closing twice does nothing.
func (r *Runtime) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	return dropReference()
}
