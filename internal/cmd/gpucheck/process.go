package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"strings"
	"time"
)

//go:embed peer.py
var peerScript string

// request is what a process is asked for: one of ours, or one of PyTorch's.
type request struct {
	Do        string   `json:"do"`
	Device    string   `json:"device"`
	Dir       string   `json:"dir"`
	Low       string   `json:"low"` // precision of products, ours
	AMP       bool     `json:"amp"` // the same, PyTorch's
	Mode      string   `json:"mode"`
	Shapes    [][2]int `json:"shapes"`
	Steps     int      `json:"steps"`
	Rate      float64  `json:"rate"`
	Optimizer string   `json:"optimizer"` // ours; "": adamw_torch_fused
	Dropout   float64  `json:"dropout"`
	Recompute bool     `json:"recompute"`
	Standard  bool     `json:"standard"` // without kernels of our own
	Flash     bool     `json:"flash"`    // with our fused attention
	Warm      bool     `json:"warm"`
}

// number is one that may be not a number, which JSON has no word for but null.
type number float64

// MarshalJSON implements [json.Marshaler].
func (n number) MarshalJSON() ([]byte, error) {
	if x := float64(n); math.IsNaN(x) || math.IsInf(x, 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(n))
}

// UnmarshalJSON implements [json.Unmarshaler].
func (n *number) UnmarshalJSON(text []byte) error {
	*n = number(math.NaN())
	if string(text) == "null" {
		return nil
	}
	return json.Unmarshal(text, (*float64)(n))
}

// ask starts this program for a part of the work; each line of its answer is given
// to receive as it comes.
func (c *check) ask(ctx context.Context, limit time.Duration, r request, receive func(line []byte) error, env ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return converse(ctx, c.patience(limit), receive, env, self, "-part", string(text))
}

// peer asks PyTorch.
func (c *check) peer(ctx context.Context, limit time.Duration, r request, receive func(line []byte) error) error {
	if r.Device = c.device; c.device == "host" {
		r.Device = "cpu"
	}
	return c.script(ctx, limit, peerScript, r, receive)
}

func (c *check) script(ctx context.Context, limit time.Duration, script string, r request, receive func(line []byte) error) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return converse(ctx, c.patience(limit), receive, nil, c.python, "-c", script, string(text))
}

// patience is what a part may take: the limits are for a machine with a GPU.
func (c *check) patience(limit time.Duration) time.Duration {
	if c.device == "host" {
		return 5 * limit
	}
	return limit
}

// converse runs a program for at most so long.
func converse(ctx context.Context, limit time.Duration, receive func(line []byte) error, env []string, program string, args ...string) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := limited.Err(); err != nil {
		return fmt.Errorf("there was no time left")
	}
	cmd := exec.CommandContext(limited, program, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = 2 * time.Second
	var trouble bytes.Buffer
	cmd.Stderr = &trouble
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var received error
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		// What a library says on its own is none of ours.
		if line := lines.Bytes(); received == nil && json.Valid(line) {
			received = receive(line)
		}
	}
	err = cmd.Wait()
	switch {
	case limited.Err() != nil:
		return fmt.Errorf("not done after %v", limit)
	case err != nil:
		return fmt.Errorf("%w: %s", err, lastLine(trouble.String()))
	}
	return received
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

func oneLine(err error) string {
	const most = 300
	text := strings.Join(strings.Fields(err.Error()), " ")
	return text[:min(len(text), most)]
}
