package weights

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"

	"github.com/nlpodyssey/gopickle/types"
)

// openZip reads the form that torch.save has had since PyTorch 1.6. Its members
// are stored without compression, so that a tensor can be read where it lies.
func openZip(path string, data io.ReaderAt, size int64) (*File, error) {
	archive, err := zip.NewReader(data, size)
	if err != nil {
		return nil, &FormatError{Path: path, Found: "PyTorch zip file that cannot be read to its end", Remedy: remedyIncomplete, Err: err}
	}
	members := make(map[string]*zip.File, len(archive.File))
	prefix, pickles := "", 0
	for _, m := range archive.File {
		members[m.Name] = m
		if m.Name == "data.pkl" || strings.HasSuffix(m.Name, "/data.pkl") {
			prefix = strings.TrimSuffix(m.Name, "data.pkl")
			pickles++
		}
	}
	if pickles != 1 {
		return nil, &FormatError{Path: path,
			Found:  fmt.Sprintf("zip file with %d members named data.pkl, where a PyTorch file has one", pickles),
			Remedy: "give a model.safetensors or a pytorch_model.bin"}
	}
	// member finds where the bytes of one member lie.
	member := func(name string) (offset, length int64, err error) {
		m, ok := members[prefix+name]
		if !ok {
			return 0, 0, fmt.Errorf("member %s is missing", quote(prefix+name))
		}
		if m.Method != zip.Store {
			return 0, 0, fmt.Errorf("member %s is compressed, which torch.save never does", quote(m.Name))
		}
		if offset, err = m.DataOffset(); err != nil {
			return 0, 0, fmt.Errorf("member %s: %w", quote(m.Name), err)
		}
		if m.UncompressedSize64 > uint64(size) || offset > size-int64(m.UncompressedSize64) {
			return 0, 0, fmt.Errorf("member %s of %d bytes ends outside the file", quote(m.Name), m.UncompressedSize64)
		}
		return offset, int64(m.UncompressedSize64), nil
	}
	content := func(name string, limit int64) ([]byte, error) {
		offset, length, err := member(name)
		if err != nil {
			return nil, err
		}
		if length > limit {
			return nil, fmt.Errorf("member %s has %d bytes, more than the %d of any state dict", quote(prefix+name), length, limit)
		}
		b := make([]byte, length)
		if _, err := data.ReadAt(b, offset); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return b, nil
	}
	if _, ok := members[prefix+"byteorder"]; ok {
		order, err := content("byteorder", 16)
		if err != nil {
			return nil, torchError(path, err)
		}
		if string(order) != "little" {
			return nil, torchError(path, fmt.Errorf("its numbers are in byte order %s, only little-endian is read", quote(string(order))))
		}
	}
	program, err := content("data.pkl", maxPickle)
	if err != nil {
		return nil, torchError(path, err)
	}
	storages := make(map[string]*storage)
	root, _, err := unpickle(program, func(id *types.Tuple) (*storage, error) {
		key, s, err := parseStorage(*id)
		if err != nil {
			return nil, err
		}
		if known, ok := storages[key]; ok {
			if *known != (storage{s.dtype, known.offset, s.elements}) {
				return nil, fmt.Errorf("storage %s is described in two ways", quote(key))
			}
			return known, nil
		}
		offset, length, err := member("data/" + key)
		if err != nil {
			return nil, err
		}
		if s.elements > length/int64(s.dtype.Size()) {
			return nil, fmt.Errorf("storage %s should hold %d numbers of type %s, but has %d bytes", quote(key), s.elements, s.dtype, length)
		}
		s.offset = offset
		storages[key] = s
		return s, nil
	})
	if err != nil {
		return nil, torchError(path, err)
	}
	return fromStateDict(path, data, root)
}

// parseStorage reads the tuple by which torch.save refers to a storage:
// ("storage", class, key, location, number of elements).
func parseStorage(id []any) (key string, s *storage, err error) {
	kind, err := argument[string](id, 0)
	if err == nil && kind != "storage" {
		err = fmt.Errorf("persistent id of kind %s", quote(kind))
	}
	class, err2 := argument[storageClass](id, 1)
	key, err3 := argument[string](id, 2)
	elements, err4 := integer(id, 4)
	if err := errors.Join(err, err2, err3, err4); err != nil {
		return "", nil, err
	}
	if elements < 0 || elements > maxElements {
		return "", nil, fmt.Errorf("storage %s claims %d numbers", quote(key), elements)
	}
	return key, &storage{dtype: class.dtype, elements: elements}, nil
}

// The legacy form starts with two small pickles: a magic number and a version.
var legacyMagic, _ = new(big.Int).SetString("1950a86a20f9469cfc6c", 16)

const legacyVersion = 1001

// isLegacy says whether a file that starts with head was written by torch.save
// before PyTorch 1.6.
func isLegacy(head []byte) bool {
	magic, _, err := unpickle(head, nil)
	n, ok := magic.(*big.Int)
	return err == nil && ok && n.Cmp(legacyMagic) == 0
}

// openLegacy reads the older form: pickles of the magic number, the version, the
// system, the object and the list of storage keys; then, for each key, the
// number of elements as an int64 and the elements.
func openLegacy(path string, data io.ReaderAt, size int64) (*File, error) {
	head := make([]byte, min(size, maxPickle))
	if _, err := data.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, torchError(path, err)
	}
	at := 0
	next := func(load func(*types.Tuple) (*storage, error)) (any, error) {
		value, n, err := unpickle(head[at:], load)
		at += n
		return value, err
	}
	if _, err := next(nil); err != nil { // the magic number, seen by isLegacy
		return nil, torchError(path, err)
	}
	version, err := next(nil)
	if err == nil && version != legacyVersion {
		err = fmt.Errorf("it is of version %v, only %d is known", version, legacyVersion)
	}
	if err != nil {
		return nil, torchError(path, err)
	}
	if _, err := next(nil); err != nil { // the system: legacy data is always little-endian
		return nil, torchError(path, err)
	}

	// A storage may be a part of another, which older versions described in the
	// id: (…, (key of the part, first element, number of elements)).
	type part struct {
		root  *storage
		first int64
	}
	roots, parts := make(map[string]*storage), make(map[*storage]part)
	root, err := next(func(id *types.Tuple) (*storage, error) {
		key, s, err := parseStorage(*id)
		if err != nil {
			return nil, err
		}
		if known, ok := roots[key]; !ok {
			roots[key] = s
		} else if *known != *s {
			return nil, fmt.Errorf("storage %s is described in two ways", quote(key))
		} else {
			s = known
		}
		if id.Len() < 6 || id.Get(5) == nil {
			return s, nil
		}
		described, err := argument[*types.Tuple](*id, 5)
		if err != nil {
			return nil, err
		}
		first, err := integer(*described, 1)
		if err != nil {
			return nil, err
		}
		elements, err := integer(*described, 2)
		if err != nil {
			return nil, err
		}
		if first < 0 || elements < 0 || first > s.elements || elements > s.elements-first {
			return nil, fmt.Errorf("storage %s of %d numbers has no numbers %d to %d", quote(key), s.elements, first, first+elements)
		}
		view := &storage{dtype: s.dtype, elements: elements}
		parts[view] = part{s, first}
		return view, nil
	})
	if err != nil {
		return nil, torchError(path, err)
	}
	listed, err := next(nil)
	if err != nil {
		return nil, torchError(path, err)
	}
	keys, ok := listed.(*types.List)
	if !ok || keys.Len() != len(roots) {
		return nil, torchError(path, fmt.Errorf("the list of its %d storages is not there", len(roots)))
	}
	for offset, i := int64(at), 0; i < keys.Len(); i++ {
		key, err := argument[string](*keys, i)
		if err != nil {
			return nil, torchError(path, err)
		}
		s, ok := roots[key]
		if !ok || s.offset != 0 {
			return nil, torchError(path, fmt.Errorf("its list of storages names %s, which no tensor uses or which came before", quote(key)))
		}
		var count [8]byte
		if _, err := data.ReadAt(count[:], offset); err != nil {
			return nil, torchError(path, fmt.Errorf("storage %s is missing: %w", quote(key), err))
		}
		if n := int64(binary.LittleEndian.Uint64(count[:])); n != s.elements {
			return nil, torchError(path, fmt.Errorf("storage %s should hold %d numbers, but has %d", quote(key), s.elements, n))
		}
		s.offset = offset + int64(len(count))
		offset = s.offset + s.elements*int64(s.dtype.Size())
		if offset > size {
			return nil, torchError(path, fmt.Errorf("storage %s of %d numbers ends outside the file: %w", quote(key), s.elements, io.ErrUnexpectedEOF))
		}
	}
	for s, p := range parts {
		s.offset = p.root.offset + p.first*int64(s.dtype.Size())
	}
	return fromStateDict(path, data, root)
}

// stateDictKeys are the names under which training scripts nest the weights.
var stateDictKeys = []string{"state_dict", "model_state_dict", "model"}

// fromStateDict collects the tensors of an unpickled state dict: the top-level
// ones or, if there is none, those of the first nested dictionary that
// stateDictKeys finds.
func fromStateDict(path string, data io.ReaderAt, root any) (*File, error) {
	items, ok := dictionary(root)
	if !ok {
		return nil, &FormatError{Path: path, Found: "PyTorch file that holds a " + pythonType(root) + ", not a dictionary of tensors", Remedy: remedyResave}
	}
	isTensor := func(item types.DictEntry) bool { _, ok := item.Value.(*view); return ok }
	if !slices.ContainsFunc(items, isTensor) {
		for _, key := range stateDictKeys {
			i := slices.IndexFunc(items, func(item types.DictEntry) bool { return item.Key == key })
			if i < 0 {
				continue
			}
			if nested, ok := dictionary(items[i].Value); ok && slices.ContainsFunc(nested, isTensor) {
				items = nested
				break
			}
		}
	}
	f := &File{path: path, tensors: make(map[string]*entry)}
	for _, item := range items {
		v, ok := item.Value.(*view)
		if !ok {
			continue // epoch counters, optimizer states, …
		}
		name, ok := item.Key.(string)
		if !ok {
			return nil, torchError(path, fmt.Errorf("a tensor is named by a %s", pythonType(item.Key)))
		}
		if _, twice := f.tensors[name]; twice {
			return nil, torchError(path, fmt.Errorf("tensor %s appears twice", quote(name)))
		}
		e, err := v.entry(name, path, data)
		if err != nil {
			return nil, torchError(path, fmt.Errorf("tensor %s: %w", quote(name), err))
		}
		f.tensors[name] = e
	}
	if len(f.tensors) == 0 {
		keys := make([]string, 0, 8)
		for _, item := range items[:min(len(items), cap(keys))] {
			keys = append(keys, shorten(fmt.Sprint(item.Key)))
		}
		return nil, &FormatError{Path: path, Found: fmt.Sprintf("PyTorch file without tensors; its keys are %q", keys), Remedy: remedyResave}
	}
	return f, nil
}

// dictionary returns the items of a Python dictionary in order.
func dictionary(v any) ([]types.DictEntry, bool) {
	switch d := v.(type) {
	case *types.Dict:
		return *d, true
	case *types.OrderedDict:
		items := make([]types.DictEntry, 0, d.Len())
		for e := d.List.Front(); e != nil; e = e.Next() {
			item := e.Value.(*types.OrderedDictEntry)
			items = append(items, types.DictEntry{Key: item.Key, Value: item.Value})
		}
		return items, true
	}
	return nil, false
}

// entry checks that the view lies within its storage, and says where in the file.
func (v *view) entry(name, path string, data io.ReaderAt) (*entry, error) {
	elements, err := checkShape(v.shape)
	if err != nil {
		return nil, err
	}
	length, err := span(v.shape, v.strides)
	if err != nil {
		return nil, err
	}
	size := int64(v.dtype.Size())
	holds := v.storage.elements * int64(v.storage.dtype.Size()) / size
	if v.first < 0 || v.first > holds || length > holds-v.first {
		return nil, fmt.Errorf("shape %v with strides %v from number %d on does not fit into a storage of %d", v.shape, v.strides, v.first, holds)
	}
	// A stride of 0 repeats numbers without storing them. torch.expand does that;
	// a few bytes that claim terabytes are an attack on whoever allocates them.
	if elements > 1<<20 && elements > 1024*holds {
		return nil, fmt.Errorf("shape %v repeats a storage of %d numbers", v.shape, holds)
	}
	e := &entry{
		Tensor: Tensor{Name: name, DType: v.dtype, Shape: v.shape},
		path:   path, data: data, offset: v.storage.offset + v.first*size,
	}
	if !contiguous(v.shape, v.strides) {
		e.strides = v.strides
	}
	return e, nil
}

// torchError is the FormatError of a PyTorch file, with the remedy that the
// cause calls for.
func torchError(path string, err error) error {
	e := &FormatError{Path: path, Found: "PyTorch file that is refused", Remedy: remedyResave, Err: err}
	var foreign *foreignGlobalError
	switch {
	case errors.As(err, &foreign):
		e.Remedy = "if you trust its origin, " + remedyResave
	case errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		e.Remedy = remedyIncomplete
	}
	return e
}

// isTar recognises the tar archive of torch.save before PyTorch 0.1.10.
func isTar(head []byte) bool {
	return len(head) > 262 && bytes.Equal(head[257:262], []byte("ustar"))
}
