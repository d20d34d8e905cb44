package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/criteria-go/criteria"
)

// checkpoint is the tiny model that every training starts from.
const checkpoint = "testdata/sample/tiny-deberta"

// set is a data set with a fixed split, of which so many pairs are used.
type set struct {
	name             string
	hard             bool // whether it is the harder sample
	train, val, test int  // 0: all
}

var sets = []set{
	{name: "small", train: 450, val: 120, test: 120},
	{name: "sample"},
	{name: "hard", hard: true, train: 900, val: 360, test: 360},
}

func setNames() []string {
	var names []string
	for _, s := range sets {
		names = append(names, s.name)
	}
	return names
}

// readSet reads a data set, which may be written to a folder of dir before.
func readSet(ctx context.Context, name, dir string) (*criteria.Dataset, error) {
	for _, s := range sets {
		if s.name == name {
			return s.read(ctx, dir)
		}
	}
	return nil, fmt.Errorf("no data set %q", name)
}

func (s set) read(ctx context.Context, dir string) (*criteria.Dataset, error) {
	from := "testdata/sample"
	if s.hard {
		from = filepath.Join(dir, "hard")
		write := exec.CommandContext(ctx, "go", "run", "./internal/cmd/sampledata", "-hard", "-out", from)
		write.Stderr = os.Stderr
		if err := write.Run(); err != nil {
			return nil, fmt.Errorf("write the harder sample: %w; run it in the root of the repository", err)
		}
	}
	c := criteria.DefaultConfig()
	c.Data.ReDSM5Dir, c.Data.DSM5CriteriaPath = from, filepath.Join(from, "criteria.json")
	data, err := criteria.ReadDataset(ctx, c.Data, c.Train.Seed)
	if err != nil {
		return nil, err
	}
	for _, part := range []struct {
		examples *[]criteria.Example
		pairs    int
	}{{&data.Train, s.train}, {&data.Val, s.val}, {&data.Test, s.test}} {
		if part.pairs > 0 {
			*part.examples = (*part.examples)[:part.pairs]
		}
	}
	return data, nil
}
