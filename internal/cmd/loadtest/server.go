package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// buildServer builds examples/serve.
func buildServer(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "serve")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", path, "./examples/serve").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build examples/serve: %w\n%s", err, out)
	}
	return path, nil
}

// process is a server that was started.
type process struct {
	cmd   *exec.Cmd
	url   string
	log   bytes.Buffer // read it after stop only
	ended chan error
}

// start runs a server, whose address is its last argument or that of -addr, and
// waits until it says yes to a probe.
func start(ctx context.Context, probe string, command func(address string) []string) (*process, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // for a port that is free
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	args := command(address)
	p := &process{cmd: exec.Command(args[0], args[1:]...), url: "http://" + address, ended: make(chan error, 1)}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.ended <- p.cmd.Wait() }()
	deadline := time.NewTimer(5 * time.Minute)
	defer deadline.Stop()
	for {
		select {
		case err := <-p.ended:
			return nil, fmt.Errorf("%s ended: %w\n%s", args[0], err, p.log.String())
		case <-deadline.C:
			return nil, errors.Join(fmt.Errorf("%s does not answer", args[0]), p.stop(syscall.SIGTERM))
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), p.stop(syscall.SIGTERM))
		case <-time.After(50 * time.Millisecond):
		}
		if resp, err := http.Get(p.url + probe); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return p, nil
			}
		}
	}
}

// stop asks the server to end, by a signal that orchestrators or terminals send,
// and waits.
func (p *process) stop(signal syscall.Signal) error {
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-p.ended:
		return err
	case <-time.After(time.Minute):
		return errors.Join(errors.New("the server did not end after the signal"), p.cmd.Process.Kill(), <-p.ended)
	}
}

// questions makes up bodies of requests, of all lengths up to that many words.
func questions(words int) [][]byte {
	vocabulary := strings.Fields(`There is a new bakery here and I cannot sleep lately We watched an old film
		Nothing is fun since September I wrote to my sister gained five kilos feel guilty useless`)
	random := rand.New(rand.NewPCG(7, 7))
	requests := make([][]byte, 256)
	for i := range requests {
		var post []string
		for range 5 + random.IntN(max(1, words-4)) {
			post = append(post, vocabulary[random.IntN(len(vocabulary))])
		}
		body, err := json.Marshal(map[string]string{"post": strings.Join(post, " "), "criterion": "Insomnia or hypersomnia nearly every day."})
		if err != nil {
			panic(err) // a map of strings can be marshalled
		}
		requests[i] = body
	}
	return requests
}

// client returns an HTTP client for n concurrent users.
func client(n int) *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConns: n, MaxIdleConnsPerHost: n}, Timeout: time.Minute}
}

// ask sends a request and returns status and body.
func ask(ctx context.Context, c *http.Client, url string, body io.Reader) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/predict", body)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, text, err
}
