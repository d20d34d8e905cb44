package weights

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/criteria-go/criteria/internal/readfile"
)

// The names under which a folder holds weights, in the order of preference: the
// hub offers both forms of many models, and safetensors need no unpickling.
const (
	safetensorsName  = "model.safetensors"
	safetensorsIndex = "model.safetensors.index.json"
	torchName        = "pytorch_model.bin"
	torchIndex       = "pytorch_model.bin.index.json"
)

// Open opens a weight file, or a folder that holds one under its usual name:
// model.safetensors, its shards by model.safetensors.index.json,
// pytorch_model.bin or its shards. The form of a file is decided by its content,
// never by its name. A file that is none, or a broken one, gives a *[FormatError].
func Open(path string) (*File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	if !info.IsDir() {
		return openFile(path)
	}
	name, isIndex, err := weightsIn(path)
	switch {
	case err != nil:
		return nil, err
	case isIndex:
		return openShards(path, filepath.Join(path, name))
	}
	return openFile(filepath.Join(path, name))
}

// weightsIn returns the name of the file in dir that holds the weights, or the
// index of those that do.
func weightsIn(dir string) (name string, isIndex bool, err error) {
	for _, name := range []string{safetensorsName, safetensorsIndex, torchName, torchIndex} {
		switch _, err := os.Stat(filepath.Join(dir, name)); {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return "", false, fmt.Errorf("checkpoint: %w", err)
		}
		return name, name == safetensorsIndex || name == torchIndex, nil
	}
	return "", false, &FormatError{
		Path:   dir,
		Found:  fmt.Sprintf("the folder has no %s, no %s and no index of shards", safetensorsName, torchName),
		Remedy: "give the folder that holds the weights, or a weight file",
		Err:    fs.ErrNotExist,
	}
}

// Files returns the names of the files that Open reads in the folder dir,
// sorted: the weights or, if they are divided into shards, the index and all of
// them. It looks into the index alone.
func Files(dir string) ([]string, error) {
	name, isIndex, err := weightsIn(dir)
	if err != nil {
		return nil, err
	}
	if !isIndex {
		return []string{name}, nil
	}
	shards, err := readIndex(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	names := []string{name}
	for _, shard := range shards {
		names = append(names, shard)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func openFile(path string) (*File, error) {
	file, err := readfile.Open(path)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	info, err := file.Stat()
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	f, err := open(path, file, info.Size())
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	f.open = []io.Closer{file}
	return f, nil
}

// open decides by the first bytes what a file is.
func open(path string, data io.ReaderAt, size int64) (*File, error) {
	head := make([]byte, min(size, 512))
	if n, err := data.ReadAt(head, 0); n < len(head) {
		return nil, fmt.Errorf("checkpoint %s: %w", path, err)
	}
	refuse := func(found, remedy string) (*File, error) {
		return nil, &FormatError{Path: path, Found: found, Remedy: remedy}
	}
	const want = "give a model.safetensors or a pytorch_model.bin"
	switch {
	case size == 0:
		return refuse("the file is empty", remedyIncomplete)
	case bytes.HasPrefix(head, []byte("version https://git-lfs")):
		return refuse("the file is a pointer of git-lfs, not the weights themselves", `run "git lfs pull" in its folder`)
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return openZip(path, data, size)
	case isLegacy(head):
		return openLegacy(path, data, size)
	case isTar(head):
		return refuse("the file has the form of PyTorch before 0.1.10", remedyResave)
	case bytes.HasPrefix(head, []byte("\x89HDF")):
		return refuse("the file holds TensorFlow weights (HDF5)", want)
	case len(head) > safetensorsPrefix && head[safetensorsPrefix] == '{':
		return openSafetensors(path, data, size)
	}
	return refuse(fmt.Sprintf("the file is neither safetensors nor written by torch.save; it starts with %q", head[:min(len(head), 16)]), want)
}

// readIndex reads an index of shards: the name of the file that holds it, for
// each tensor.
func readIndex(path string) (map[string]string, error) {
	raw, err := readfile.All(context.Background(), path, readfile.Index)
	if err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	var content struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(raw, &content); err != nil {
		return nil, &FormatError{Path: path, Found: "the index of shards is no JSON object with a weight_map", Remedy: remedyIncomplete, Err: err}
	}
	if len(content.WeightMap) == 0 {
		return nil, &FormatError{Path: path, Found: "the index of shards has an empty weight_map", Remedy: remedyIncomplete}
	}
	for _, name := range slices.Sorted(maps.Keys(content.WeightMap)) {
		if file := content.WeightMap[name]; filepath.Base(file) != file || !filepath.IsLocal(file) {
			return nil, &FormatError{Path: path, Found: "the index names the shard " + quote(file) + " outside its folder", Remedy: "download the checkpoint again from a source that you trust"}
		}
	}
	return content.WeightMap, nil
}

// openShards opens the files among which an index divides the tensors.
func openShards(dir, index string) (*File, error) {
	shardOf, err := readIndex(index)
	if err != nil {
		return nil, err
	}
	f := &File{path: dir, tensors: make(map[string]*entry, len(shardOf))}
	shards := make(map[string]*File)
	for _, name := range slices.Sorted(maps.Keys(shardOf)) {
		file := shardOf[name]
		shard, ok := shards[file]
		if !ok {
			shard, err = openFile(filepath.Join(dir, file))
			if errors.Is(err, fs.ErrNotExist) {
				err = &FormatError{Path: index, Found: "the shard " + quote(file) + " is not beside its index", Remedy: "download all files of the checkpoint", Err: fs.ErrNotExist}
			}
			if err != nil {
				return nil, errors.Join(err, f.Close())
			}
			shards[file] = shard
			f.open = append(f.open, shard)
		}
		e, ok := shard.tensors[name]
		if !ok {
			err := &FormatError{Path: shard.path, Found: "the shard lacks tensor " + quote(name) + ", which the index places there", Remedy: remedyIncomplete}
			return nil, errors.Join(err, f.Close())
		}
		f.tensors[name] = e
	}
	return f, nil
}
