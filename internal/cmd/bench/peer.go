package main

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
)

//go:embed peer.py
var peerScript string

// peer is a process that does what we do with PyTorch.
type peer struct {
	command *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
}

// answer is what a request has cost.
type answer struct {
	Seconds float64 `json:"seconds"`
	PeakGB  float64 `json:"peak_gb"`
}

// startPeer starts the process; mode is "eager" or "compile".
func startPeer(python, mode string, threads int) (*peer, error) {
	p := &peer{command: exec.Command(python, "-c", peerScript, mode, fmt.Sprint(threads), fmt.Sprint(dropout))}
	p.command.Stderr = os.Stderr
	if mode == "compile" {
		p.command.Stderr = nil // the compiler is chatty
	}
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

// request is a line of the protocol that peer.py describes.
type request map[string]any

func (p *peer) ask(r request) (answer, error) {
	line, err := json.Marshal(r)
	if err != nil {
		return answer{}, err
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return answer{}, fmt.Errorf("the peer has ended: %w", err)
	}
	reply, err := p.out.ReadBytes('\n')
	if err != nil {
		return answer{}, fmt.Errorf("the peer has ended: %w", err)
	}
	var a answer
	return a, json.Unmarshal(reply, &a)
}

func (p *peer) step(s shape) (answer, error) {
	return p.ask(request{"do": "step", "rows": s.rows, "length": s.length})
}

// close ends the process. What it was doing is of no interest any more.
func (p *peer) close() {
	_ = p.in.Close()
	_ = p.command.Process.Kill()
	_ = p.command.Wait()
}
