package metrics_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/golden"
	"github.com/criteria-go/criteria/internal/metrics"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

type goldenCase struct {
	ID                int             `json:"id"`
	Name              string          `json:"name"`
	Labels            []int           `json:"y_true"`
	Predictions       []int           `json:"y_pred"`
	Scores            []float64       `json:"score"`
	Accuracy          float64         `json:"accuracy"`
	Precision         float64         `json:"precision"`
	Recall            float64         `json:"recall"`
	F1                float64         `json:"f1"`
	MacroPrecision    float64         `json:"macro_precision"`
	MacroRecall       float64         `json:"macro_recall"`
	MacroF1           float64         `json:"macro_f1"`
	MacroPrecisionAll float64         `json:"macro_precision_labels01"`
	MacroRecallAll    float64         `json:"macro_recall_labels01"`
	MacroF1All        float64         `json:"macro_f1_labels01"`
	WeightedF1        float64         `json:"weighted_f1"`
	MCC               float64         `json:"mcc"`
	ROCAUC            *float64        `json:"roc_auc"`
	Confusion         [][]int         `json:"confusion_matrix"`
	ConfusionAll      [][]int         `json:"confusion_matrix_labels01"`
	ReportAll         json.RawMessage `json:"classification_report_labels01"`
	ReportTextAll     string          `json:"classification_report_text_labels01"`
}

var near = cmpopts.EquateApprox(0, 1e-12)

func TestGoldenMetrics(t *testing.T) {
	text, err := os.ReadFile(golden.Glob(t, "model/metrics.json")[0])
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Cases []goldenCase `json:"cases"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) == 0 {
		t.Fatal("no golden cases")
	}
	for _, g := range file.Cases {
		t.Run(fmt.Sprintf("%d_%s", g.ID, strings.ReplaceAll(g.Name, " ", "_")), func(t *testing.T) {
			c, err := metrics.Count(g.Labels, g.Predictions)
			if err != nil {
				t.Fatal(err)
			}
			one, both, present := c.Class(1), c.Macro(), c.MacroOver(c.Present())
			want := map[string]float64{
				"accuracy": g.Accuracy, "precision": g.Precision, "recall": g.Recall, "f1": g.F1,
				"macro precision, both": g.MacroPrecisionAll, "macro recall, both": g.MacroRecallAll, "macro F1, both": g.MacroF1All,
				"macro precision, present": g.MacroPrecision, "macro recall, present": g.MacroRecall, "macro F1, present": g.MacroF1,
				"weighted F1": g.WeightedF1, "MCC": g.MCC,
			}
			got := map[string]float64{
				"accuracy": c.Accuracy(), "precision": one.Precision, "recall": one.Recall, "f1": one.F1,
				"macro precision, both": both.Precision, "macro recall, both": both.Recall, "macro F1, both": both.F1,
				"macro precision, present": present.Precision, "macro recall, present": present.Recall, "macro F1, present": present.F1,
				"weighted F1": c.Weighted().F1, "MCC": c.MCC(),
			}
			if auc, ok := metrics.ROCAUC(g.Labels, g.Scores); ok {
				got["ROC AUC"] = auc
			}
			if g.ROCAUC != nil {
				want["ROC AUC"] = *g.ROCAUC
			}
			if diff := cmp.Diff(want, got, near); diff != "" {
				t.Errorf("scores (-want +got):\n%s", diff)
			}

			if diff := cmp.Diff(g.ConfusionAll, [][]int{c[0][:], c[1][:]}); diff != "" {
				t.Errorf("confusion matrix (-want +got):\n%s", diff)
			}
			var of [][]int
			for _, i := range c.Present() {
				var row []int
				for _, j := range c.Present() {
					row = append(row, c[i][j])
				}
				of = append(of, row)
			}
			if diff := cmp.Diff(g.Confusion, of); diff != "" {
				t.Errorf("confusion matrix of the classes that are there (-want +got):\n%s", diff)
			}

			report, err := json.Marshal(c.Report())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(parse(t, g.ReportAll), parse(t, report), near); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
			// scikit-learn prints counts as 7.0 when no prediction is right.
			if diff := cmp.Diff(strings.Fields(strings.ReplaceAll(g.ReportTextAll, ".0\n", "\n")), strings.Fields(c.Report().String())); diff != "" {
				t.Errorf("report as text (-want +got):\n%s", diff)
			}
		})
	}
}

func parse(t *testing.T, text []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestReportKeysAreInOrder(t *testing.T) {
	text, err := json.Marshal(metrics.Confusion{{3, 1}, {2, 4}}.Report())
	if err != nil {
		t.Fatal(err)
	}
	at := -1
	for _, key := range []string{`"0"`, `"1"`, `"accuracy"`, `"macro avg"`, `"weighted avg"`} {
		next := strings.Index(string(text), key)
		if next <= at {
			t.Fatalf("key %s is missing or out of order in %s", key, text)
		}
		at = next
	}
}

func TestCountRefuses(t *testing.T) {
	for name, c := range map[string]struct{ labels, predictions []int }{
		"lengths":    {[]int{0, 1}, []int{0}},
		"label":      {[]int{2}, []int{0}},
		"prediction": {[]int{0}, []int{-1}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := metrics.Count(c.labels, c.predictions); err == nil {
				t.Error("no error")
			}
		})
	}
}

func TestNothingToScore(t *testing.T) {
	var c metrics.Confusion
	r := c.Report()
	for name, v := range map[string]float64{"accuracy": r.Accuracy, "macro": r.Macro.F1, "weighted": r.Weighted.F1, "MCC": c.MCC(), "present": c.MacroOver(c.Present()).F1} {
		if v != 0 {
			t.Errorf("%s of no examples: got %v, want 0", name, v)
		}
	}
	if _, ok := metrics.ROCAUC(nil, nil); ok {
		t.Error("ROC AUC of no examples is defined")
	}
	if _, ok := metrics.ROCAUC([]int{0, 1}, []float64{0, math.NaN()}); ok {
		t.Error("ROC AUC of NaN is defined")
	}
}

// TestROCAUCTies compares with the definition: pairs won plus half the ties.
func TestROCAUCTies(t *testing.T) {
	labels := []int{0, 1, 0, 1, 1, 0, 0}
	scores := []float64{.5, .5, .2, .5, .9, .9, .1}
	var won, pairs float64
	for i := range labels {
		for j := range labels {
			if labels[i] != 1 || labels[j] != 0 {
				continue
			}
			pairs++
			switch {
			case scores[i] > scores[j]:
				won++
			case scores[i] == scores[j]:
				won += 0.5
			}
		}
	}
	got, ok := metrics.ROCAUC(labels, scores)
	if diff := cmp.Diff(won/pairs, got, near); !ok || diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
