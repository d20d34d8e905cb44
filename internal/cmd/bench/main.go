// Command bench compares the speed and the memory of this library with PyTorch
// and transformers on the CPU and prints one table. Everything is measured in
// one run, the competitors taking turns; the machine should have nothing else to
// do. docs/performance.md explains the figures.
//
// Usage: bench [-shapes 4x128,…] [-rounds N] [-threads N] [-only steps,epoch,…]
//
// The environment variable CRITERIA_PEER_PYTHON names a Python with torch and
// transformers; `make bench` sets it.
package main

import (
	"context"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/criteria-go/criteria/internal/ort"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type shape struct{ rows, length int }

func (s shape) String() string { return fmt.Sprintf("%d × %d", s.rows, s.length) }

// bench is one run of the command.
type bench struct {
	ctx     context.Context
	threads int
	rounds  int
	python  string
	dir     string // temporary
	ours    *trainee
	eager   *peer
	compile *peer // nil without a C++ compiler
	// compiling is the time that torch.compile has taken before it could run.
	compiling time.Duration
}

func run(ctx context.Context) (err error) {
	list := flag.String("shapes", "4x128,2x256,8x128,2x512", "batch and length of the training steps")
	rounds := flag.Int("rounds", 3, "measurements of each step at most")
	threads := flag.Int("threads", ort.DefaultThreads(), "threads, also PyTorch's")
	only := flag.String("only", "steps,memory,epoch,predict", "parts of the benchmark")
	flag.Parse()
	shapes, err := parseShapes(*list)
	if err != nil {
		return err
	}
	b := &bench{ctx: ctx, threads: *threads, rounds: *rounds, python: os.Getenv("CRITERIA_PEER_PYTHON")}
	if b.python == "" {
		return fmt.Errorf("CRITERIA_PEER_PYTHON is not set: run make bench")
	}
	if b.dir, err = os.MkdirTemp("", "criteria-bench"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.dir) }()
	defer b.closePeers()

	started := time.Now()
	progress("writing a model of the size of deberta-v3-base with random weights")
	base := filepath.Join(b.dir, "base")
	if err := os.Mkdir(base, 0o755); err != nil {
		return err
	}
	if err := writeModel(base); err != nil {
		return err
	}
	if b.ours, err = openTrainee(ctx, base, b.threads); err != nil {
		return err
	}
	defer func() {
		if b.ours != nil {
			_ = b.ours.Close()
		}
	}()
	if b.eager, err = startPeer(b.python, "eager", b.threads); err != nil {
		return err
	}
	if b.threads > ort.DefaultThreads() {
		progress("more threads than cores: the figures mean little")
	}
	info := b.ours.Runtime()
	fmt.Printf("deberta-v3-base (random weights), fp32, dropout %v, %d threads, %s\nONNX Runtime %s, products by %s\n\n",
		dropout, b.threads, processor(), info.Version, cmpOr(filepath.Base(info.BLAS), "ONNX Runtime"))

	for _, part := range []struct {
		name string
		run  func() error
	}{
		{"steps", func() error { return b.steps(shapes) }},
		{"memory", b.memory},
		{"epoch", b.epoch},
		{"predict", b.predict},
	} {
		if !slices.Contains(strings.Split(*only, ","), part.name) {
			continue
		}
		if err := part.run(); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	fmt.Printf("The benchmark took %v.\n", time.Since(started).Round(time.Second))
	return nil
}

func (b *bench) closePeers() {
	for _, p := range []**peer{&b.eager, &b.compile} {
		if *p != nil {
			(*p).close()
			*p = nil
		}
	}
}

// progress says what is going on, beside the table.
func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "# "+format+"\n", args...) }

func parseShapes(list string) ([]shape, error) {
	var shapes []shape
	for _, text := range strings.Split(list, ",") {
		var s shape
		if _, err := fmt.Sscanf(text, "%dx%d", &s.rows, &s.length); err != nil {
			return nil, fmt.Errorf("-shapes: %q is not of the form 4x128", text)
		}
		shapes = append(shapes, s)
	}
	return shapes, nil
}

// processor returns the name of the processor.
func processor() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				return strings.TrimSpace(value)
			}
		}
	}
	return "unknown processor"
}

func cmpOr(name, missing string) string {
	if name == "." {
		return missing
	}
	return name
}

// roundTime bounds the time for the measurements of one shape, after the first
// two.
const roundTime = 45 * time.Second

// compileTime is after how much compiling no further shape is compiled: every
// shape is compiled anew. What inductor keeps in its cache folder does not count
// again, so that a second run measures more shapes.
const compileTime = 100 * time.Second

// steps times whole training steps: forward, backward, clipping, AdamW.
func (b *bench) steps(shapes []shape) error {
	if _, err := exec.LookPath("g++"); err == nil {
		if b.compile, err = startPeer(b.python, "compile", b.threads); err != nil {
			return err
		}
	} else {
		fmt.Println("torch.compile is not measured: it needs a C++ compiler (g++).")
	}
	fmt.Println("Training step          |  ours                     | torch eager            | torch.compile          | best torch | products: share of our step,")
	fmt.Println("batch × length         |  s      pairs/s  peak GB  | s      ratio  peak GB  | s      ratio  peak GB  | /ours      | GFLOP/s here, alone by torch (MKL)")
	product, count := 1.0, 0
	for _, s := range shapes {
		progress("steps of %v", s)
		ratio, err := b.stepsOf(s)
		if err != nil {
			return err
		}
		product *= ratio
		count++
	}
	fmt.Printf("%-22s |%64s %26s\n\n", "geometric mean", "", fmt.Sprintf("%.2f", math.Pow(product, 1/float64(count))))
	if b.compile != nil {
		b.compile.close()
		b.compile = nil
	}
	return nil
}

// side is one of the competitors.
type side struct {
	step    func(shape) (answer, error)
	seconds []float64
	peak    float64
}

func (s *side) measure(of shape) error {
	a, err := s.step(of)
	s.seconds = append(s.seconds, a.Seconds)
	s.peak = max(s.peak, a.PeakGB)
	return err
}

func (s *side) median() float64 {
	slices.Sort(s.seconds)
	return s.seconds[len(s.seconds)/2]
}

func (b *bench) stepsOf(s shape) (bestRatio float64, err error) {
	ours := &side{step: func(s shape) (answer, error) { return b.ours.step(b.ctx, s) }}
	eager := &side{step: b.eager.step}
	sides := []*side{ours, eager}
	var compiled *side
	if b.compile != nil && b.compiling < compileTime {
		compiled = &side{step: b.compile.step}
		sides = append(sides, compiled)
	}
	for _, side := range sides { // the first step of a shape compiles or touches fresh memory
		begun := time.Now()
		_, err := side.step(s)
		if side == compiled {
			b.compiling += time.Since(begun)
		}
		if err != nil {
			if side == compiled {
				b.compile.close()
				b.compile, compiled = nil, nil
				sides = sides[:2]
				fmt.Println("torch.compile failed and is not measured any more.")
				continue
			}
			return 0, err
		}
	}
	ort.CountProducts(true)
	start := time.Now()
	for round := 0; round < b.rounds && (round < 2 || time.Since(start) < roundTime); round++ {
		for _, side := range sides {
			if err := side.measure(s); err != nil {
				return 0, err
			}
		}
	}
	products := ort.Products()
	ort.CountProducts(false)

	best := eager.median()
	line := fmt.Sprintf("%-22v | %6.3f  %7.2f  %7.2f  | %6.3f  %5.2f  %7.2f ", s, ours.median(), float64(s.rows)/ours.median(), ours.peak,
		eager.median(), eager.median()/ours.median(), eager.peak)
	if compiled != nil {
		best = min(best, compiled.median())
		line += fmt.Sprintf(" | %6.3f  %5.2f  %7.2f ", compiled.median(), compiled.median()/ours.median(), compiled.peak)
	} else {
		line += fmt.Sprintf(" | %22s ", "not measured")
	}
	var flop, here, total float64
	for _, x := range ours.seconds {
		total += x
	}
	for _, p := range products {
		flop += p.FLOP()
		here += p.Threads.Seconds() / float64(b.threads)
	}
	line += fmt.Sprintf(" | %-10.2f ", best/ours.median())
	if len(products) > 0 {
		alone, err := b.alone(products)
		if err != nil {
			return 0, err
		}
		line += fmt.Sprintf("| %4.1f %%  %5.0f  %5.0f  (%.0f %%)", 100*here/total, flop/here/1e9, flop/alone/1e9, 100*alone/here)
	}
	fmt.Println(line)
	return best / ours.median(), nil
}

// alone returns the seconds that the products take when PyTorch does nothing
// else.
func (b *bench) alone(products []ort.Product) (float64, error) {
	total := 0.0
	for _, p := range products {
		a, err := b.eager.ask(request{"do": "product", "m": p.M, "n": p.N, "k": p.K, "trans_a": p.TransA, "trans_b": p.TransB,
			"batch": p.Batch, "repeat": min(p.Operators, 6)})
		if err != nil {
			return 0, err
		}
		total += a.Seconds * float64(p.Operators)
	}
	return total, nil
}

// memory compares the peak memory of a step on 8 × 256 tokens.
func (b *bench) memory() error {
	s := shape{8, 256}
	progress("memory of %v", s)
	ours := &side{step: func(s shape) (answer, error) { return b.ours.step(b.ctx, s) }}
	eager := &side{step: b.eager.step}
	for range 2 {
		for _, side := range []*side{ours, eager} {
			if err := side.measure(s); err != nil {
				return err
			}
		}
	}
	fmt.Printf("Memory at %v: ours %.2f GB, torch eager %.2f GB\n\n", s, ours.peak, eager.peak)
	return nil
}
