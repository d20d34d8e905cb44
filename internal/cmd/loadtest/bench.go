package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"
)

type benchSpec struct {
	server, model string
	flags         []string
	python        string
	clients       []int
	duration      time.Duration
	rounds        int
	requests      [][]byte
}

// figures are what was measured with a number of clients.
type figures struct {
	p50, p99  time.Duration
	perSecond float64
}

// bench prints a table of both servers, and by how much ours is faster.
func bench(ctx context.Context, out io.Writer, spec benchSpec) (err error) {
	ours, err := start(ctx, "/readyz", func(address string) []string {
		return append(append([]string{spec.server, "-addr", address}, spec.flags...), spec.model)
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ours.stop(syscall.SIGTERM)) }()
	servers := []*process{ours}
	names := []string{"examples/serve"}
	if spec.python != "" {
		peer, err := start(ctx, "/healthz", func(address string) []string {
			return []string{spec.python, "internal/cmd/loadtest/peer.py", spec.model, address}
		})
		if err != nil {
			return err
		}
		defer func() { _ = peer.stop(syscall.SIGTERM) }()
		servers, names = append(servers, peer), append(names, "FastAPI + transformers")
		if err := agree(ctx, ours.url, peer.url, spec.requests); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "| clients | server | requests/s | p50 | p99 |\n| --- | --- | --- | --- | --- |\n")
	for _, n := range spec.clients {
		measured := make([][]figures, len(servers))
		for round := range spec.rounds + 1 { // the first is to warm up
			for i, s := range servers {
				duration := spec.duration
				if round == 0 {
					duration = min(duration, 3*time.Second)
				}
				f, err := measure(ctx, s.url, n, duration, spec.requests)
				if err != nil {
					return fmt.Errorf("%s with %d clients: %w", names[i], n, err)
				}
				if round > 0 {
					measured[i] = append(measured[i], f)
				}
			}
		}
		var median []figures
		for i, all := range measured {
			slices.SortFunc(all, func(a, b figures) int { return cmp.Compare(a.perSecond, b.perSecond) })
			m := all[len(all)/2]
			median = append(median, m)
			fmt.Fprintf(out, "| %d | %s | %.1f | %v | %v |\n", n, names[i], m.perSecond, m.p50.Round(10*time.Microsecond), m.p99.Round(10*time.Microsecond))
		}
		if len(median) == 2 {
			fmt.Fprintf(out, "| %d | ratio | %.2f | %.2f | %.2f |\n", n, median[0].perSecond/median[1].perSecond,
				median[0].p50.Seconds()/median[1].p50.Seconds(), median[0].p99.Seconds()/median[1].p99.Seconds())
		}
	}
	return nil
}

// agree checks that both servers give the same answers: otherwise they do not
// do the same work.
func agree(ctx context.Context, a, b string, requests [][]byte) error {
	for _, body := range requests[:min(16, len(requests))] {
		var got [2]struct{ Probability float64 }
		for i, url := range []string{a, b} {
			status, text, err := ask(ctx, http.DefaultClient, url, bytes.NewReader(body))
			if err := notOK(status, text, err); err != nil {
				return err
			}
			if err := json.Unmarshal(text, &got[i]); err != nil {
				return err
			}
		}
		if math.Abs(got[0].Probability-got[1].Probability) > 1e-4 {
			return fmt.Errorf("the servers do not agree: %v and %v for %s", got[0].Probability, got[1].Probability, body)
		}
	}
	return nil
}

// notOK is the error of an answer that is none.
func notOK(status int, text []byte, err error) error {
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d: %s", status, text)
	}
	return err
}

// measure lets n clients ask for a while, each its next question when it has the
// answer to the last one.
func measure(ctx context.Context, url string, n int, duration time.Duration, requests [][]byte) (figures, error) {
	c := client(n)
	defer c.CloseIdleConnections()
	var (
		mu    sync.Mutex
		took  []time.Duration
		fault error
		wg    sync.WaitGroup
	)
	began := time.Now()
	for i := range n {
		wg.Go(func() {
			var own []time.Duration
			var err error
			for k := i * 37; time.Since(began) < duration && ctx.Err() == nil; k++ {
				started := time.Now()
				status, text, askErr := ask(ctx, c, url, bytes.NewReader(requests[k%len(requests)]))
				if err = notOK(status, text, askErr); err != nil {
					break
				}
				own = append(own, time.Since(started))
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, own...)
			fault = cmp.Or(fault, err)
		})
	}
	wg.Wait()
	elapsed := time.Since(began)
	if err := cmp.Or(fault, context.Cause(ctx)); err != nil {
		return figures{}, err
	}
	slices.Sort(took)
	at := func(p float64) time.Duration { return took[min(len(took)-1, int(p*float64(len(took))))] }
	return figures{at(0.5), at(0.99), float64(len(took)) / elapsed.Seconds()}, nil
}
