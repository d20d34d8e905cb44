package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/criteria-go/criteria/internal/readfile"
)

// The files of a checkpoint.
const (
	configName    = "config.json"
	tokenizerName = "tokenizer"
	indexSuffix   = ".index.json"

	maxShards = 1000
)

var (
	// weightNames are the forms of the weights, in the order of preference. Each
	// may be divided into shards, which NAME.index.json lists.
	weightNames = []string{"model.safetensors", "pytorch_model.bin"}
	// tokenizerNames are the forms of the tokenizer; one of them is enough.
	tokenizerNames = []string{"spm.model", "tokenizer.json"}
	// optionalNames are taken along if the model has them.
	optionalNames = append([]string{"tokenizer_config.json"}, tokenizerNames...)
)

// cache is the folder of the hub's cache and that of one model in it.
type cache struct {
	root string
	repo string
}

var commitPattern = regexp.MustCompile(`^[0-9a-f]{40}$`)

// namePattern is what the cache accepts as the name of a file that a server
// chose: nothing that could lead out of its folder.
var namePattern = regexp.MustCompile(`^\w[\w.-]{0,254}$`)

func (c cache) snapshot(commit string) string { return filepath.Join(c.repo, "snapshots", commit) }
func (c cache) blob(etag string) string       { return filepath.Join(c.repo, "blobs", etag) }

// find looks for the model. It returns the snapshot, if there is one, and the
// first thing that it lacks: "" if it is complete.
func (c cache) find(ctx context.Context, m model) (dir, missing string) {
	commit := m.revision
	if !commitPattern.MatchString(commit) {
		content, err := readfile.All(ctx, filepath.Join(c.repo, "refs", filepath.FromSlash(m.revision)), readfile.Text)
		commit = string(content)
		if err != nil || !namePattern.MatchString(commit) {
			return "", fmt.Sprintf("revision %q of %s", m.revision, m.id)
		}
	}
	dir = c.snapshot(commit)
	switch {
	case !present(filepath.Join(dir, configName)):
		return "", configName
	case !hasWeights(ctx, dir):
		return "", "weights"
	case !slices.ContainsFunc(tokenizerNames, func(name string) bool { return present(filepath.Join(dir, name)) }):
		return dir, tokenizerName
	}
	return dir, ""
}

// hasWeights says whether a folder has weights in one of their forms, whole.
func hasWeights(ctx context.Context, dir string) bool {
	for _, name := range weightNames {
		if present(filepath.Join(dir, name)) {
			return true
		}
		shards, err := readIndex(ctx, filepath.Join(dir, name+indexSuffix))
		if err == nil && !slices.ContainsFunc(shards, func(s string) bool { return !present(filepath.Join(dir, s)) }) {
			return true
		}
	}
	return false
}

// readIndex returns the files that an index of shards names, sorted.
func readIndex(ctx context.Context, path string) ([]string, error) {
	raw, err := readfile.All(ctx, path, readfile.Index)
	if err != nil {
		return nil, err
	}
	var index struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	shards := slices.Compact(slices.Sorted(maps.Values(index.WeightMap)))
	if len(shards) == 0 {
		return nil, fmt.Errorf("%s names no files", filepath.Base(path))
	}
	if len(shards) > maxShards {
		return nil, fmt.Errorf("%s names %d files, more than %d", filepath.Base(path), len(shards), maxShards)
	}
	for _, s := range shards {
		if !namePattern.MatchString(s) {
			return nil, fmt.Errorf("%s names the file %q, which cannot be a part of a model", filepath.Base(path), s)
		}
	}
	return shards, nil
}

// present says whether a file is there and not empty; a link whose blob was
// deleted is not.
func present(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Size() > 0
}

// link makes the blob appear in the snapshot, by a relative link, so that the
// cache can be moved.
func (c cache) link(commit, file, etag string) error {
	path := filepath.Join(c.snapshot(commit), file)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	target, err := filepath.Rel(filepath.Dir(path), c.blob(etag))
	if err != nil {
		return err
	}
	temp := fmt.Sprintf("%s.%d.tmp", path, os.Getpid())
	_ = os.Remove(temp) // of a process that was killed
	if err := os.Symlink(target, temp); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return nil
}

// setRef records the commit that a branch or tag stands for. A reader sees the
// old commit or the new one, never half of a name.
func (c cache) setRef(revision, commit string) error {
	path := filepath.Join(c.repo, "refs", filepath.FromSlash(revision))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(path), ".*.tmp")
	if err != nil {
		return err
	}
	_, err = temp.WriteString(commit)
	if err = errors.Join(err, temp.Chmod(0o644), temp.Close()); err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(temp.Name())
	}
	return err
}
