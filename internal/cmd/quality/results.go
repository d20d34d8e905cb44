package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
)

// training is one of those that are compared.
type training struct {
	Set     string  `json:"set"`
	Pooling string  `json:"pooling"`
	Arm     string  `json:"arm"`
	Seed    uint64  `json:"seed"`
	Epochs  int     `json:"epochs"`
	Batch   int     `json:"batch_size"`
	Rate    float64 `json:"learning_rate"`
}

// score is how good the model is after an epoch.
type score struct {
	ValLoss  float64 `json:"val_loss"`
	ValF1    float64 `json:"val_macro_f1"`
	TestLoss float64 `json:"test_loss"`
	TestF1   float64 `json:"test_macro_f1"`
}

type result struct {
	training
	Scores []score `json:"scores"` // by epoch
}

// results is a file with a line of JSON for each training that is done.
type results struct {
	file *os.File
	all  []result
}

func openResults(path string) (*results, error) {
	all, err := readResults(path)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	return &results{f, all}, nil
}

// readResults reads a file of results; none if it does not exist.
func readResults(path string) ([]result, error) {
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []result
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		var r result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s:%d: %w; remove that line", path, n, err)
		}
		all = append(all, r)
	}
	return all, lines.Err()
}

func (r *results) has(t training) bool {
	for _, known := range r.all {
		if known.training == t {
			return true
		}
	}
	return false
}

// add appends a result, so that it is on the disk when add returns.
func (r *results) add(of result) error {
	line, err := json.Marshal(of)
	if err != nil {
		return err
	}
	if _, err := r.file.Write(append(line, '\n')); err != nil {
		return err
	}
	r.all = append(r.all, of)
	return r.file.Sync()
}

func (r *results) close() error { return r.file.Close() }
