package criteria_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/metrics"
	"github.com/criteria-go/criteria/internal/mlflow"
	"github.com/criteria-go/criteria/internal/mlflow/mlflowtest"
	"github.com/criteria-go/criteria/internal/report"
)

// TestMLflowPage opens a tracked training in MLflow's pages, as people do, and
// looks at what they see: the overview, the charts and the confusion matrix.
// CRITERIA_PICTURES names a folder to keep the pictures in.
func TestMLflowPage(t *testing.T) {
	chromium := findChromium(t)
	mlflowtest.Python(t)
	dir := t.TempDir()
	t.Chdir(dir)
	experiment, run := trackExample(t, "sqlite:///mlflow.db")
	server := mlflowtest.StartServer(t, mlflowtest.ServerOptions{Dir: dir})
	server.Wait(t)
	browser := startBrowser(t, chromium)
	browser.prepare(t, server.URL)

	for _, c := range []struct {
		name, path string
		search     string   // typed into the search field
		want       []string // texts
		picture    string   // selector of what must be drawn
	}{
		{"overview", "", "", []string{
			"deberta-v3-small", "Finished", "Fine-tuning of microsoft/deberta-v3-small on the fictional sample.", // name, status, description
			"val_macro_f1", "train.scheduler", "linear", "sample", "stage", // metric, parameter, dataset, tag
		}, ""},
		{"charts", "/model-metrics", "(train|val)_(loss|accuracy|macro_f1)", []string{"(6)", "train_loss", "train_macro_f1", "val_loss", "val_macro_f1"}, ".js-plotly-plot"},
		{"confusion_matrix", "/artifacts/confusion_matrix.png", "", []string{
			"confusion_matrix.png", "training_curves.png", "classification_report.json", "model", "config",
		}, "img[src*='confusion_matrix'], img[src^='blob:'], img[src^='data:image/png']"},
	} {
		t.Run(c.name, func(t *testing.T) {
			shot := browser.open(t, server.URL+"/#/experiments/"+experiment+"/runs/"+run+c.path+"?workflowType=machine_learning", c.search, c.want, c.picture)
			if kept := os.Getenv("CRITERIA_PICTURES"); kept != "" {
				if err := os.WriteFile(filepath.Join(kept, "mlflow_"+c.name+".png"), shot, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestMLflowPageFails makes sure that the look at a page can fail: by an error
// page and by an empty one.
func TestMLflowPageFails(t *testing.T) {
	if why := complaint("Page Not Found\nGo back to the home page."); why == "" {
		t.Error("an error page passes")
	}
	if why := complaint("Overview\nStatus\nFinished\nval_errors"); why != "" {
		t.Error(why)
	}
	blank := image.NewNRGBA(image.Rect(0, 0, 400, 300))
	for x := range 400 {
		blank.Set(x, 20, color.Black)
		blank.Set(x, 150, color.White)
	}
	if drawn(blank, blank.Bounds()) {
		t.Error("an empty picture passes")
	}
}

// trackExample records what a training of eight epochs does and returns the
// IDs of its experiment and of itself.
func trackExample(t *testing.T, uri string) (experiment, id string) {
	t.Helper()
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	tracker, err := criteria.NewMLflowTracker(criteria.WithTrackingURI(uri), criteria.WithExperiment("debertav3-criteria"), criteria.WithSystemMetrics(0))
	check(err)
	config := criteria.DefaultConfig()
	config.Model.Checkpoint = "microsoft/deberta-v3-small"
	info := criteria.RunInfo{
		Name: "deberta-v3-small, seed 42", Started: time.Now().Add(-8 * time.Minute), Dir: t.TempDir(),
		Description: "Fine-tuning of microsoft/deberta-v3-small on the fictional sample.",
		Tags:        map[string]string{"stage": "train", "git.commit": strings.Repeat("0af1", 10), "git.branch": "main", "git.dirty": "false", "version.go": "go1.26"},
		Params: map[string]string{
			"model.checkpoint": config.Model.Checkpoint, "model.head.pooling_strategy": "cls", "train.seed": "42", "train.epochs": "8",
			"train.batch_size": "16", "train.learning_rate": "2e-05", "train.scheduler": "linear", "train.use_amp": "True",
		},
	}
	for i, split := range []string{"train", "val", "test"} {
		info.Datasets = append(info.Datasets, criteria.DatasetInfo{
			Name: "sample", Context: split, Digest: fmt.Sprintf("%x", sha256.Sum256([]byte(split))), Source: "testdata/sample", Rows: []int{288, 36, 36}[i],
		})
	}
	run, err := tracker.Start(ctx, info)
	check(err)
	check(run.LogArtifact(ctx, "config/config.yaml", bytes.NewReader(config.YAML())))

	trainLoss := []float64{0.668, 0.571, 0.442, 0.331, 0.262, 0.214, 0.187, 0.171}
	valLoss := []float64{0.622, 0.508, 0.411, 0.352, 0.329, 0.321, 0.328, 0.331}
	trainF1 := []float64{0.521, 0.688, 0.793, 0.861, 0.902, 0.927, 0.941, 0.948}
	valF1 := []float64{0.566, 0.702, 0.781, 0.829, 0.847, 0.861, 0.858, 0.855}
	var epochs []report.Epoch
	for i := range trainLoss {
		check(run.LogMetrics(ctx, i+1, map[string]float64{
			"train_loss": trainLoss[i], "train_macro_f1": trainF1[i], "train_weighted_f1": trainF1[i] + 0.021, "train_accuracy": trainF1[i] + 0.024,
			"val_loss": valLoss[i], "val_macro_f1": valF1[i], "val_weighted_f1": valF1[i] + 0.018, "val_accuracy": valF1[i] + 0.022,
		}))
		epochs = append(epochs, report.Epoch{Number: i + 1, TrainLoss: trainLoss[i], ValLoss: valLoss[i], TrainF1: trainF1[i], ValF1: valF1[i]})
	}
	confusion := metrics.Confusion{{22, 2}, {3, 9}}
	check(run.LogMetrics(ctx, len(epochs), map[string]float64{
		"test_loss": 0.334, "test_macro_f1": 0.840, "test_weighted_f1": 0.860, "test_accuracy": 0.861, "test_precision": 0.818, "test_recall": 0.750,
	}))
	matrix, err := report.ConfusionMatrix("Test split: macro-F1 0.840, accuracy 0.861", [][]int{confusion[0][:], confusion[1][:]}, []string{"absent (0)", "present (1)"})
	check(err)
	curves, err := report.TrainingCurves("Training of microsoft/deberta-v3-small", epochs, 6)
	check(err)
	scores, err := json.MarshalIndent(confusion.Report(), "", "  ")
	check(err)
	for name, content := range map[string][]byte{
		"confusion_matrix.png": matrix, "training_curves.png": curves, "classification_report.json": scores,
		"model/config.json": []byte(`{"model_type": "deberta-v2"}`), "model/README.md": []byte("# A model\n"),
	} {
		check(run.LogArtifact(ctx, name, bytes.NewReader(content)))
	}
	check(run.End(ctx, criteria.RunFinished))

	store, err := mlflow.Open(ctx, uri, mlflow.Options{})
	check(err)
	experiment, err = store.EnsureExperiment(ctx, "debertav3-criteria")
	check(err)
	check(store.Close())
	return experiment, run.ID()
}

func findChromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const message = "chromium is not installed: nobody looked at MLflow's pages (Debian's package is chromium)"
	if os.Getenv("CI") == "true" {
		t.Fatal(message)
	}
	t.Skip(message)
	return ""
}

type browser struct{ ctx context.Context }

// startBrowser starts a browser that sees nothing but this machine and ends
// with the test.
func startBrowser(t *testing.T, chromium string) browser {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium),
		chromedp.NoSandbox, // root, as in most containers, has none
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
		chromedp.WindowSize(1300, 1140),
		// A mouse: without one, charts are covered by their buttons.
		chromedp.Flag("blink-settings", "primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4"),
	)
	ctx, stop := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(stop)
	ctx, closeTab := chromedp.NewContext(ctx)
	t.Cleanup(closeTab) // and the browser, and removes its fresh profile
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal("start chromium: ", err)
	}
	return browser{ctx}
}

// prepare keeps the assistant of MLflow's pages out of the way.
func (b browser) prepare(t *testing.T, url string) {
	t.Helper()
	if err := chromedp.Do(b.ctx, chromedp.Navigate(url+"/health")); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool]("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true'), true")); err != nil {
		t.Fatal(err)
	}
}

// open loads a page, waits until it shows all texts in want and has drawn what
// the selector names, and returns its picture.
func (b browser) open(t *testing.T, url, search string, want []string, selector string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 3*time.Minute)
	defer cancel()
	// A page that differs only behind the # would not be loaded anew.
	if err := chromedp.Do(ctx, chromedp.Navigate("about:blank"), chromedp.Navigate(url)); err != nil {
		t.Fatal(err)
	}
	if search != "" {
		if err := chromedp.Do(ctx, chromedp.SendKeys(chromedp.CSS("input[placeholder^=Search]"), search)); err != nil {
			t.Fatal("the search field: ", err)
		}
	}
	var last string
	for why := "the page is not there"; ; {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %s\nThe page says:\n%s", url, why, last)
		case <-time.After(500 * time.Millisecond):
		}
		text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body.innerText"))
		if err != nil {
			t.Fatalf("%v, while %s\nThe page says:\n%s", err, why, last)
		}
		last = text
		if why = complaint(text, want...); why != "" {
			continue
		}
		shot, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		if selector == "" {
			return shot
		}
		box, err := chromedp.Run(ctx, chromedp.Evaluate[[4]int](fmt.Sprintf(boxOf, selector)))
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(bytes.NewReader(shot))
		if err != nil {
			t.Fatal(err)
		}
		if drawn(img, image.Rect(box[0], box[1], box[2], box[3])) {
			return shot
		}
		why = fmt.Sprintf("nothing is drawn at %s, %v", selector, box)
	}
}

// boxOf finds the first visible element of some size that a selector names.
const boxOf = `(() => {
	const boxes = [...document.querySelectorAll(%q)].map(e => e.getBoundingClientRect());
	const b = boxes.find(b => b.width >= 100 && b.height >= 100);
	return b ? [b.left, b.top, b.right, b.bottom].map(Math.round) : [0, 0, 0, 0];
})()`

// complaint says what is wrong with the text of a page.
func complaint(text string, want ...string) string {
	for _, bad := range []string{"Page Not Found", "Something went wrong", "Resource not found", "RESOURCE_DOES_NOT_EXIST", "INTERNAL_ERROR", "Internal Server Error", "Loading artifact failed", "failed to load"} {
		if strings.Contains(text, bad) {
			return "an error page: " + bad
		}
	}
	for _, w := range want {
		if !strings.Contains(text, w) {
			return fmt.Sprintf("the page does not show %q", w)
		}
	}
	return ""
}

// drawn reports whether there is more in a part of a picture than a frame and a
// word: lines and their edges have many colors.
func drawn(img image.Image, part image.Rectangle) bool {
	colors := make(map[color.Color]bool)
	part = part.Intersect(img.Bounds())
	for x := part.Min.X + part.Dx()/8; x < part.Max.X-part.Dx()/8; x++ {
		for y := part.Min.Y + part.Dy()/8; y < part.Max.Y-part.Dy()/8; y++ {
			colors[img.At(x, y)] = true
		}
	}
	return len(colors) >= 20
}
