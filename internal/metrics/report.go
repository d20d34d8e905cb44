package metrics

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Report is scikit-learn's classification_report. As JSON it has the keys "0",
// "1", "accuracy", "macro avg" and "weighted avg", in this order.
type Report struct {
	Classes  [2]Scores
	Accuracy float64
	Macro    Scores
	Weighted Scores
}

// Report returns the classification report.
func (c Confusion) Report() Report {
	return Report{
		Classes:  [2]Scores{c.Class(0), c.Class(1)},
		Accuracy: c.Accuracy(),
		Macro:    c.Macro(),
		Weighted: c.Weighted(),
	}
}

// MarshalJSON writes the shape of output_dict=True; supports are counts, which
// scikit-learn writes as floats.
func (r Report) MarshalJSON() ([]byte, error) {
	type row struct {
		Precision float64 `json:"precision"`
		Recall    float64 `json:"recall"`
		F1        float64 `json:"f1-score"`
		Support   int     `json:"support"`
	}
	rowOf := func(s Scores) row { return row(s) }
	return json.Marshal(struct {
		Zero     row     `json:"0"`
		One      row     `json:"1"`
		Accuracy float64 `json:"accuracy"`
		Macro    row     `json:"macro avg"`
		Weighted row     `json:"weighted avg"`
	}{rowOf(r.Classes[0]), rowOf(r.Classes[1]), r.Accuracy, rowOf(r.Macro), rowOf(r.Weighted)})
}

// String lays the report out as scikit-learn prints it.
func (r Report) String() string {
	var b strings.Builder
	row := func(name string, s Scores) {
		fmt.Fprintf(&b, "%12s %10.2f %9.2f %9.2f %9d\n", name, s.Precision, s.Recall, s.F1, s.Support)
	}
	fmt.Fprintf(&b, "%12s %10s %9s %9s %9s\n\n", "", "precision", "recall", "f1-score", "support")
	row("0", r.Classes[0])
	row("1", r.Classes[1])
	fmt.Fprintf(&b, "\n%12s %10s %9s %9.2f %9d\n", "accuracy", "", "", r.Accuracy, r.Macro.Support)
	row("macro avg", r.Macro)
	row("weighted avg", r.Weighted)
	return b.String()
}
