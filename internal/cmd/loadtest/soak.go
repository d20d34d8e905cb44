package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

type soakSpec struct {
	server, model string
	flags         []string
	duration      time.Duration
	requests      [][]byte
}

// kind is something that clients do.
type kind struct {
	name   string
	weight int
	body   func(r *rand.Rand, requests [][]byte) io.Reader
	// patience is the longest time after which the client gives up; 0: never.
	patience time.Duration
	statuses []int
}

var kinds = []kind{
	{name: "good", weight: 60, body: good, statuses: []int{200, 429}},
	{name: "cancelled", weight: 15, body: good, patience: 5 * time.Millisecond, statuses: []int{200, 429}},
	{name: "many pairs", weight: 5, body: pairs(64), statuses: []int{200, 429}},
	{name: "many pairs, cancelled", weight: 5, body: pairs(128), patience: 20 * time.Millisecond, statuses: []int{200, 429}},
	{name: "too many pairs", weight: 3, body: pairs(129), statuses: []int{413}},
	{name: "oversize", weight: 3, body: func(*rand.Rand, [][]byte) io.Reader {
		return io.MultiReader(strings.NewReader(`{"post": "`), io.LimitReader(letters{}, 3<<20), strings.NewReader(`"}`))
	}, statuses: []int{413}},
	{name: "long text", weight: 3, body: func(*rand.Rand, [][]byte) io.Reader {
		return strings.NewReader(`{"post": "` + strings.Repeat("x", 70<<10) + `", "criterion": "c"}`)
	}, statuses: []int{413}},
	{name: "invalid UTF-8", weight: 3, body: func(*rand.Rand, [][]byte) io.Reader {
		return strings.NewReader("{\"post\": \"\xff\xfe\", \"criterion\": \"c\"}")
	}, statuses: []int{400}},
	{name: "no JSON", weight: 3, body: func(r *rand.Rand, requests [][]byte) io.Reader {
		body := requests[r.IntN(len(requests))]
		return bytes.NewReader(body[:r.IntN(len(body))])
	}, statuses: []int{400}},
}

func good(r *rand.Rand, requests [][]byte) io.Reader {
	return bytes.NewReader(requests[r.IntN(len(requests))])
}

func pairs(n int) func(*rand.Rand, [][]byte) io.Reader {
	return func(r *rand.Rand, requests [][]byte) io.Reader {
		all := make([][]byte, n)
		for i := range all {
			all[i] = requests[r.IntN(len(requests))]
		}
		return strings.NewReader(`{"pairs": [` + string(bytes.Join(all, []byte(","))) + `]}`)
	}
}

// letters is an endless text.
type letters struct{}

func (letters) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

const (
	soakClients = 16
	slowClients = 8
	wireClients = 4
)

// soak lets clients do everything wrong that they can, and fails if the server
// ends, answers by another status than it should or without saying why, or if
// it has more goroutines or memory at the end than it needs.
func soak(ctx context.Context, out io.Writer, spec soakSpec) (err error) {
	server, err := start(ctx, "/readyz", func(address string) []string {
		args := []string{spec.server, "-addr", address, "-max-queue", "128", "-read-timeout", "2s"}
		return append(append(args, spec.flags...), spec.model)
	})
	if err != nil {
		return err
	}
	defer func() {
		if stopErr := server.stop(syscall.SIGHUP); stopErr != nil {
			err = errors.Join(err, fmt.Errorf("the server ended by %w:\n%s", stopErr, tail(server.log.String())))
		}
		// Nothing that clients do is a fault of the server's.
		if _, line, found := strings.Cut(server.log.String(), `"level":"ERROR"`); found {
			err = errors.Join(err, fmt.Errorf("the server logged an error: %.500s", line))
		}
	}()
	// What the first requests of each kind need once is not a leak.
	warm := min(spec.duration/4, 30*time.Second)
	counts := newCounts()
	if err := torment(ctx, server.url, warm, spec.requests, counts); err != nil {
		return err
	}
	before, err := gauge(ctx, server)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "after %v: %d goroutines, %.1f MiB\n", warm, before.goroutines, before.mib)
	// In slices, so that a long run shows whether memory grows all along.
	left := spec.duration - warm
	for slice := max(left/10, 2*time.Second); left > 0; left -= slice {
		if err := torment(ctx, server.url, min(slice, left), spec.requests, counts); err != nil {
			return err
		}
		now, err := gauge(ctx, server)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%v left: %d goroutines, %.1f MiB\n", max(left-slice, 0).Round(time.Second), now.goroutines, now.mib)
	}
	after, err := gauge(ctx, server)
	if err != nil {
		return err
	}
	fmt.Fprint(out, counts)
	var faults []error
	if limit := before.goroutines + 5; after.goroutines > limit {
		faults = append(faults, fmt.Errorf("%d goroutines at the end, %d after the start", after.goroutines, before.goroutines))
	}
	if limit := before.mib*1.15 + 16; after.mib > limit {
		faults = append(faults, fmt.Errorf("%.1f MiB at the end, %.1f after the start", after.mib, before.mib))
	}
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	for _, k := range wireKinds {
		names = append(names, k.name)
	}
	for _, name := range names {
		if counts.of(name) == 0 {
			faults = append(faults, fmt.Errorf("no request of kind %q was made", name))
		}
	}
	return errors.Join(append(faults, counts.faults...)...)
}

func tail(log string) string { return log[max(0, len(log)-4000):] }

// counts collects what came of the requests.
type counts struct {
	mu     sync.Mutex
	seen   map[string]int // by kind and outcome
	faults []error
}

func newCounts() *counts { return &counts{seen: make(map[string]int)} }

func (c *counts) add(kind, outcome string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[kind+": "+outcome]++
}

func (c *counts) fault(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.faults) < 20 {
		c.faults = append(c.faults, err)
	}
}

func (c *counts) of(kind string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for name, count := range c.seen {
		if strings.HasPrefix(name, kind+": ") {
			n += count
		}
	}
	return n
}

func (c *counts) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(c.seen)) {
		fmt.Fprintf(&b, "%8d %s\n", c.seen[name], name)
	}
	return b.String()
}

// torment runs all clients for a while and waits for them.
func torment(ctx context.Context, url string, duration time.Duration, requests [][]byte, counts *counts) error {
	ctx, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	c := client(soakClients)
	defer c.CloseIdleConnections()
	var wg sync.WaitGroup
	for i := range soakClients {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), uint64(time.Now().UnixNano())))
			for ctx.Err() == nil {
				request(context.WithoutCancel(ctx), c, url, choose(random), random, requests, counts)
			}
		})
	}
	address := strings.TrimPrefix(url, "http://")
	for i := range wireClients {
		wg.Go(func() { wire(ctx, rand.New(rand.NewPCG(uint64(i), uint64(time.Now().UnixNano()))), address, counts) })
	}
	for i := range slowClients {
		wg.Go(func() { slow(ctx, i, address, requests, counts) })
	}
	wg.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	return nil
}

func choose(random *rand.Rand) kind {
	sum := 0
	for _, k := range kinds {
		sum += k.weight
	}
	n := random.IntN(sum)
	for _, k := range kinds {
		if n -= k.weight; n < 0 {
			return k
		}
	}
	panic("unreachable")
}

// request makes one request and judges the answer.
func request(ctx context.Context, c *http.Client, url string, k kind, random *rand.Rand, requests [][]byte, counts *counts) {
	if k.patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(random.Int64N(int64(k.patience))))
		defer cancel()
	}
	status, text, err := ask(ctx, c, url, k.body(random, requests))
	switch {
	case err != nil && ctx.Err() != nil:
		counts.add(k.name, "given up")
	case err != nil && k.name == "oversize" && isReset(err):
		counts.add(k.name, "413") // the server closed while we were still sending
	case err != nil:
		counts.fault(fmt.Errorf("%s: %w", k.name, err))
	default:
		counts.add(k.name, strconv.Itoa(status))
		if !slices.Contains(k.statuses, status) {
			counts.fault(fmt.Errorf("%s: status %d, want one of %v: %s", k.name, status, k.statuses, text))
		} else if err := typed(status, text); err != nil {
			counts.fault(fmt.Errorf("%s: %w", k.name, err))
		}
	}
}

func isReset(err error) bool {
	text := err.Error()
	return strings.Contains(text, "reset by peer") || strings.Contains(text, "broken pipe") || strings.Contains(text, "connection") && strings.Contains(text, "closed")
}

// typed checks that an answer is what its status promises.
func typed(status int, text []byte) error {
	var answer struct {
		Error       *struct{ Code, Message string }
		Probability *float64
		Predictions []struct{ Probability *float64 }
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return fmt.Errorf("status %d: %w: %s", status, err, text)
	}
	if status == http.StatusOK {
		if answer.Error != nil || answer.Probability == nil && len(answer.Predictions) == 0 {
			return fmt.Errorf("status %d: %s", status, text)
		}
		return nil
	}
	if answer.Error == nil || answer.Error.Code == "" || answer.Error.Message == "" {
		return fmt.Errorf("status %d does not say what is wrong: %s", status, text)
	}
	return nil
}

// slow is a client that takes its time, in one of four ways.
func slow(ctx context.Context, way int, address string, requests [][]byte, counts *counts) {
	body := requests[way%len(requests)]
	head := fmt.Sprintf("POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(body))
	for ctx.Err() == nil {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			counts.fault(fmt.Errorf("slow client: %w", err))
			return
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		var name string
		switch way % 4 {
		case 0:
			name = "slow: says nothing"
		case 1:
			name = "slow: header byte by byte"
			dribble(ctx, conn, head)
		case 2:
			name = "slow: body byte by byte"
			if _, err := io.WriteString(conn, head); err == nil {
				dribble(ctx, conn, string(body))
			}
		case 3:
			name = "slow: leaves before the answer"
			_, _ = io.WriteString(conn, head+string(body))
		}
		if way%4 != 3 {
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			switch {
			case err == nil:
				text, _ := io.ReadAll(resp.Body)
				counts.add(name, strconv.Itoa(resp.StatusCode))
				if way%4 == 2 && ctx.Err() == nil {
					if err := typed(resp.StatusCode, text); err != nil {
						counts.fault(fmt.Errorf("%s: %w", name, err))
					}
				}
			default:
				counts.add(name, "connection closed")
			}
		} else {
			counts.add(name, "left")
			time.Sleep(50 * time.Millisecond)
		}
		stop()
		conn.Close()
	}
}

// dribble sends ten bytes per second until somebody has enough.
func dribble(ctx context.Context, w io.Writer, text string) {
	for i := range len(text) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
		if _, err := io.WriteString(w, text[i:i+1]); err != nil {
			return
		}
	}
}

// load is what the server needs while nobody asks.
type load struct {
	goroutines int
	mib        float64
}

// gauge waits until the server has put the last requests behind it, and returns
// the least of what it has seen.
func gauge(ctx context.Context, server *process) (load, error) {
	least := load{goroutines: 1 << 30}
	for range 15 {
		select {
		case <-ctx.Done():
			return load{}, context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
		values, err := metrics(ctx, server.url)
		if err != nil {
			return load{}, err
		}
		least.goroutines = min(least.goroutines, int(values["go_goroutines"]))
		least.mib = values["process_resident_memory_bytes"] / (1 << 20)
	}
	if least.mib == 0 {
		return load{}, errors.New("/metrics does not say how much memory the server needs")
	}
	return least, nil
}

// metrics reads the values without labels of /metrics.
func metrics(ctx context.Context, url string) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	values := make(map[string]float64)
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			values[name] = v
		}
	}
	return values, nil
}
