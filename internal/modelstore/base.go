// Package modelstore finds models, brings them onto this machine and makes sure
// that they are what they should be: base checkpoints, which trainings start from,
// and the models that runs stored in MLflow.
package modelstore

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/criteria-go/criteria/internal/hub"
	"github.com/criteria-go/criteria/internal/sumfile"
	"github.com/criteria-go/criteria/internal/weights"
)

// Base is a base checkpoint on this machine.
type Base struct {
	Dir    string
	Hashes map[string]string // SHA-256 of its files, by their names
}

// baseFiles are what a base checkpoint consists of, besides its weights.
var baseFiles = []string{"config.json", "spm.model", "tokenizer.json", "tokenizer_config.json"}

// FindBase finds the base checkpoint that ref names, a folder or the id of a model
// on the hub, from where it is downloaded if need be. progress is told of that, as
// [hub.Options] says.
func FindBase(ctx context.Context, ref string, progress func(file string, done, total int64)) (Base, error) {
	dir, err := hub.Resolve(ctx, ref, hub.Options{Progress: progress})
	if err != nil {
		return Base{}, err
	}
	hashes, err := hashBase(ctx, dir)
	return Base{Dir: dir, Hashes: hashes}, err
}

// hashBase returns the SHA-256 of the files of a base checkpoint, as far as they
// are there: an engine or a tokenizer of the caller's may need others.
func hashBase(ctx context.Context, dir string) (map[string]string, error) {
	files, err := weights.Files(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	hashes := make(map[string]string)
	for _, name := range slices.Concat(baseFiles, files) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		sum, err := sumfile.Hash(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		hashes[name] = sum
	}
	return hashes, nil
}
