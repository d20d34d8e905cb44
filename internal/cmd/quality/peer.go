package main

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/criteria-go/criteria"
)

//go:embed peer.py
var peerScript string

// peer is a process that trains with PyTorch, one request after another.
type peer struct {
	command *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
}

func startPeer(python string) (*peer, error) {
	if python == "" {
		return nil, errors.New("CRITERIA_PEER_PYTHON is not set: run make bench-quality")
	}
	p := &peer{command: exec.Command(python, "-c", peerScript)}
	p.command.Stderr = os.Stderr
	out, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if p.in, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	return p, p.command.Start()
}

// close ends the process. What it was doing is of no interest any more.
func (p *peer) close() {
	_ = p.in.Close()
	_ = p.command.Process.Kill()
	_ = p.command.Wait()
}

// request is a line of the protocol that peer.py describes.
type request struct {
	Model       string  `json:"model"`
	Data        string  `json:"data"`
	Seed        uint64  `json:"seed"`
	Pooling     string  `json:"pooling"`
	Epochs      int     `json:"epochs"`
	BatchSize   int     `json:"batch_size"`
	Rate        float64 `json:"learning_rate"`
	WeightDecay float64 `json:"weight_decay"`
	Warmup      float64 `json:"warmup_ratio"`
	MaxGradNorm float64 `json:"max_grad_norm"`
	Scheduler   string  `json:"scheduler"`
	HeadDropout float64 `json:"head_dropout"`
}

func (p *peer) ask(r request) ([]score, error) {
	line, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return nil, fmt.Errorf("the peer has ended: %w", err)
	}
	reply, err := p.out.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("the peer has ended: %w", err)
	}
	var scores []score
	return scores, json.Unmarshal(reply, &scores)
}

// withTorch lets the peer train from the weights from which we would.
func (t training) withTorch(ctx context.Context, d *criteria.Dataset, torch *peer, dir string) ([]score, error) {
	c := t.config()
	session, err := criteria.ONNXRuntime("").Open(ctx, criteria.ModelSpec{
		Dir: checkpoint, Head: c.Model.Head, Threads: 1,
		Training: &criteria.TrainingSpec{Seed: t.Seed, Optimizer: c.Train.OptimizerType, Accumulation: 1},
	})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(session.SaveModel(ctx, dir), session.Close()); err != nil {
		return nil, err
	}
	encoded, err := encode(ctx, d, c)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(encoded)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "data.json")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return nil, err
	}
	return torch.ask(request{
		Model: dir, Data: file, Seed: t.Seed, Pooling: t.Pooling, Epochs: c.Train.Epochs, BatchSize: c.Train.BatchSize,
		Rate: c.Train.LearningRate, WeightDecay: c.Train.WeightDecay, Warmup: c.Train.WarmupRatio,
		MaxGradNorm: c.Train.MaxGradNorm, Scheduler: c.Train.Scheduler, HeadDropout: c.Model.Head.Dropout,
	})
}
