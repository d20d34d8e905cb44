package criteria

import (
	"github.com/criteria-go/criteria/internal/metrics"
)

// Scores says how well a model does on a split.
type Scores struct {
	Loss       float64 `json:"loss"`        // class-weighted mean cross-entropy
	Accuracy   float64 `json:"accuracy"`    // share of the pairs that are right
	MacroF1    float64 `json:"macro_f1"`    // mean of the F1 of both classes
	WeightedF1 float64 `json:"weighted_f1"` // the same, weighted by their frequency
	Precision  float64 `json:"precision"`   // of class 1
	Recall     float64 `json:"recall"`      // of class 1
}

// EpochScores are the scores of one epoch. Those of the training split come
// from the passes that trained, with dropout and with weights that changed
// from batch to batch.
type EpochScores struct {
	Epoch int    `json:"epoch"` // from 1
	Train Scores `json:"train"`
	Val   Scores `json:"val"`
}

// tally sums up batches. It is all that is needed to score a split, and small
// enough to be saved in the middle of an epoch.
type tally struct {
	LossSum   float64           `json:"loss_sum"`   // Σ wᵢ·nllᵢ
	WeightSum float64           `json:"weight_sum"` // Σ wᵢ
	Confusion metrics.Confusion `json:"confusion"`  // [label][prediction]
}

// add counts a batch. The loss of a batch is a weighted mean, so it is weighed
// by its weights: the loss of a split does not depend on how it was batched.
func (t *tally) add(b Batch, r BatchResult) {
	var weight float64
	for i, w := range b.SampleWeights {
		weight += float64(w)
		t.Confusion[b.Labels[i]][argmax(r.Logits[2*i:2*i+2])]++
	}
	t.LossSum += r.Loss * weight
	t.WeightSum += weight
}

func (t *tally) scores() Scores {
	c := t.Confusion
	return Scores{
		Loss: t.LossSum / t.WeightSum, Accuracy: c.Accuracy(), MacroF1: c.Macro().F1, WeightedF1: c.Weighted().F1,
		Precision: c.Class(1).Precision, Recall: c.Class(1).Recall,
	}
}

// argmax of the two logits; class 0 on a tie, as NumPy has it.
func argmax(logits []float32) int {
	if logits[1] > logits[0] {
		return 1
	}
	return 0
}

// addTo adds the scores as metrics, under the names that the tracking contract
// gives them. Precision and recall are recorded for the test split only.
func (s Scores) addTo(metrics map[string]float64, prefix string, all bool) {
	metrics[prefix+"loss"] = s.Loss
	metrics[prefix+"accuracy"] = s.Accuracy
	metrics[prefix+"macro_f1"] = s.MacroF1
	metrics[prefix+"weighted_f1"] = s.WeightedF1
	if all {
		metrics[prefix+"precision"] = s.Precision
		metrics[prefix+"recall"] = s.Recall
	}
}
