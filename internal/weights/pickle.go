package weights

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/nlpodyssey/gopickle/pickle"
	"github.com/nlpodyssey/gopickle/types"
)

// Bounds on a pickle. A state dict takes about 200 bytes and a dozen objects per
// tensor; a model of 12 layers has some 200 tensors. What lies beyond the bounds
// is no state dict, and would only serve to fill the memory.
const (
	maxPickle        = 8 << 20
	maxPickleObjects = 500_000
	maxPickleMarks   = 1000
	maxPickleNumber  = 255 // digits, or bytes, of one number
)

// measurePickle returns the length of the pickle that b starts with. It walks
// over the opcodes without running them and checks that every string and frame
// lies within b and that the pickle keeps to the bounds: the unpickler trusts
// the lengths it reads, and would allocate whatever they say.
func measurePickle(b []byte) (int, error) {
	var objects, marks int
	for at := 0; ; {
		if at >= len(b) {
			return 0, io.ErrUnexpectedEOF
		}
		op := b[at]
		at++
		rest := b[at:]
		var n uint64 // length of the argument
		switch op {
		case '.': // STOP
			return at, nil
		case 'K', 'h', 'q', '\x80', '\x82': // one byte
			n = 1
		case 'M', '\x83':
			n = 2
		case 'J', 'j', 'r', '\x84':
			n = 4
		case 'G':
			n = 8
		case 'F', 'I', 'L', 'p', 'g': // a number as a line of text
			if n = line(rest, 1); n > maxPickleNumber && n <= uint64(len(rest)) {
				return 0, fmt.Errorf("a number of %d characters at byte %d", n, at)
			}
		case 'S', 'V', 'P': // a string as a line of text
			n = line(rest, 1)
		case 'c', 'i': // two lines: module and name
			n = line(rest, 2)
		case 'U', 'C', '\x8c', '\x8a': // counted by one byte
			n = counted(rest, 1)
		case 'T', 'B', 'X':
			n = counted(rest, 4)
		case '\x8b':
			if n = counted(rest, 4); n > maxPickleNumber && n <= uint64(len(rest)) {
				return 0, fmt.Errorf("a number of %d bytes at byte %d", n, at)
			}
		case '\x8d', '\x8e', '\x96':
			n = counted(rest, 8)
		case '\x95': // FRAME: opcodes follow, all of them within b
			if counted(rest, 8) > uint64(len(rest)) {
				return 0, fmt.Errorf("a frame at byte %d that ends outside: %w", at, io.ErrUnexpectedEOF)
			}
			n = 8
		case '(':
			marks++
			objects++
		case 't', 'l', 'd', 'u', 'e', '1', 'o', '\x90', '\x91':
			marks = max(marks-1, 0)
			objects++
		case '}', ']', ')', '\x8f', '\x85', '\x86', '\x87', 'R', '\x81', '\x92':
			objects++
		}
		if n > uint64(len(rest)) {
			return 0, fmt.Errorf("an argument at byte %d that ends outside: %w", at, io.ErrUnexpectedEOF)
		}
		if marks > maxPickleMarks || objects > maxPickleObjects {
			return 0, fmt.Errorf("more objects than any state dict has, at byte %d", at)
		}
		at += int(n)
	}
}

// line returns the length of the first n lines of b, or one more than b has.
func line(b []byte, n int) uint64 {
	at := 0
	for range n {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return uint64(len(b)) + 1
		}
		at += i + 1
	}
	return uint64(at)
}

// counted returns the length of a counter of width bytes and of what it counts,
// or one more than b has if that does not fit.
func counted(b []byte, width int) uint64 {
	if len(b) < width {
		return uint64(len(b)) + 1
	}
	var wide [8]byte
	copy(wide[:], b[:width])
	n := binary.LittleEndian.Uint64(wide[:])
	if n > uint64(len(b)-width) {
		return uint64(len(b)) + 1
	}
	return uint64(width) + n
}

// unpickle runs the pickle that b starts with and returns its value and length.
// Storages are resolved by load, which gets the tuple that torch.save wrote; nil
// means that none is expected.
func unpickle(b []byte, load func(id *types.Tuple) (*storage, error)) (value any, length int, err error) {
	length, err = measurePickle(b)
	if err != nil {
		return nil, 0, fmt.Errorf("the pickle cannot be read: %w", err)
	}
	u := pickle.NewUnpickler(bytes.NewReader(b[:length]))
	u.FindClass = findClass
	u.PersistentLoad = func(id any) (any, error) {
		tuple, ok := id.(*types.Tuple)
		if !ok || load == nil {
			return nil, fmt.Errorf("an unexpected persistent id %T", id)
		}
		return load(tuple)
	}
	// The unpickler indexes and hashes what it finds without looking first.
	// What a damaged file makes it do is this file's error, not the program's.
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(runtime.Error); !ok {
				panic(r)
			}
			value, length, err = nil, 0, fmt.Errorf("the pickle cannot be read: %v", r)
		}
	}()
	if value, err = u.Load(); err != nil {
		var foreign *foreignGlobalError
		if errors.As(err, &foreign) {
			return nil, 0, err
		}
		return nil, 0, fmt.Errorf("the pickle cannot be read: %w", err)
	}
	return value, length, nil
}

// foreignGlobalError reports a Python object that no state dict needs.
type foreignGlobalError struct{ module, name string }

func (e *foreignGlobalError) Error() string {
	return fmt.Sprintf("it names the Python object %s, which weights do not need; nothing was executed", quote(e.module+"."+e.name))
}

// function stands for a Python function that torch.save names.
type function func(args []any) (any, error)

// Call makes function callable by the unpickler.
func (f function) Call(args ...any) (any, error) { return f(args) }

// storageDTypes gives the element type of the storage classes in module torch.
// An UntypedStorage counts bytes.
var storageDTypes = map[string]DType{
	"DoubleStorage": F64, "FloatStorage": F32, "HalfStorage": F16, "BFloat16Storage": BF16,
	"LongStorage": I64, "IntStorage": I32, "ShortStorage": I16, "CharStorage": I8,
	"ByteStorage": U8, "BoolStorage": Bool, "ComplexFloatStorage": C64, "UntypedStorage": U8,
}

// torchDTypes gives the element types as module torch names them.
var torchDTypes = map[string]DType{
	"float64": F64, "float32": F32, "float16": F16, "bfloat16": BF16,
	"int64": I64, "int32": I32, "int16": I16, "int8": I8,
	"uint64": U64, "uint32": U32, "uint16": U16, "uint8": U8, "bool": Bool,
	"complex64": C64, "float8_e5m2": F8E5M2, "float8_e4m3fn": F8E4M3,
}

// storageClass is the value of a storage class's name in a pickle.
type storageClass struct{ dtype DType }

// findClass is the list of everything a pickle may name, besides
// collections.OrderedDict, which the unpickler knows itself.
func findClass(module, name string) (any, error) {
	switch module {
	case "torch._utils":
		switch name {
		case "_rebuild_tensor", "_rebuild_tensor_v2":
			return function(rebuildTensor), nil
		case "_rebuild_tensor_v3":
			return function(rebuildTensorV3), nil
		case "_rebuild_parameter", "_rebuild_parameter_with_state":
			return function(rebuildParameter), nil
		}
	case "torch", "torch.cuda", "torch.storage":
		if dtype, ok := storageDTypes[name]; ok {
			return storageClass{dtype}, nil
		}
		if dtype, ok := torchDTypes[name]; ok {
			return dtype, nil
		}
		if name == "Size" {
			return function(func(args []any) (any, error) { return argument[*types.Tuple](args, 0) }), nil
		}
	}
	return nil, &foreignGlobalError{module, name}
}

// storage is a run of numbers in a file that one or several tensors view.
type storage struct {
	dtype    DType
	offset   int64 // in the file, in bytes
	elements int64 // how many there are
}

// view is a tensor in a pickle: a storage and how the tensor walks over it.
type view struct {
	storage *storage
	dtype   DType
	first   int64 // element of the storage, counted in dtype
	shape   []int64
	strides []int64 // in elements
}

// rebuildTensor is torch._utils._rebuild_tensor_v2(storage, storage_offset,
// size, stride, requires_grad, backward_hooks, metadata).
func rebuildTensor(args []any) (any, error) {
	s, err := argument[*storage](args, 0)
	if err != nil {
		return nil, err
	}
	return newView(args, s.dtype, 6)
}

// rebuildTensorV3 is torch._utils._rebuild_tensor_v3(storage, storage_offset,
// size, stride, requires_grad, backward_hooks, dtype, metadata).
func rebuildTensorV3(args []any) (any, error) {
	dtype, err := argument[DType](args, 6)
	if err != nil {
		return nil, err
	}
	return newView(args, dtype, 7)
}

func newView(args []any, dtype DType, metadata int) (any, error) {
	s, err := argument[*storage](args, 0)
	if err != nil {
		return nil, err
	}
	v := &view{storage: s, dtype: dtype}
	if v.first, err = integer(args, 1); err != nil {
		return nil, err
	}
	if v.shape, err = integers(args, 2); err != nil {
		return nil, err
	}
	if v.strides, err = integers(args, 3); err != nil {
		return nil, err
	}
	if len(v.shape) != len(v.strides) {
		return nil, fmt.Errorf("a tensor of shape %v with strides %v", v.shape, v.strides)
	}
	// Metadata marks a tensor whose numbers are to be negated or conjugated.
	if len(args) > metadata {
		if d, ok := args[metadata].(*types.Dict); !ok && args[metadata] != nil || ok && d.Len() > 0 {
			return nil, errors.New("a tensor with metadata (negated or conjugated numbers), which is not read")
		}
	}
	return v, nil
}

// rebuildParameter is torch._utils._rebuild_parameter(data, requires_grad,
// backward_hooks): a parameter is its tensor.
func rebuildParameter(args []any) (any, error) { return argument[*view](args, 0) }

// argument returns args[i], which must be a T.
func argument[T any](args []any, i int) (T, error) {
	var zero T
	if i >= len(args) {
		return zero, fmt.Errorf("%d arguments where %d are due", len(args), i+1)
	}
	v, ok := args[i].(T)
	if !ok {
		return zero, fmt.Errorf("argument %d is a %s", i+1, pythonType(args[i]))
	}
	return v, nil
}

func integer(args []any, i int) (int64, error) {
	n, err := argument[int](args, i)
	return int64(n), err
}

func integers(args []any, i int) ([]int64, error) {
	tuple, err := argument[*types.Tuple](args, i)
	if err != nil {
		return nil, err
	}
	out := make([]int64, tuple.Len())
	for k := range out {
		if out[k], err = integer(*tuple, k); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// pythonType names the type of an unpickled value as Python does.
func pythonType(v any) string {
	switch v.(type) {
	case nil:
		return "None"
	case *types.Dict, *types.OrderedDict:
		return "dict"
	case *types.List:
		return "list"
	case *types.Tuple:
		return "tuple"
	case string:
		return "str"
	case *view:
		return "tensor"
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", v), "*types.")
}
