package engine

import (
	"fmt"
	"maps"
	"strconv"

	"github.com/criteria-go/criteria/internal/weights"
)

// Metadata of a state: updatesKey counts the optimizer's steps, dropoutKey says how the
// host draws masks. A state of a version that drew them by batch has no such entry.
const (
	updatesKey   = "updates"
	optimizerKey = "optimizer"
	dropoutKey   = "dropout"
	dropoutByRow = "by row"
)

// writeState writes the state of an optimizer, by its name, after so many
// updates, with more metadata.
func writeState(path, name string, updates int, o stateful, more map[string]string) error {
	metadata := map[string]string{updatesKey: strconv.Itoa(updates), optimizerKey: name}
	maps.Copy(metadata, more)
	if err := weights.WriteSafetensors(path, metadata, o.state()); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	return nil
}

// readState reads what writeState wrote.
func readState(path, name string, o stateful) (updates int, metadata map[string]string, err error) {
	file, err := weights.Open(path)
	if err != nil {
		return 0, nil, fmt.Errorf("engine: %w", err)
	}
	defer file.Close()
	metadata = file.Metadata()
	if got := metadata[optimizerKey]; got != name {
		return 0, nil, fmt.Errorf("engine: %s holds the state of optimizer %q, but train.optimizer_type is %q: resume with the same optimizer", path, got, name)
	}
	updates, err = strconv.Atoi(metadata[updatesKey])
	if err != nil || updates < 0 {
		return 0, nil, fmt.Errorf("engine: %s: metadata %s is %q, want a number of steps", path, updatesKey, metadata[updatesKey])
	}
	if err := o.restore(file); err != nil {
		return 0, nil, fmt.Errorf("engine: %s: %w", path, err)
	}
	return updates, metadata, nil
}
