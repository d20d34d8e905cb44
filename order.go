package criteria

import (
	"go.yaml.in/yaml/v3"

	"github.com/criteria-go/criteria/internal/data"
	"github.com/criteria-go/criteria/internal/mlflow"
)

// orderTag is the tag of a tracked run that says in which order it draws batches.
const orderTag = "data.order"

// orderOf returns the order in which a configuration asks for batches.
func orderOf(c Config) data.Order {
	if c.Data.DataLoader.GroupByLength {
		return data.Grouped
	}
	return data.Random
}

// recordedOrder returns the order in which a recorded run drew its batches; config
// is the configuration that it stored. A run of ours that names no order, and whose
// configuration does not know the key, is one of an earlier version.
func recordedOrder(r mlflow.Run, config []byte, c Config) (data.Order, error) {
	if name, ok := r.Tags[orderTag]; ok {
		return data.ParseOrder(name)
	}
	var known struct {
		Data struct {
			DataLoader map[string]any `yaml:"dataloader"`
		} `yaml:"data"`
	}
	if err := yaml.Unmarshal(config, &known); err != nil {
		return 0, err
	}
	_, ours := r.Tags[versionTag]
	if _, ok := known.Data.DataLoader["group_by_length"]; ours && !ok {
		return data.Chunked, nil
	}
	return orderOf(c), nil
}
