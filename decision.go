package criteria

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"github.com/criteria-go/criteria/internal/metrics"
)

// decisionFile is in best_model: what the validation split says about turning
// the model's logits into answers.
const decisionFile = "decision.json"

// decision is the content of [decisionFile].
type decision struct {
	Split string `json:"split"` // from which the rest is
	Pairs int    `json:"pairs"`
	// Threshold is the probability, as the model gives it, above which a pair is
	// to be labelled true so that macro-F1 is highest.
	Threshold       float64 `json:"threshold"`
	MacroF1         float64 `json:"macro_f1"`         // with that threshold
	MacroF1Untuned  float64 `json:"macro_f1_untuned"` // with 0.5
	Temperature     float64 `json:"temperature"`      // by which logits are divided for the least NLL
	NLL             float64 `json:"nll"`              // mean negative log-likelihood with that temperature
	NLLUncalibrated float64 `json:"nll_uncalibrated"` // with 1
}

// margins are what a decision is made from: the differences of the logits of a
// split, and its labels.
type margins struct {
	values []float64
	labels []int
}

func (m *margins) add(b Batch, r BatchResult) {
	for i, label := range b.Labels {
		m.values = append(m.values, float64(r.Logits[2*i+1])-float64(r.Logits[2*i]))
		m.labels = append(m.labels, int(label))
	}
}

func (m *margins) decide(split Phase) (decision, error) {
	threshold, f1, err := metrics.BestThreshold(m.values, m.labels)
	if err != nil {
		return decision{}, err
	}
	temperature, err := metrics.Temperature(m.values, m.labels)
	if err != nil {
		return decision{}, err
	}
	var untuned metrics.Confusion
	for i, value := range m.values {
		predicted := 0
		if value > 0 {
			predicted = 1
		}
		untuned[m.labels[i]][predicted]++
	}
	return decision{
		Split: string(split), Pairs: len(m.values),
		Threshold: threshold, MacroF1: f1, MacroF1Untuned: untuned.Macro().F1,
		Temperature: temperature,
		NLL:         metrics.NLL(m.values, m.labels, temperature), NLLUncalibrated: metrics.NLL(m.values, m.labels, 1),
	}, nil
}

func (d decision) write(dir string) error {
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, decisionFile), append(text, '\n'), 0o644)
}

// readDecision reads what a training stored.
func readDecision(dir string) (decision, error) {
	path := filepath.Join(dir, decisionFile)
	text, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return decision{}, fmt.Errorf("criteria: load: WithTunedThreshold and WithCalibration need %s, which this version of the library stores when it trains: train again, or leave these options out: %w", decisionFile, err)
	}
	if err != nil {
		return decision{}, fmt.Errorf("criteria: load: %w", err)
	}
	return parseDecision(path, text)
}

func parseDecision(path string, text []byte) (decision, error) {
	var d decision
	if err := json.Unmarshal(text, &d); err != nil {
		return decision{}, fmt.Errorf("criteria: load %s: %w", path, err)
	}
	if !(d.Threshold > 0 && d.Threshold < 1) || !(d.Temperature >= metrics.MinTemperature && d.Temperature <= metrics.MaxTemperature) {
		return decision{}, fmt.Errorf("criteria: load %s: found threshold %v and temperature %v, want a number between 0 and 1 and one from %v to %v",
			path, d.Threshold, d.Temperature, metrics.MinTemperature, metrics.MaxTemperature)
	}
	return d, nil
}

// rule follows the options with which a model is loaded.
func (s serving) rule(dir string) (rule, error) {
	r := rule{temperature: 1}
	if !s.tuned && !s.calibrated {
		r.margin = logit(s.threshold)
		return r, nil
	}
	d, err := readDecision(dir)
	if err != nil {
		return rule{}, err
	}
	if s.calibrated {
		r.temperature = d.Temperature
	}
	if s.tuned {
		r.margin = logit(d.Threshold)
	} else {
		r.margin = logit(s.threshold) * r.temperature
	}
	return r, nil
}

// logit is the inverse of the logistic function; logit(0.5) is exactly 0.
func logit(p float64) float64 { return math.Log(p / (1 - p)) }
