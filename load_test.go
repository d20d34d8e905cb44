package criteria_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakes"
)

func fakeOptions(b *bench, opts ...criteria.LoadOption) []criteria.LoadOption {
	return append([]criteria.LoadOption{criteria.WithEngine(b.engine), criteria.WithTokenizer(&fakes.Tokenizer{})}, opts...)
}

// predictions of a classifier, which is closed.
func predictions(t *testing.T, c *criteria.Classifier, err error) []criteria.Prediction {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.Predict(t.Context(), manyPairs(20))
	if err := errors.Join(err, c.Close()); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestLoadFS(t *testing.T) {
	b, dir := trained(t)
	c, err := criteria.Load(t.Context(), dir, fakeOptions(b)...)
	want := predictions(t, c, err)

	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	c, err = criteria.LoadFS(t.Context(), os.DirFS(dir), fakeOptions(b)...)
	if entries, _ := os.ReadDir(temp); len(entries) != 1 {
		t.Errorf("%d folders for the files; want one", len(entries))
	}
	if diff := cmp.Diff(want, predictions(t, c, err)); diff != "" {
		t.Errorf("(-Load +LoadFS):\n%s", diff)
	}

	for name, fsys := range map[string]fs.FS{
		"no model":   fstest.MapFS{},
		"unreadable": brokenFS{fstest.MapFS{"config.json": {Data: []byte("{}")}}},
	} {
		broken := fakes.Engine{Before: func(string) error { return errors.New("no model") }}
		if c, err := criteria.LoadFS(t.Context(), fsys, criteria.WithEngine(&broken), criteria.WithTokenizer(&fakes.Tokenizer{})); err == nil {
			t.Errorf("%s: %v and no error", name, c)
		}
	}
	if entries, _ := os.ReadDir(temp); len(entries) != 0 {
		t.Errorf("%d folders are left", len(entries))
	}
}

// brokenFS lists its files but cannot open them.
type brokenFS struct{ fstest.MapFS }

func (brokenFS) Open(name string) (fs.File, error) {
	if name == "." {
		return fstest.MapFS{"config.json": {}}.Open(".")
	}
	return nil, fs.ErrPermission
}

// stored returns the ID of a run whose model is in the store at uri.
func stored(t *testing.T, b *bench, uri string) string {
	t.Helper()
	tracker, err := criteria.NewMLflowTracker(criteria.WithTrackingURI(uri), criteria.WithExperiment("test"), criteria.WithSystemMetrics(0))
	if err != nil {
		t.Fatal(err)
	}
	b.config.Train.Epochs, b.config.Train.EarlyStoppingPatience = 4, 0
	return b.run(t, criteria.WithTracker(tracker)).RunID
}

func TestLoadRun(t *testing.T) {
	t.Chdir(t.TempDir())
	b := newBench(t)
	uri, cache := "sqlite:///"+filepath.ToSlash(filepath.Join(t.TempDir(), "mlflow.db")), t.TempDir()
	id := stored(t, b, uri)
	c, err := criteria.Load(t.Context(), filepath.Join(b.dir, "best_model"), fakeOptions(b)...)
	want := predictions(t, c, err)
	var log strings.Builder
	options := fakeOptions(b, criteria.WithTrackingURI(uri), criteria.WithModelCache(cache), criteria.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	downloads := func() int { return strings.Count(log.String(), "downloading the model") }

	for i, location := range []string{"runs:/" + id + "/model", "runs:/" + id, "runs:/" + id + "/model/"} {
		c, err := criteria.Load(t.Context(), location, options...)
		if diff := cmp.Diff(want, predictions(t, c, err)); diff != "" {
			t.Errorf("%s (-folder +run):\n%s", location, diff)
		}
		if downloads() != 1 {
			t.Errorf("after %d loads there were %d downloads; want one", i+1, downloads())
		}
	}
	// Whatever happens in the cache, what is loaded is what was stored.
	var file string
	err = filepath.WalkDir(cache, func(path string, d fs.DirEntry, err error) error {
		if d.Name() == "fake_model.json" {
			file = path
		}
		return err
	})
	if err != nil || file == "" {
		t.Fatalf("no model in the cache (%v)", err)
	}
	for _, damage := range []func() error{
		func() error { return os.WriteFile(file, []byte("{}"), 0o644) },
		func() error { return os.Remove(file) },
	} {
		before := downloads()
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		c, err := criteria.Load(t.Context(), "runs:/"+id, options...)
		if diff := cmp.Diff(want, predictions(t, c, err)); diff != "" || downloads() != before+1 {
			t.Errorf("%d downloads (-folder +run):\n%s", downloads()-before, diff)
		}
	}
}

func TestLoadRunFails(t *testing.T) {
	t.Chdir(t.TempDir())
	b := newBench(t)
	root := t.TempDir()
	uri := "file://" + filepath.ToSlash(root)
	id := stored(t, b, uri)
	options := fakeOptions(b, criteria.WithTrackingURI(uri), criteria.WithModelCache(t.TempDir()))
	for location, want := range map[string]string{
		"runs:/":                         "want runs:/RUN_ID/model",
		"runs:" + id:                     "want runs:/RUN_ID/model",
		"runs:/../model":                 "want runs:/RUN_ID/model",
		"runs:/" + id + "/../../secrets": "want runs:/RUN_ID/model",
		"runs:/" + id + "/other":         "no model at other",
		"runs:/0123456789abcdef":         "0123456789abcdef",
	} {
		if c, err := criteria.Load(t.Context(), location, options...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Load(%s) = %v, %v; want an error with %q", location, c, err, want)
		}
	}
	// A model that was changed in the store.
	matches, err := filepath.Glob(filepath.Join(root, "*", id, "artifacts", "model", "fake_model.json"))
	if err != nil || len(matches) != 1 {
		t.Fatalf("models %v, %v", matches, err)
	}
	if err := os.WriteFile(matches[0], []byte("[[1],[2]]"), 0o644); err != nil {
		t.Fatal(err)
	}
	var dataError *criteria.DataError
	if _, err := criteria.Load(t.Context(), "runs:/"+id, options...); !errors.As(err, &dataError) || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("Load of a changed model: %v; want a DataError", err)
	}
}

// editable is [trained], without the list that says what the model's files were.
func editable(t *testing.T) (*bench, string) {
	t.Helper()
	b, dir := trained(t)
	if err := os.Remove(filepath.Join(dir, "SHA256SUMS")); err != nil {
		t.Fatal(err)
	}
	return b, dir
}

// rules says how a model that is loaded with opts answers.
func rules(t *testing.T, b *bench, dir string, opts ...criteria.LoadOption) ([]criteria.Prediction, float64) {
	t.Helper()
	c, err := criteria.Load(t.Context(), dir, fakeOptions(b, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	threshold := c.Threshold()
	return predictions(t, c, nil), threshold
}

func TestDecisionRules(t *testing.T) {
	b, dir := editable(t)
	text, err := os.ReadFile(filepath.Join(dir, "decision.json"))
	if err != nil {
		t.Fatal(err)
	}
	var stored map[string]any
	if err := json.Unmarshal(text, &stored); err != nil || stored["split"] != "val" || stored["pairs"] != 18.0 {
		t.Errorf("decision.json: %s (%v)", text, err)
	}
	if stored["macro_f1"].(float64) < stored["macro_f1_untuned"].(float64) || stored["nll"].(float64) > stored["nll_uncalibrated"].(float64) {
		t.Errorf("decision.json makes things worse: %s", text)
	}
	// Figures of which it is known what must come of them.
	decision := `{"threshold": 0.6, "temperature": 2}`
	if err := os.WriteFile(filepath.Join(dir, "decision.json"), []byte(decision), 0o644); err != nil {
		t.Fatal(err)
	}
	plain, threshold := rules(t, b, dir)
	if threshold != 0.5 {
		t.Errorf("threshold %v without an option", threshold)
	}
	logit := func(p float64) float64 { return math.Log(p / (1 - p)) }
	logistic := func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	for name, tc := range map[string]struct {
		opts        []criteria.LoadOption
		threshold   float64 // of the probabilities that are returned
		temperature float64
	}{
		"threshold":                {[]criteria.LoadOption{criteria.WithThreshold(0.7)}, 0.7, 1},
		"tuned":                    {[]criteria.LoadOption{criteria.WithTunedThreshold()}, 0.6, 1},
		"calibrated":               {[]criteria.LoadOption{criteria.WithCalibration()}, 0.5, 2},
		"threshold and calibrated": {[]criteria.LoadOption{criteria.WithCalibration(), criteria.WithThreshold(0.7)}, 0.7, 2},
		"tuned and calibrated":     {[]criteria.LoadOption{criteria.WithTunedThreshold(), criteria.WithCalibration()}, logistic(logit(0.6) / 2), 2},
		"the last one":             {[]criteria.LoadOption{criteria.WithTunedThreshold(), criteria.WithThreshold(0.3)}, 0.3, 1},
		"the last one, tuned":      {[]criteria.LoadOption{criteria.WithThreshold(0.3), criteria.WithTunedThreshold()}, 0.6, 1},
	} {
		t.Run(name, func(t *testing.T) {
			want := slices.Clone(plain)
			for i := range want {
				want[i].Probability = logistic(logit(plain[i].Probability) / tc.temperature)
				want[i].Label = want[i].Probability > tc.threshold
			}
			got, threshold := rules(t, b, dir, tc.opts...)
			if diff := cmp.Diff(want, got, cmpopts.EquateApprox(0, 1e-9)); diff != "" || math.Abs(threshold-tc.threshold) > 1e-9 {
				t.Errorf("threshold %v, want %v; (-want +got):\n%s", threshold, tc.threshold, diff)
			}
		})
	}
	for content, want := range map[string]string{
		"":                                    "WithTunedThreshold",
		"{":                                   "decision.json",
		`{"threshold": 0, "temperature": 1}`:  "threshold 0",
		`{"threshold": 1, "temperature": 1}`:  "threshold 1",
		`{"threshold": 0.5}`:                  "temperature 0",
		`{"threshold":0.5,"temperature":1e9}`: "temperature 1e+09",
	} {
		path := filepath.Join(dir, "decision.json")
		err := os.WriteFile(path, []byte(content), 0o644)
		if content == "" {
			err = os.Remove(path)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, opt := range []criteria.LoadOption{criteria.WithTunedThreshold(), criteria.WithCalibration()} {
			if c, err := criteria.Load(t.Context(), dir, fakeOptions(b, opt)...); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("decision.json %q: %v, %v; want an error with %q", content, c, err, want)
			}
		}
		if _, threshold := rules(t, b, dir); threshold != 0.5 { // without the options nobody reads it
			t.Errorf("threshold %v", threshold)
		}
	}
}

func TestServingOptions(t *testing.T) {
	b, dir := trained(t)
	for name, opt := range map[string]criteria.LoadOption{
		"delay": criteria.WithMaxDelay(-1), "queue": criteria.WithMaxQueue(0), "threshold 0": criteria.WithThreshold(0),
		"threshold 1": criteria.WithThreshold(1), "threshold NaN": criteria.WithThreshold(math.NaN()),
	} {
		if c, err := criteria.Load(t.Context(), dir, fakeOptions(b, opt)...); !errors.Is(err, criteria.ErrInvalidOption) {
			t.Errorf("%s: %v, %v; want ErrInvalidOption", name, c, err)
		}
	}
}

// Lengths and numbers of pairs are those that doubling leads to.
func TestWarmup(t *testing.T) {
	b, dir := editable(t)
	var shapes [][2]int
	b.engine.Result = func(_ string, batch criteria.Batch, _ *criteria.BatchResult) {
		shapes = append(shapes, [2]int{batch.Rows, batch.Length})
	}
	config := filepath.Join(dir, "training_config.yaml")
	if err := os.WriteFile(config, []byte("model: {tokenizer: {max_length: 80}}"), 0o644); err != nil {
		t.Fatal(err)
	}
	load(t, b, dir, criteria.WithWarmup(), criteria.WithBatchSize(12))
	want := [][2]int{{1, 16}, {1, 32}, {1, 64}, {1, 80}, {2, 16}, {4, 16}, {8, 16}, {12, 16}}
	if diff := cmp.Diff(want, shapes); diff != "" {
		t.Errorf("shapes (-want +got):\n%s", diff)
	}
	broken := errors.New("broken")
	engine := &fakes.Engine{Before: func(op string) error {
		if op == "evaluate" {
			return broken
		}
		return nil
	}}
	if _, err := criteria.Load(t.Context(), dir, criteria.WithEngine(engine), criteria.WithTokenizer(&fakes.Tokenizer{}), criteria.WithWarmup()); !errors.Is(err, broken) {
		t.Errorf("error %v; want that of the engine", err)
	}
	if n := engine.OpenSessions(); n != 0 {
		t.Errorf("%d sessions are open", n)
	}
}

func TestExplain(t *testing.T) {
	b, dir := trained(t)
	c := load(t, b, dir)
	pair := criteria.Pair{Post: "word1  sign", Criterion: "criterion0"}
	e, err := c.Explain(t.Context(), pair)
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Predict(t.Context(), []criteria.Pair{pair})
	if err != nil || e.Prediction != p[0] {
		t.Errorf("prediction %+v, %v; Predict says %+v", e.Prediction, err, p)
	}
	if len(e.Tokens) != 3 {
		t.Fatalf("tokens %+v; want 3", e.Tokens)
	}
	score := e.Tokens[1].Score
	want := []criteria.TokenScore{
		{TokenSpan: criteria.TokenSpan{Start: 0, End: 5}, Text: "word1", Score: e.Tokens[0].Score},
		{TokenSpan: criteria.TokenSpan{Start: 7, End: 11}, Text: "sign", Score: score},
		{TokenSpan: criteria.TokenSpan{InCriterion: true, Start: 0, End: 10}, Text: "criterion0", Score: e.Tokens[2].Score},
	}
	if diff := cmp.Diff(want, e.Tokens); diff != "" || score <= 0 || score <= e.Tokens[0].Score {
		t.Errorf("tokens (-want +got):\n%s", diff)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Explain(t.Context(), pair); !errors.Is(err, criteria.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// plain hides what a session or a tokenizer can do beyond what it must.
type (
	plainEngine    struct{ criteria.Engine }
	plainSession   struct{ criteria.Session }
	plainTokenizer struct{ criteria.Tokenizer }
)

func (e plainEngine) Open(ctx context.Context, spec criteria.ModelSpec) (criteria.Session, error) {
	s, err := e.Engine.Open(ctx, spec)
	return plainSession{s}, err
}

func TestExplainUnsupported(t *testing.T) {
	b, dir := trained(t)
	for name, opt := range map[string]criteria.LoadOption{
		"engine": criteria.WithEngine(plainEngine{b.engine}), "tokenizer": criteria.WithTokenizer(plainTokenizer{&fakes.Tokenizer{}}),
	} {
		_, err := load(t, b, dir, opt).Explain(t.Context(), criteria.Pair{Post: "a", Criterion: "b"})
		if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v; want ErrUnsupported for the %s", err, name)
		}
	}
}
