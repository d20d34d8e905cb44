package criteria

import (
	"io/fs"
	"testing"

	"github.com/criteria-go/criteria/internal/memwatch"
)

// FuzzDecision: what is accepted gives probabilities and a threshold that are
// some.
func FuzzDecision(f *testing.F) {
	for _, text := range []string{
		`{"threshold": 0.5, "temperature": 1}`, `{"threshold": 1e-300, "temperature": 10}`, `{"threshold": 0.9999999999999999, "temperature": 0.1}`,
		`{"threshold": "0.5"}`, `{}`, `[]`, ``, `{"threshold": 1e999, "temperature": 1}`,
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		memwatch.Start(t, len(text))
		d, err := parseDecision("decision.json", []byte(text))
		if err != nil {
			return
		}
		r := rule{margin: logit(d.Threshold), temperature: d.Temperature}
		if p := r.probability(r.margin); !(p >= 0 && p <= 1) || !finite(r.margin) {
			t.Errorf("%s: threshold %v at margin %v", text, p, r.margin)
		}
		if high, low := r.predict([]float32{-1e30, 1e30}, false), r.predict([]float32{1e30, -1e30}, false); high.Probability != 1 || !high.Label || low.Probability != 0 || low.Label {
			t.Errorf("%s: %+v and %+v for logits beyond doubt", text, high, low)
		}
	})
}

// FuzzRunsURI: what is accepted stays inside of the run.
func FuzzRunsURI(f *testing.F) {
	for _, uri := range []string{"runs:/0123abcd/model", "runs:/0123abcd", "runs:/../x", "runs:/a/../b", "runs://a/b", "runs:/a//b", "runs:/a/.", "models:/x/1", "runs:/a/b\\..\\c"} {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		memwatch.Start(t, len(uri))
		id, artifact, err := parseRunsURI(uri)
		if err != nil {
			return
		}
		if !fs.ValidPath(id) || !fs.ValidPath(artifact) || artifact == "." || id == "." || len(id) > 256 {
			t.Errorf("%q: run %q, artifact %q", uri, id, artifact)
		}
	})
}
