package main

import (
	"fmt"
	"io"
	"time"
)

// progress says now and then how far things are.
type progress struct {
	out         io.Writer
	every       time.Duration
	began, last time.Time
	pairs       int
}

func newProgress(out io.Writer, every time.Duration) *progress {
	now := time.Now()
	return &progress{out: out, every: every, began: now, last: now}
}

func (p *progress) add() {
	p.pairs++
	if p.every > 0 && time.Since(p.last) >= p.every {
		p.last = time.Now()
		p.report()
	}
}

func (p *progress) end() {
	if p.every > 0 {
		p.report()
	}
}

func (p *progress) report() {
	took := time.Since(p.began)
	fmt.Fprintf(p.out, "%d pairs in %v, %.1f pairs/s\n", p.pairs, took.Round(100*time.Millisecond), float64(p.pairs)/max(took.Seconds(), 1e-9))
}
