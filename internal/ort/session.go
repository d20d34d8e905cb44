package ort

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"unsafe"

	binding "github.com/yalue/onnxruntime_go"
)

// Optimization says how much ONNX Runtime rewrites a graph when it compiles it.
type Optimization int

// The levels of graph optimization; each contains the one before it.
const (
	OptimizeAll      Optimization = iota // the default: also changes of layout
	OptimizeExtended                     // also fusions into ONNX Runtime's own operators
	OptimizeBasic                        // constant folding and removal of redundant nodes
	OptimizeNone
)

func (o Optimization) level() (binding.GraphOptimizationLevel, error) {
	switch o {
	case OptimizeAll:
		return binding.GraphOptimizationLevelEnableAll, nil
	case OptimizeExtended:
		return binding.GraphOptimizationLevelEnableExtended, nil
	case OptimizeBasic:
		return binding.GraphOptimizationLevelEnableBasic, nil
	case OptimizeNone:
		return binding.GraphOptimizationLevelDisableAll, nil
	}
	return 0, fmt.Errorf("ort: unknown optimization level %d", int(o))
}

// SessionOptions says how a model is compiled and run. The zero value is what
// training wants.
type SessionOptions struct {
	// Threads is the number of threads that work on one operator. 0, or the size
	// of the runtime's shared pool (see [Options]): that pool. Any other number: a pool of the
	// session's own, whose threads sleep while the session does not run, so that
	// many sessions do not fight for the cores. 1: the caller's thread alone.
	Threads int

	// Optimization is the level of graph optimization, OptimizeAll by default.
	Optimization Optimization

	// Nondeterministic allows kernels whose result may differ from run to run.
	Nondeterministic bool

	// Device is where the model runs, nil for the host. On a GPU every node must
	// have a place there: a model that would leave some to the CPU is refused.
	Device *Device

	// Capture lets a GPU repeat the launches of the third run from then on
	// (a CUDA graph): buffers must stay the same, and so do the random numbers of
	// ONNX Runtime's own operators.
	Capture bool

	// KeepOptimized, if not empty, is the file that the model is written to as
	// ONNX Runtime has rewritten it.
	KeepOptimized string

	// Profile, if not empty, is the prefix of the file that the time of every
	// node is written to when the session is closed.
	Profile string
}

// ValueInfo describes an input or output of a model.
type ValueInfo struct {
	Name  string
	DType DType
	Shape []int // -1 where the model leaves a dimension open
}

// Session is a compiled model.
type Session struct {
	inputs, outputs []ValueInfo
	device          *Device
	graphs          int // bindings made on a GPU, each with a captured graph of its own

	mu       sync.Mutex
	native   *binding.DynamicAdvancedSession // nil once closed
	bindings map[*Binding]struct{}
}

// NewSession compiles a model in ONNX format. The bytes are not kept.
func (r *Runtime) NewSession(model []byte, opts SessionOptions) (*Session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errClosed
	}
	options, err := r.sessionOptions(opts)
	if err != nil {
		return nil, err
	}
	defer options.Destroy()
	var native *binding.DynamicAdvancedSession
	err = opts.Device.do(func() (err error) {
		native, err = binding.NewDynamicAdvancedSessionWithONNXData(model, nil, nil, options)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("onnxruntime: compiling a model of %d bytes: %w", len(model), err)
	}
	s := &Session{native: native, device: opts.Device, bindings: map[*Binding]struct{}{}}
	if s.inputs, err = sessionValues(s.pointer(), false); err == nil {
		s.outputs, err = sessionValues(s.pointer(), true)
	}
	if err != nil {
		return nil, errors.Join(err, native.Destroy())
	}
	addReference()
	return s, nil
}

func (r *Runtime) sessionOptions(opts SessionOptions) (_ *binding.SessionOptions, err error) {
	if opts.Threads < 0 {
		return nil, fmt.Errorf("ort: %d threads", opts.Threads)
	}
	level, err := opts.Optimization.level()
	if err != nil {
		return nil, err
	}
	o, err := binding.NewSessionOptions()
	if err != nil {
		return nil, fmt.Errorf("onnxruntime: creating session options: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("onnxruntime: setting session options: %w", err)
			err = errors.Join(err, o.Destroy())
		}
	}()
	raw := rawPointer(o, "o")
	steps := []func() error{
		func() error { return o.SetGraphOptimizationLevel(level) },
		// What goes wrong is returned; it need not be printed as well.
		func() error { return o.SetLogSeverityLevel(binding.LoggingLevelFatal) },
		func() error { return o.SetExecutionMode(binding.ExecutionModeSequential) },
		// With the arena shared and memory patterns off, the memory of many
		// sessions is about that of the largest; each of the two alone does not
		// do it: a pattern's block comes on top of what the first run took.
		func() error { return o.AddSessionConfigEntry("session.use_env_allocators", "1") },
		func() error { return o.SetMemPattern(false) },
		func() error { return setDeterministic(raw, !opts.Nondeterministic) },
		func() error { return addOperators(raw, opts.Device) },
		func() error { return r.setThreads(o, raw, opts.Threads) },
	}
	if d := opts.Device; d != nil && !d.host {
		steps = append(steps,
			func() error { return o.AddSessionConfigEntry("session.disable_cpu_ep_fallback", "1") },
			func() error { return o.AddSessionConfigEntry("session.record_ep_graph_assignment_info", "1") },
			func() error { return appendCUDA(raw, d.sessionOptions(opts.Capture), d.stream) })
	}
	if opts.KeepOptimized != "" {
		steps = append(steps, func() error { return keepOptimized(raw, opts.KeepOptimized) })
	}
	if opts.Profile != "" {
		steps = append(steps, func() error { return o.EnableProfiling(opts.Profile) })
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return o, nil
}

func (r *Runtime) setThreads(o *binding.SessionOptions, raw unsafe.Pointer, threads int) error {
	if r.info.Threads > 0 && (threads == 0 || threads == r.info.Threads) {
		return shareThreads(raw)
	}
	return errors.Join(
		o.SetIntraOpNumThreads(cmp.Or(threads, DefaultThreads())),
		o.SetInterOpNumThreads(1),
		o.AddSessionConfigEntry("session.force_spinning_stop", "1"))
}

func (s *Session) pointer() unsafe.Pointer { return rawPointer(s.native, "s", "ortSession") }

// Inputs lists what the model reads, in the model's order.
func (s *Session) Inputs() []ValueInfo { return cloneInfos(s.inputs) }

// Outputs lists what the model writes, in the model's order.
func (s *Session) Outputs() []ValueInfo { return cloneInfos(s.outputs) }

func cloneInfos(in []ValueInfo) []ValueInfo {
	out := slices.Clone(in)
	for i := range out {
		out[i].Shape = slices.Clone(out[i].Shape)
	}
	return out
}

// Placement counts the operators of a model on a GPU by the provider that runs
// them.
func (s *Session) Placement() (map[string]map[string]int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.native == nil {
		return nil, errClosed
	}
	return placement(s.pointer())
}

// Close closes the session's bindings, waiting for their runs, and then the
// session. Closing twice does nothing.
func (s *Session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.native == nil {
		return nil
	}
	var errs []error
	for b := range s.bindings {
		errs = append(errs, b.release())
	}
	clear(s.bindings)
	errs = append(errs, s.device.do(s.native.Destroy))
	s.native = nil
	errs = append(errs, dropReference())
	return errors.Join(errs...)
}

// Binding connects the inputs and outputs of a session with tensors. It keeps
// the tensors' buffers referenced (but cannot keep one from being freed) until
// it is closed. A session may have many bindings; they may run at the same
// time, but each of them only once at a time.
type Binding struct {
	session *Session

	mu      sync.Mutex
	native  *binding.IoBinding // nil once closed
	run     *binding.RunOptions
	inputs  map[string]bound
	outputs map[string]bound

	// The pointers of the three native objects, looked up once.
	sessionPtr, bindingPtr, runPtr unsafe.Pointer
}

type bound struct {
	tensor Tensor
	value  unsafe.Pointer // OrtValue over the tensor's memory
}

// NewBinding returns a binding in which nothing is bound yet.
func (s *Session) NewBinding() (*Binding, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.native == nil {
		return nil, errClosed
	}
	native, err := s.native.CreateIoBinding()
	if err != nil {
		return nil, fmt.Errorf("onnxruntime: creating a binding: %w", err)
	}
	run, err := binding.NewRunOptions()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("onnxruntime: creating run options: %w", err), native.Destroy())
	}
	b := &Binding{
		session:    s,
		native:     native,
		run:        run,
		inputs:     map[string]bound{},
		outputs:    map[string]bound{},
		sessionPtr: s.pointer(),
		bindingPtr: rawPointer(native, "o"),
		runPtr:     rawPointer(run, "o"),
	}
	if d := s.device; d != nil && !d.host {
		s.graphs++
		err := errors.Join(
			setRunOption(b.runPtr, "disable_synchronize_execution_providers", "1"),
			setRunOption(b.runPtr, "gpu_graph_id", strconv.Itoa(s.graphs)))
		if err != nil {
			return nil, errors.Join(err, b.native.Destroy(), b.run.Destroy())
		}
	}
	s.bindings[b] = struct{}{}
	return b, nil
}

// BindInput lets the model read the input from the tensor's memory, in every
// run from now on. Type and shape must be those that the model declares.
func (b *Binding) BindInput(name string, t Tensor) error {
	return b.bind(b.inputs, b.session.inputs, "input", name, t)
}

// BindOutput lets the model write the output to the tensor's memory, in every
// run from now on. Type and shape must be those that the model declares.
func (b *Binding) BindOutput(name string, t Tensor) error {
	return b.bind(b.outputs, b.session.outputs, "output", name, t)
}

func (b *Binding) bind(to map[string]bound, infos []ValueInfo, kind, name string, t Tensor) error {
	i := slices.IndexFunc(infos, func(v ValueInfo) bool { return v.Name == name })
	if i < 0 {
		return fmt.Errorf("ort: the model has no %s %q", kind, name)
	}
	if !infos[i].accepts(t) {
		return fmt.Errorf("ort: %s %q: got %v %v, want %v %v", kind, name, t.dtype, t.shape, infos[i].DType, infos[i].Shape)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.native == nil {
		return errClosed
	}
	value, err := bindValue(b.bindingPtr, kind == "output", name, t)
	if err != nil {
		return err
	}
	if old, ok := to[name]; ok {
		releaseValue(old.value)
	}
	to[name] = bound{t, value}
	return nil
}

func (v ValueInfo) accepts(t Tensor) bool {
	if v.DType != t.dtype || len(v.Shape) != len(t.shape) {
		return false
	}
	for i, d := range v.Shape {
		if d >= 0 && d != t.shape[i] {
			return false
		}
	}
	return true
}

// Run executes the model once. Every input and output must be bound. If ctx
// ends first, the run is broken off after the node in progress, the outputs are
// left in an undefined state, and the error is the context's.
//
// On a GPU the run has only begun when Run returns; see [Device.Wait] and [Event].
func (b *Binding) Run(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.native == nil {
		return errClosed
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("ort: running the model: %w", context.Cause(ctx))
	}
	for _, side := range []struct {
		kind  string
		infos []ValueInfo
		bound map[string]bound
	}{{"input", b.session.inputs, b.inputs}, {"output", b.session.outputs, b.outputs}} {
		if len(side.bound) == len(side.infos) {
			continue
		}
		for _, v := range side.infos {
			if _, ok := side.bound[v.Name]; !ok {
				return fmt.Errorf("ort: %s %q is not bound", side.kind, v.Name)
			}
		}
	}
	if d := b.session.device; d != nil && !d.host {
		// The work is only begun: what could be broken off is short.
		return d.do(func() error { return d.outOfMemory(runBinding(b.sessionPtr, b.runPtr, b.bindingPtr), 0) })
	}
	if ctx.Done() == nil {
		return runBinding(b.sessionPtr, b.runPtr, b.bindingPtr)
	}
	terminated := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { terminated <- b.run.Terminate() })
	err := runBinding(b.sessionPtr, b.runPtr, b.bindingPtr)
	if stop() {
		return err
	}
	// The context ended: join its function, and make the binding usable again.
	cause := <-terminated
	cause = errors.Join(cause, b.run.UnsetTerminate())
	if err == nil {
		return cause // the run was over before it noticed
	}
	return errors.Join(fmt.Errorf("ort: running the model: %w", context.Cause(ctx)), cause)
}

// Close unbinds everything. It waits for a run in progress. Closing twice does
// nothing.
func (b *Binding) Close() error {
	b.session.mu.Lock()
	delete(b.session.bindings, b)
	b.session.mu.Unlock()
	return b.release()
}

func (b *Binding) release() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.native == nil {
		return nil
	}
	err := errors.Join(b.native.Destroy(), b.run.Destroy())
	b.native = nil
	for _, m := range []map[string]bound{b.inputs, b.outputs} {
		for _, v := range m {
			releaseValue(v.value)
		}
		clear(m)
	}
	return err
}
