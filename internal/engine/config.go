package engine

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/readfile"
	"github.com/criteria-go/criteria/internal/weights"
)

// readConfig reads the config.json in dir, and returns its text, too.
func readConfig(ctx context.Context, dir string) (config deberta.Config, raw []byte, err error) {
	if raw, err = readfile.All(ctx, filepath.Join(dir, configFile), readfile.Config); err != nil {
		return config, nil, err
	}
	if config, err = deberta.ParseConfig(raw); err != nil {
		return config, nil, fmt.Errorf("%s: %w", dir, err)
	}
	return config, raw, nil
}

// farTooLarge is how many times larger than its weights no encoder is by mistake.
const farTooLarge = 8

// checkSize compares the size of the encoder that a config.json describes with
// that of the weights beside it, before memory is taken and graphs are built. An
// encoder that is somewhat larger is let through: that of its weights which does not
// fit is named later, with its shape.
func checkSize(config deberta.Config, file *weights.File) error {
	if want, got := config.Parameters(), file.Elements(); want > farTooLarge*got {
		return fmt.Errorf("engine: config.json describes an encoder of %d parameters, but %s holds %d numbers: "+
			"give the config.json and the weights of one model", want, file.Path(), got)
	}
	return nil
}

// checkWeights is checkSize for the weights in dir.
func checkWeights(config deberta.Config, dir string) error {
	file, err := weights.Open(dir)
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	defer file.Close()
	return checkSize(config, file)
}
