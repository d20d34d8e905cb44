package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/criteria-go/criteria"
)

// beginOlder leaves in dir what version 0.1 had left there of a run that was
// interrupted before its first update. Resumed, such a run keeps the order of that
// version: it is the only way to train in it.
func beginOlder(ctx context.Context, dir string, opts []criteria.TrainerOption) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	trainer, err := criteria.NewTrainer(append(slices.Clone(opts),
		criteria.WithHooks(criteria.Hooks{Start: func(criteria.StartEvent) { cancel() }}))...)
	if err != nil {
		return err
	}
	var interrupted *criteria.InterruptedError
	if _, err := trainer.Run(ctx); !errors.As(err, &interrupted) {
		return fmt.Errorf("a run that is interrupted at its start: %w", err)
	}
	return makeOlder(interrupted.Checkpoint)
}

// makeOlder takes from a checkpoint what version 0.1 did not write.
func makeOlder(checkpoint string) error {
	path := filepath.Join(checkpoint, "state.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var state map[string]json.RawMessage
	if err := json.Unmarshal(text, &state); err != nil {
		return err
	}
	delete(state, "order")
	state["format"] = json.RawMessage("1")
	older, err := json.Marshal(state)
	if err != nil {
		return err
	}
	list := filepath.Join(checkpoint, "SHA256SUMS")
	sums, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	sum := func(text []byte) []byte { return fmt.Appendf(nil, "%x", sha256.Sum256(text)) }
	sums = bytes.Replace(sums, sum(text), sum(older), 1)
	return errors.Join(os.WriteFile(path, older, 0o644), os.WriteFile(list, sums, 0o644))
}
