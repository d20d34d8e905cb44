package coexist

import (
	"context"
	"sync"
	"testing"

	onnx "github.com/yalue/onnxruntime_go"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakes"
	"github.com/criteria-go/criteria/internal/graph"
)

// host is a session of the host program: it doubles numbers.
type host struct {
	in, out *onnx.Tensor[float32]
	session *onnx.AdvancedSession
}

func newHost(t *testing.T) *host {
	t.Helper()
	g := graph.New("host", nil)
	x := g.Input("x", graph.Float32, 3)
	g.Output("y", g.Add(x, x))
	h := &host{}
	var err error
	if h.in, err = onnx.NewTensor(onnx.NewShape(3), []float32{1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	if h.out, err = onnx.NewEmptyTensor[float32](onnx.NewShape(3)); err != nil {
		t.Fatal(err)
	}
	h.session, err = onnx.NewAdvancedSessionWithONNXData(g.Encode(), []string{"x"}, []string{"y"}, []onnx.Value{h.in}, []onnx.Value{h.out}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *host) run(t *testing.T) {
	t.Helper()
	clear(h.out.GetData())
	if err := h.session.Run(); err != nil {
		t.Error(err)
	}
	if y := h.out.GetData(); y[0] != 2 || y[1] != 4 || y[2] != 6 {
		t.Errorf("the host's session computed %v", y)
	}
}

func (h *host) close(t *testing.T) {
	t.Helper()
	for _, destroy := range []func() error{h.session.Destroy, h.in.Destroy, h.out.Destroy} {
		if err := destroy(); err != nil {
			t.Error(err)
		}
	}
}

func train(ctx context.Context, t *testing.T) *criteria.Result {
	trainer, err := criteria.NewTrainer(
		criteria.WithCheckpoint("../../testdata/sample/tiny-deberta"), criteria.WithDataset(fakes.Dataset(6, 6, 6, 1)),
		criteria.Configure(func(c *criteria.Config) { c.Train.Epochs = 1 }), criteria.WithOutputDir(t.TempDir()), criteria.Configure(func(c *criteria.Config) { c.Model.Tokenizer.MaxLength = 64 }),
	)
	if err != nil {
		t.Error(err)
		return nil
	}
	result, err := trainer.Run(ctx)
	if err != nil {
		t.Error(err)
	}
	return result
}

var pairs = []criteria.Pair{{Post: "I cannot sleep lately.", Criterion: "Insomnia."}, {Post: "We watched an old film.", Criterion: "Insomnia."}}

func predict(t *testing.T, c *criteria.Classifier) float64 {
	t.Helper()
	p, err := c.Predict(t.Context(), pairs)
	if err != nil {
		t.Error(err)
		return 0
	}
	return p[0].Probability
}

func load(t *testing.T, dir string) *criteria.Classifier {
	t.Helper()
	c, err := criteria.Load(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func closeAll(t *testing.T, classifiers ...*criteria.Classifier) {
	t.Helper()
	for _, c := range classifiers {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestHostAndLibrary(t *testing.T) {
	// The library alone, and after it nothing is left.
	result := train(t.Context(), t)
	if result == nil {
		t.FailNow()
	}
	dir := result.ModelDir()
	c := load(t, dir)
	want := predict(t, c)
	closeAll(t, c)
	if onnx.IsInitialized() {
		t.Fatal("the library has left an environment behind")
	}
	info, err := criteria.CheckRuntime(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}

	// The host comes first, and stays.
	onnx.SetSharedLibraryPath(info.Library)
	if err := onnx.InitializeEnvironment(); err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	h.run(t)
	one, two := load(t, dir), load(t, dir)
	var wg sync.WaitGroup
	wg.Go(func() { train(t.Context(), t) })
	for _, c := range []*criteria.Classifier{one, two} {
		wg.Go(func() {
			for range 20 {
				if got := predict(t, c); got != want {
					t.Errorf("probability %v beside a host, %v without", got, want)
				}
			}
		})
	}
	wg.Go(func() {
		for range 200 {
			h.run(t)
		}
	})
	wg.Wait()
	closeAll(t, one, two)
	if !onnx.IsInitialized() {
		t.Fatal("the library has destroyed the host's environment")
	}
	h.run(t)
	h.close(t)
	if err := onnx.DestroyEnvironment(); err != nil {
		t.Fatal(err)
	}

	// The library comes first; the host sees that the environment is there.
	c = load(t, dir)
	if !onnx.IsInitialized() {
		t.Fatal("the host cannot see the library's environment")
	}
	h = newHost(t)
	h.run(t)
	if got := predict(t, c); got != want {
		t.Errorf("probability %v beside a host, %v without", got, want)
	}
	h.close(t)
	closeAll(t, c)

	// And the host starts again on its own.
	if err := onnx.InitializeEnvironment(); err != nil {
		t.Fatal(err)
	}
	h = newHost(t)
	h.run(t)
	h.close(t)
	if err := onnx.DestroyEnvironment(); err != nil {
		t.Error(err)
	}
}
