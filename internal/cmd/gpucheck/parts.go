package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// What the parts may take, at most; together with the rest it is less than eight
// minutes.
const (
	gradientTime = 40 * time.Second // of each precision
	kernelTime   = 15 * time.Second // of each optimizer and device
	curveTime    = 40 * time.Second // of each side and precision
	aheadTime    = 150 * time.Second
	stepTime     = 25 * time.Second // of each shape, ours
	eagerTime    = 45 * time.Second // of all shapes, like the next two
	compileTime  = 80 * time.Second
	flashTime    = 60 * time.Second
	profileTime  = 40 * time.Second
)

// gradients compares with what transformers computed on a CPU, with TF32 off.
func (c *check) gradients(ctx context.Context) {
	c.printf("## Gradients of the golden cases\n\nOff by, in parts of their norm: all parameters together, and the one that is furthest off. "+
		"With max pooling only float32 is judged: in %s a maximum may fall on another token.\n\n", c.low())
	c.printf("| precision | case | pooling | all | worst | |\n|---|---|---|---|---|---|\n")
	for _, p := range []struct {
		low    string
		flash  bool
		wanted float64
	}{{"fp32", false, 1e-3}, {c.low(), false, 2e-2}, {"fp32", true, 1e-3}, {c.low(), true, 2e-2}} {
		what := "gradients, " + p.low
		if p.flash {
			what += ", " + fused
		}
		cases, worst := 0, 0.0
		err := c.ask(ctx, gradientTime, request{Do: "golden", Device: c.device, Low: p.low, Dir: c.goldenDir(), Flash: p.flash}, func(line []byte) error {
			var d deviation
			if err := json.Unmarshal(line, &d); err != nil {
				return err
			}
			c.printf("| %s | %s | %s | %s | %s | %s |\n", strings.TrimPrefix(what, "gradients, "), d.Case, d.Pooling, d.All.small(), d.Worst.small(), d.Parameter)
			if p.low == "fp32" || d.Pooling != "max" {
				cases++
				worst = largest(worst, float64(d.All))
			}
			return nil
		})
		if err != nil {
			c.failed(what, err)
			continue
		}
		c.judge(cases > 0 && worst <= p.wanted, what, fmt.Sprintf("off by %s in the worst of %d cases", number(worst).small(), cases), fmt.Sprintf("at most %g", p.wanted))
	}
	c.printf("\n")
}

func (n number) small() string { return fmt.Sprintf("%.1e", float64(n)) }

// standard names what is computed without kernels of our own, which tells faults of
// these from others, and what they gain.
const standard = "standard operators"

// fused names what is computed with the fused attention.
const fused = "fused attention"

// curves compares the losses of a training with PyTorch's.
func (c *check) curves(ctx context.Context) {
	type side struct {
		name string
		of   losses
		err  error
	}
	var sides []*side
	run := func(name string, ask func(receive func([]byte) error) error) *side {
		c.progress("%d steps, %s", curveSteps, name)
		s := &side{name: name, err: errors.New("it says nothing")}
		if err := ask(func(line []byte) error {
			s.err = json.Unmarshal(line, &s.of)
			return s.err
		}); err != nil {
			s.err = err
		}
		if s.err == nil && len(s.of.Losses) != curveSteps {
			s.err = fmt.Errorf("%d losses, want %d", len(s.of.Losses), curveSteps)
		}
		sides = append(sides, s)
		return s
	}
	type comparison struct {
		what         string
		wanted       float64
		ours, theirs *side
	}
	var all []comparison
	ours := func(name string, with request) *side {
		return run("ours, "+name, func(receive func([]byte) error) error {
			with.Do, with.Device, with.Dir, with.Rate = "curve", c.device, c.dir, curveRate
			return c.ask(ctx, curveTime, with, receive)
		})
	}
	torch := func(name string, amp bool) *side {
		return run("PyTorch, "+name, func(receive func([]byte) error) error {
			return c.peer(ctx, curveTime, request{Do: "curve", AMP: amp, Dir: c.dir, Rate: curveRate}, receive)
		})
	}
	all = append(all, comparison{"loss, fp32", 1e-3, ours("fp32", request{Low: "fp32"}), torch("fp32", false)})
	low := torch("bf16", true)
	all = append(all,
		comparison{"loss, " + c.low(), 5e-2, ours(c.low(), request{Low: c.low()}), low},
		comparison{"loss, " + c.low() + ", " + fused, 5e-2, ours(c.low()+", "+fused, request{Low: c.low(), Flash: true}), low},
		comparison{"loss, " + c.low() + ", " + standard, 5e-2, ours(c.low()+", "+standard, request{Low: c.low(), Standard: true}), low})

	c.printf("## Loss over %d steps\n\nThe same weights and batches (%v), no dropout, AdamW at %g.\n\n| step |", curveSteps, curveShape, curveRate)
	for _, s := range sides {
		c.printf(" %s |", s.name)
	}
	c.printf("\n|---|%s\n", strings.Repeat("---|", len(sides)))
	for step := range curveSteps {
		c.printf("| %d |", step+1)
		for _, s := range sides {
			if s.err != nil {
				c.printf(" |")
			} else {
				c.printf(" %.5f |", float64(s.of.Losses[step]))
			}
		}
		c.printf("\n")
	}
	c.printf("\n")
	for _, p := range all {
		what := p.what
		if err := errors.Join(p.ours.err, p.theirs.err); err != nil {
			c.failed(what, err)
			continue
		}
		worst, norms := 0.0, 0.0
		for step := range curveSteps {
			worst = largest(worst, math.Abs(float64(p.ours.of.Losses[step]-p.theirs.of.Losses[step])))
			norms = largest(norms, math.Abs(float64(p.ours.of.Norms[step]/p.theirs.of.Norms[step]-1)))
		}
		c.judge(worst <= p.wanted, what, fmt.Sprintf("at most %s from PyTorch's; norms differ by up to %.2g %%", number(worst).small(), 100*norms),
			fmt.Sprintf("at most %g", p.wanted))
	}
}

// kernels compares a training with dropout, by our own kernels, on the device with
// the same on the host: they drop the same elements.
func (c *check) kernels(ctx context.Context) {
	const steps, wanted = 10, 1e-3
	for _, of := range []struct {
		what, optimizer string
		flash           bool // on the device; the host has the composed attention
	}{{"adamw_torch_fused", "adamw_torch_fused", false}, {"adamw_bnb_8bit", "adamw_bnb_8bit", false}, {fused, "adamw_torch_fused", true}} {
		what := "kernels, " + of.what
		var both [2]losses
		var errs []error
		for i, device := range []string{c.device, "host"} {
			r := request{Do: "kernels", Device: device, Low: "fp32", Dir: c.goldenDir(), Rate: 1e-4, Optimizer: of.optimizer, Steps: steps, Flash: of.flash && i == 0}
			errs = append(errs, c.ask(ctx, kernelTime, r, func(line []byte) error { return json.Unmarshal(line, &both[i]) }))
		}
		if err := errors.Join(errs...); err != nil {
			c.failed(what, err)
			continue
		}
		worst := 0.0
		for step := range steps {
			worst = largest(worst, math.Abs(float64(both[0].Losses[step]-both[1].Losses[step])))
		}
		c.judge(worst <= wanted, what, fmt.Sprintf("losses of %d steps with dropout at most %s from the host's", steps, number(worst).small()), fmt.Sprintf("at most %g", wanted))
	}
}

// largest is max, but keeps what is not a number.
func largest(x, y float64) float64 {
	if math.IsNaN(x) || x >= y {
		return x
	}
	return y
}

func pairs(shapes []shape) [][2]int {
	var p [][2]int
	for _, s := range shapes {
		p = append(p, [2]int{s.rows, s.length})
	}
	return p
}

// timedSteps is how many steps are timed.
func (c *check) timedSteps() int {
	if c.device == "host" {
		return 2
	}
	return 20
}

func (c *check) torch(mode string, warm bool) request {
	return request{Do: "speed", Mode: mode, Dir: c.dir, Shapes: pairs(c.shapes), Steps: c.timedSteps(), Dropout: dropout, AMP: true, Warm: warm}
}

// compileAhead lets torch.compile fill its cache. The channel is closed when it is
// done, or its time is up.
func (c *check) compileAhead(ctx context.Context) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// What goes wrong will go wrong again, and is reported then.
		_ = c.peer(ctx, aheadTime, c.torch("compile", true), func([]byte) error { return nil })
	}()
	return done
}

// column is a competitor in the tables of speed and memory.
type column struct {
	name string
	of   map[shape]timing
}

// speeds times steps of both sides, one after the other.
func (c *check) speeds(ctx context.Context) {
	var columns []*column
	measure := func(name string, ask func(receive func([]byte) error) error) *column {
		col := &column{name, map[shape]timing{}}
		columns = append(columns, col)
		err := ask(func(line []byte) error {
			var t timing
			if err := json.Unmarshal(line, &t); err != nil {
				return err
			}
			col.of[shape{t.Rows, t.Length}] = t
			c.progress("%s, %d × %d: %.1f samples/s, %.1f GB %s", name, t.Rows, t.Length, float64(t.Speed), float64(t.MemoryGB), t.Error)
			return nil
		})
		if err != nil {
			c.progress("%s: %s", name, oneLine(err))
		}
		return col
	}
	ours := func(name string, with request) *column {
		return measure(name, func(receive func([]byte) error) error {
			var errs []error
			for _, s := range c.shapes { // each in its own process: arenas never shrink
				with.Do, with.Device, with.Low, with.Dir = "speed", c.device, c.timed(), c.dir
				with.Shapes, with.Steps, with.Dropout = pairs([]shape{s}), c.timedSteps(), dropout
				errs = append(errs, c.ask(ctx, stepTime, with, receive))
			}
			return errors.Join(errs...)
		})
	}
	plain, recomputing, flash := ours("ours", request{}), ours("ours, checkpointing", request{Recompute: true}), ours("ours, "+fused, request{Flash: true})
	torch := func(mode string, limit time.Duration) *column {
		return measure(mode, func(receive func([]byte) error) error { return c.peer(ctx, limit, c.torch(mode, false), receive) })
	}
	eager := torch("eager", eagerTime)
	torch("compile", compileTime)
	if err := exec.CommandContext(ctx, c.python, "-c", "import disentangled_flash").Run(); err == nil {
		torch("disentangled-flash", flashTime)
	} else {
		c.progress("the package disentangled-flash is not there")
	}
	standards := ours("ours, "+standard, request{Standard: true})

	c.printf("## Speed and memory\n\nTraining in %s, dropout %g: samples/s, and GB of the device's memory in use.\n\n| batch × length |", c.timed(), dropout)
	for _, col := range columns {
		c.printf(" %s |", col.name)
	}
	c.printf(" ours / best |\n|---|%s---|\n", strings.Repeat("---|", len(columns)))
	for _, s := range c.shapes {
		c.printf("| %v |", s)
		best := 0.0
		for _, col := range columns {
			t, ok := col.of[s]
			switch {
			case !ok:
				c.printf(" – |")
			case t.Error != "":
				c.printf(" %s |", strings.ReplaceAll(t.Error, "|", "/"))
			default:
				c.printf(" %.1f, %.1f GB |", float64(t.Speed), float64(t.MemoryGB))
				if !slices.Contains([]*column{plain, recomputing, flash, standards}, col) {
					best = max(best, float64(t.Speed))
				}
			}
		}
		if t, ok := plain.of[s]; ok && t.Error == "" && best > 0 {
			c.printf(" %.2f |\n", float64(t.Speed)/best)
		} else {
			c.printf(" – |\n")
		}
	}
	c.printf("\n")
	for _, col := range []*column{plain, recomputing, flash, eager} {
		c.judge(col.complete(c.shapes), "speed, "+col.name, fmt.Sprintf("%d of %d shapes", col.measured(c.shapes), len(c.shapes)), "all")
	}
	if largest := c.shapes[len(c.shapes)-1]; c.device == "cuda" {
		for _, col := range []*column{recomputing, flash} {
			whole, saved := plain.of[largest].MemoryGB, col.of[largest].MemoryGB
			c.judge(saved < whole, "memory, "+col.name, fmt.Sprintf("%.1f GB instead of %.1f GB for %v", float64(saved), float64(whole), largest), "less")
		}
	}
}

func (col *column) measured(shapes []shape) int {
	n := 0
	for _, s := range shapes {
		if t, ok := col.of[s]; ok && t.Error == "" {
			n++
		}
	}
	return n
}

func (col *column) complete(shapes []shape) bool { return col.measured(shapes) == len(shapes) }

// profile tells which operators the time of a step goes to. ONNX Runtime takes the
// times on the host: launches are made to wait for their kernels.
func (c *check) profile(ctx context.Context) {
	s := c.shapes[min(1, len(c.shapes)-1)]
	var all []operator
	total := 0.0
	err := c.ask(ctx, profileTime, request{Do: "operators", Device: c.device, Low: c.timed(), Dir: c.dir, Shapes: pairs([]shape{s}),
		Steps: c.timedSteps() / 2, Dropout: dropout}, func(line []byte) error {
		var o operator
		if err := json.Unmarshal(line, &o); err != nil {
			return err
		}
		all = append(all, o)
		total += float64(o.MS)
		return nil
	}, "CUDA_LAUNCH_BLOCKING=1")
	if err != nil {
		c.failed("operators", err)
		return
	}
	c.printf("## Where the time of a step of %v goes\n\nEvery launch waits for its kernel, so the sum is more than a step takes.\n\n", s)
	c.printf("| graph | operator | runs | ms | %% |\n|---|---|---|---|---|\n")
	for _, o := range all {
		if share := 100 * float64(o.MS) / total; share >= 0.5 {
			c.printf("| %s | %s | %d | %.3f | %.1f |\n", o.Graph, o.Name, o.Runs, float64(o.MS), share)
		}
	}
	c.printf("| | all | | %.3f | |\n\n", total)
	c.judge(total > 0, "operators", fmt.Sprintf("%.1f ms in a step", total), "a result")
}
