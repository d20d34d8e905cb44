// Command gpucheck finds out, on a machine with an NVIDIA GPU, whether training
// there is right and how fast it is beside PyTorch, and prints tables and a
// verdict in Markdown, each as soon as it is known. It ends within -time, whatever
// happens: every part runs in a process of its own, with a limit; one that fails is
// reported, and the others run.
//
// Usage: gpucheck [-device cuda] [-size base] [-shapes 16x256,…] [-python python3] [-golden DIR] [-time 8m]
//
// With -device host and -size tiny it is a rehearsal: the same program on a machine
// without a GPU, where bfloat16 becomes float16 and speeds mean nothing.
//
// `make gpu-check` runs it; `make gpu-pack` packs it with what it needs for a
// machine that has no network and no Go. docs/gpu.md explains the tables.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

type options struct {
	device, size, python, golden string
	shapes                       []shape
	time                         time.Duration
}

type shape struct{ rows, length int }

func (s shape) String() string { return fmt.Sprintf("%d × %d", s.rows, s.length) }

// run returns the status: 0 if all is right, 1 if not, 2 for wrong arguments.
func run(ctx context.Context, args []string, out, log io.Writer) int {
	flags := flag.NewFlagSet("gpucheck", flag.ContinueOnError)
	flags.SetOutput(log)
	var o options
	part := flags.String("part", "", "compute one part and print JSON: what gpucheck starts itself with")
	flags.StringVar(&o.device, "device", "cuda", "cuda, or host for a rehearsal")
	flags.StringVar(&o.size, "size", "base", "of the model that is timed: base or tiny")
	flags.StringVar(&o.python, "python", "python3", "Python with PyTorch and transformers")
	flags.StringVar(&o.golden, "golden", "testdata/golden", "folder of the golden cases")
	flags.DurationVar(&o.time, "time", 8*time.Minute, "when to end at the latest")
	list := flags.String("shapes", "16x256,16x512,64x256,64x512", "batch and length of what is timed")
	if flags.Parse(args) != nil {
		return 2
	}
	if *part != "" {
		if err := compute(ctx, *part, out); err != nil {
			fmt.Fprintln(log, "gpucheck:", err)
			return 1
		}
		return 0
	}
	for _, text := range strings.Split(*list, ",") {
		var s shape
		if _, err := fmt.Sscanf(text, "%dx%d", &s.rows, &s.length); err != nil {
			fmt.Fprintf(log, "gpucheck: -shapes: %q is not of the form 16x256\n", text)
			return 2
		}
		o.shapes = append(o.shapes, s)
	}
	if _, ok := sizes[o.size]; !ok || o.device != "cuda" && o.device != "host" {
		fmt.Fprintln(log, "gpucheck: want -size base or tiny, and -device cuda or host")
		return 2
	}
	dir, err := os.MkdirTemp("", "gpucheck")
	if err != nil {
		fmt.Fprintln(log, "gpucheck:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	// Unpacking comes before, and to end what is under way and to tell it afterwards.
	ctx, cancel := context.WithTimeout(ctx, o.time-o.time/20)
	defer cancel()
	c := &check{options: o, dir: dir, out: out, log: log}
	return c.run(ctx)
}

// check is one run of the command.
type check struct {
	options
	dir      string // temporary
	out, log io.Writer
	verdicts []verdict
}

// verdict is a line of the last table.
type verdict struct {
	what, found, wanted string
	ok                  bool
}

func (c *check) judge(ok bool, what, found, wanted string) {
	c.verdicts = append(c.verdicts, verdict{what, found, wanted, ok})
	c.progress("%s: %s, want %s", what, found, wanted)
}

// failed reports a part that came to no result.
func (c *check) failed(what string, err error) { c.judge(false, what, oneLine(err), "a result") }

func (c *check) printf(format string, args ...any) { fmt.Fprintf(c.out, format, args...) }

// progress says what is going on, beside the tables.
func (c *check) progress(format string, args ...any) { fmt.Fprintf(c.log, "# "+format+"\n", args...) }

// low is the low precision that the device computes in.
func (c *check) low() string {
	if c.device == "host" {
		return "fp16"
	}
	return "bf16"
}

// timed is the precision of what is timed. The host has our dropout in float32 only.
func (c *check) timed() string {
	if c.device == "host" {
		return "fp32"
	}
	return "bf16"
}

func (c *check) run(ctx context.Context) int {
	started := time.Now()
	c.printf("# gpu-check\n\n")
	c.about(ctx)
	c.progress("writing a model of the %s size with random weights, and batches", c.size)
	if err := writeInputs(c.dir, sizes[c.size]); err != nil {
		c.failed("inputs", err)
		return c.conclude(started)
	}
	// torch.compile takes most of its time on the CPU: it may do so while what is
	// not timed runs, and find its kernels in its cache later.
	ahead := c.compileAhead(ctx)
	c.gradients(ctx)
	c.kernels(ctx)
	c.curves(ctx)
	c.progress("waiting for torch.compile")
	<-ahead
	c.speeds(ctx)
	c.profile(ctx)
	return c.conclude(started)
}

// conclude prints the verdict and returns the status.
func (c *check) conclude(started time.Time) int {
	c.printf("## Verdict\n\n| check | found | wanted | |\n|---|---|---|---|\n")
	var wrong []string
	for _, v := range c.verdicts {
		word := "ok"
		if !v.ok {
			word = "**failed**"
			wrong = append(wrong, v.what)
		}
		c.printf("| %s | %s | %s | %s |\n", v.what, strings.ReplaceAll(v.found, "|", "/"), v.wanted, word)
	}
	c.printf("\nIt took %v. ", time.Since(started).Round(time.Second))
	if len(wrong) > 0 {
		c.printf("**Failed: %s.**\n", strings.Join(wrong, "; "))
		return 1
	}
	c.printf("**All is right.**\n")
	return 0
}

// about says what computes.
func (c *check) about(ctx context.Context) {
	var a about
	if err := c.ask(ctx, time.Minute, request{Do: "about", Device: c.device}, func(line []byte) error { return json.Unmarshal(line, &a) }); err != nil {
		c.failed("device", err)
	}
	version := "?"
	err := c.script(ctx, time.Minute, `import json, torch, transformers
print(json.dumps(f"PyTorch {torch.__version__}, transformers {transformers.__version__}" + (f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "")))`,
		request{}, func(line []byte) error { return json.Unmarshal(line, &version) })
	if err != nil {
		c.failed("PyTorch", err)
	}
	c.printf("%s; ONNX Runtime %s; %s. A model of the size of deberta-v3-%s, random weights.\n\n", a.Device, a.Runtime, version, c.size)
}

// goldenDir is where the golden cases of the model lie.
func (c *check) goldenDir() string { return filepath.Join(c.golden, "model") }
