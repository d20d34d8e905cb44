package engine

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/graphaudit"
	"github.com/criteria-go/criteria/internal/weights"
)

// exportCases are heads of every kind, and whether transformers has a class for
// the whole model.
var exportCases = []struct {
	name  string
	head  deberta.Head
	whole bool
}{
	{"cls", deberta.Head{Pooling: "cls"}, true},
	{"cls-relu-narrow", deberta.Head{Pooling: "cls", HiddenDims: []int{16}, Activation: "relu"}, true},
	{"cls-gelu-full", deberta.Head{Pooling: "cls", HiddenDims: []int{32}, Activation: "gelu"}, true},
	{"cls-tanh-wide", deberta.Head{Pooling: "cls", HiddenDims: []int{48}, Activation: "tanh"}, false},
	{"mean-gelu-2", deberta.Head{Pooling: "mean", HiddenDims: []int{16, 8}, Activation: "gelu"}, false},
	{"max-tanh", deberta.Head{Pooling: "max", HiddenDims: []int{16}, Activation: "tanh"}, false},
}

// savedCase trains the tiny checkpoint a little with a head, saves it and
// returns the folder, and what the engine says about batches of several shapes.
func savedCase(t *testing.T, head deberta.Head) (dir string, batches []Batch, logits [][]float32) {
	t.Helper()
	spec := trainingSpec(t, adamWFused)
	spec.Head = head
	e := openEngine(t, spec, true)
	train(t, e, 0, 3)
	dir = t.TempDir()
	if err := e.SaveModel(context.Background(), dir); err != nil {
		t.Fatal(err)
	}
	for i, shape := range [][2]int{{1, 2}, {1, 3}, {3, 17}, {4, 40}, {2, 130}} {
		b := randomBatch(uint64(i), shape[0], shape[1])
		r, err := e.Evaluate(context.Background(), b)
		if err != nil {
			t.Fatal(err)
		}
		batches, logits = append(batches, b), append(logits, r.Logits)
	}
	return dir, batches, logits
}

// asJSON writes batches for Python.
func asJSON(t *testing.T, batches []Batch) string {
	t.Helper()
	list := make([]map[string]any, len(batches))
	for i, b := range batches {
		list[i] = map[string]any{"shape": []int{b.Rows, b.Length}, "ids": b.InputIDs, "mask": b.AttentionMask}
	}
	text, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "batches.json")
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// fromPython runs a script that prints a JSON value as its last line.
func fromPython(t *testing.T, python, script string, result any, args ...string) {
	t.Helper()
	cmd := exec.Command(python, append([]string{"-c", script}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", python, err, &stderr)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), result); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
}

// compareLogits returns the largest difference, relative to the largest logit,
// and reports it if it exceeds the tolerance.
func compareLogits(t *testing.T, what string, want, got [][]float32, tolerance float64) float64 {
	t.Helper()
	a, b := slices.Concat(want...), slices.Concat(got...)
	if len(a) != len(b) {
		t.Errorf("%s: %d logits, want %d", what, len(b), len(a))
		return math.NaN()
	}
	var worst, largest float64
	for i := range a {
		worst = max(worst, math.Abs(float64(a[i])-float64(b[i])))
		largest = max(largest, math.Abs(float64(a[i])))
	}
	if !(worst <= tolerance*largest) {
		t.Errorf("%s: logits differ by %.3g, the largest is %.3g", what, worst, largest)
	}
	return worst / largest
}

// runONNX prints what onnxruntime finds in models and says about batches:
// arguments are a file of batches and a folder, as often as needed.
const runONNX = `
import json, sys, numpy, onnx, onnxruntime
describe = lambda values: [f"{v.name} {v.type} {v.shape}" for v in values]
results = []
for file, dir in zip(sys.argv[1::2], sys.argv[2::2]):
    path = dir + "/model.onnx"
    model = onnx.load(path)
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits = []
    for b in json.load(open(file)):
        feed = {"input_ids": b["ids"], "attention_mask": b["mask"], "token_type_ids": [0] * len(b["ids"])}
        feed = {k: numpy.array(v, numpy.int64).reshape(b["shape"]) for k, v in feed.items()}
        y, = session.run(None, feed)
        assert y.dtype == numpy.float32 and list(y.shape) == [b["shape"][0], 2], (y.dtype, y.shape)
        logits.append(y.flatten().tolist())
    results.append({
        "logits": logits,
        "inputs": describe(session.get_inputs()),
        "outputs": describe(session.get_outputs()),
        "metadata": session.get_modelmeta().custom_metadata_map,
        "domains": sorted({n.domain for n in model.graph.node}),
        "opset": [[o.domain, o.version] for o in model.opset_import],
    })
print(json.dumps(results))
`

// ranONNX is what runONNX prints for a model.
type ranONNX struct {
	Logits          [][]float32
	Inputs, Outputs []string
	Metadata        map[string]string
	Domains         []string
	Opset           [][2]any
}

// TestExportONNX has Python's onnxruntime run exported models: it must give our
// logits for batches of any shape. onnx.checker and a foreign decoder look at
// the files.
func TestExportONNX(t *testing.T) {
	python := os.Getenv("CRITERIA_ONNX_PYTHON")
	if python == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("CRITERIA_ONNX_PYTHON must name a Python with onnx and onnxruntime in CI")
		}
		t.Skip("CRITERIA_ONNX_PYTHON names no Python with onnx and onnxruntime (make mlflow-venv provides one)")
	}
	type export struct {
		name      string
		int8      bool
		want      [][]float32
		tolerance float64 // of the largest logit
	}
	var exports []export
	var args []string
	metadata := [][2]string{{"criteria.labels", `["absent","present"]`}}
	for _, c := range exportCases {
		dir, batches, want := savedCase(t, c.head)
		input := asJSON(t, batches)
		for _, variant := range []struct {
			name      string
			export    ONNXExport
			tolerance float64
		}{
			{"float32", ONNXExport{Metadata: metadata}, 1e-5},
			{"external data", ONNXExport{External: true, Metadata: metadata}, 1e-5},
			{"int8", ONNXExport{Int8: true, Metadata: metadata}, 0.25},
		} {
			name, out := c.name+" in "+variant.name, t.TempDir()
			if err := ExportONNX(context.Background(), dir, out, variant.export); err != nil {
				t.Fatal(err)
			}
			files := []string{exportedModel}
			if variant.export.External {
				files = append(files, externalData)
			}
			if diff := cmp.Diff(files, filesIn(t, out)); diff != "" {
				t.Errorf("%s: files (-want +got):\n%s", name, diff)
			}
			auditExport(t, name, dir, filepath.Join(out, exportedModel), variant.export.Int8)
			exports = append(exports, export{name, variant.export.Int8, want, variant.tolerance})
			args = append(args, input, out)
		}
	}
	var results []ranONNX
	fromPython(t, python, runONNX, &results, args...)
	if len(results) != len(exports) {
		t.Fatalf("%d results, want %d", len(results), len(exports))
	}
	for i, e := range exports {
		got := results[i]
		worst := compareLogits(t, e.name, e.want, got.Logits, e.tolerance)
		t.Logf("%s: logits within %.2g of the largest", e.name, worst)
		if e.int8 && worst < 1e-5 {
			t.Errorf("%s: eight bits change nothing, so they are not in use", e.name)
		}
		got.Logits = nil
		if diff := cmp.Diff(ranONNX{
			Inputs: []string{"input_ids tensor(int64) ['batch', 'sequence']",
				"attention_mask tensor(int64) ['batch', 'sequence']", "token_type_ids tensor(int64) ['batch', 'sequence']"},
			Outputs:  []string{"logits tensor(float) ['batch', 2]"},
			Metadata: map[string]string{"criteria.labels": `["absent","present"]`},
			Domains:  []string{""},
			Opset:    [][2]any{{"", 20.0}},
		}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", e.name, diff)
		}
	}
}

// auditExport compares an export with what the foreign decoder reads.
func auditExport(t *testing.T, what, dir, path string, int8 bool) {
	t.Helper()
	m, err := openSaved(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.file.Close()
	model, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	report, err := graphaudit.Audit(model)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	_, cost, err := graphaudit.Inspect(model, map[string]int{"batch": 2, "sequence": 70})
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if len(cost.Unknown) > 0 {
		t.Errorf("%s: shapes that could not be followed: %v", what, cost.Unknown)
	}
	elements := 0
	for _, p := range m.Params() {
		elements += p.Size()
		if int8 && slices.Contains(report.Initializers, p.Name+".scale") {
			elements += p.Shape[0]
		}
	}
	if cost.Parameters != elements {
		t.Errorf("%s: %d parameters found, want %d", what, cost.Parameters, elements)
	}
	if diff := cmp.Diff(m.Inference(nil, int8).Census(), report.Census); diff != "" {
		t.Errorf("%s: operators (-planned +read):\n%s", what, diff)
	}
	if diff := cmp.Diff([]string{"input_ids", "attention_mask", "token_type_ids"}, report.Inputs); diff != "" {
		t.Errorf("%s: inputs (-want +read):\n%s", what, diff)
	}
	for _, p := range m.Params() {
		if !slices.Contains(report.Initializers, p.Name) && !(int8 && slices.Contains(report.Initializers, p.Name+".int8")) {
			t.Errorf("%s: parameter %s is not in the file", what, p.Name)
		}
	}
}

func filesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestExportSizes: eight bits take a quarter of the room.
func TestExportSizes(t *testing.T) {
	dir, _, _ := savedCase(t, deberta.Head{Pooling: "cls"})
	size := func(o ONNXExport) int64 {
		out := t.TempDir()
		if err := ExportONNX(context.Background(), dir, out, o); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(out, exportedModel))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	whole, small := size(ONNXExport{}), size(ONNXExport{Int8: true})
	if small*2 > whole {
		t.Errorf("%d bytes in float32, %d in int8", whole, small)
	}
}

// TestExportTransformersFiles: the names and shapes that transformers asks for.
func TestExportTransformersFiles(t *testing.T) {
	for _, c := range exportCases {
		t.Run(c.name, func(t *testing.T) {
			dir, _, _ := savedCase(t, c.head)
			out := t.TempDir()
			class, err := ExportTransformers(context.Background(), dir, out)
			if err != nil {
				t.Fatal(err)
			}
			wantClass, wantFiles := "DebertaV2Model", []string{configFile, headFile, weightsFile}
			if c.whole {
				wantClass, wantFiles = "DebertaV2ForSequenceClassification", []string{configFile, weightsFile}
			}
			if class != wantClass {
				t.Errorf("class %s, want %s", class, wantClass)
			}
			if diff := cmp.Diff(wantFiles, filesIn(t, out)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			file, err := weights.Open(out)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			prefixes := map[string]int{}
			for _, name := range file.Names() {
				prefix, _, _ := strings.Cut(name, ".")
				prefixes[prefix]++
			}
			want := []string{"embeddings", "encoder"}
			if c.whole {
				want = []string{"classifier", "deberta", "pooler"}
			}
			if diff := cmp.Diff(want, slices.Sorted(maps.Keys(prefixes))); diff != "" {
				t.Errorf("prefixes of the names (-want +got):\n%s", diff)
			}
		})
	}
}

func TestExportFails(t *testing.T) {
	ctx := context.Background()
	if err := ExportONNX(ctx, tinyDir(t), t.TempDir(), ONNXExport{}); !errors.Is(err, ErrNoHead) {
		t.Errorf("an encoder without a head: error %v, want %v", err, ErrNoHead)
	}
	dir, _, _ := savedCase(t, deberta.Head{Pooling: "cls"})
	out := t.TempDir()
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if err := ExportONNX(canceled, dir, out, ONNXExport{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: error %v", err)
	}
	if _, err := ExportTransformers(canceled, dir, out); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: error %v", err)
	}
	if left := filesIn(t, out); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	// A model of other weights than its config.json asks for.
	config, err := os.ReadFile(filepath.Join(dir, configFile))
	if err != nil {
		t.Fatal(err)
	}
	wrong := strings.Replace(string(config), `"intermediate_size": 64`, `"intermediate_size": 65`, 1)
	if err := os.WriteFile(filepath.Join(dir, configFile), []byte(wrong), 0o644); err != nil {
		t.Fatal(err)
	}
	var weight *WeightError
	if err := ExportONNX(ctx, dir, out, ONNXExport{}); !errors.As(err, &weight) {
		t.Errorf("weights of another model: error %v, want a WeightError", err)
	}
}
