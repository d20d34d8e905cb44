// Package metrics scores a binary classifier. The definitions are those of
// scikit-learn with zero_division=0: a ratio whose denominator is zero is 0.
//
// Averages over classes run over both classes, always. (scikit-learn leaves
// out a class that occurs neither among the labels nor among the predictions,
// so that a model which answers 0 to a test set of zeros scores a macro-F1 of
// 1; asked for labels=[0, 1] it computes what this package does. The first
// form is [Confusion.Present].)
package metrics

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/stat"
)

// Confusion counts examples: Confusion[label][prediction].
type Confusion [2][2]int

// Count compares labels with predictions, both 0 or 1 and of one length.
func Count(labels, predictions []int) (Confusion, error) {
	var c Confusion
	if len(labels) != len(predictions) {
		return c, fmt.Errorf("metrics: found %d labels and %d predictions, want as many of each", len(labels), len(predictions))
	}
	for i, l := range labels {
		p := predictions[i]
		if l < 0 || l > 1 || p < 0 || p > 1 {
			return c, fmt.Errorf("metrics: example %d: found label %d and prediction %d, want 0 or 1", i, l, p)
		}
		c[l][p]++
	}
	return c, nil
}

// Total returns the number of examples.
func (c Confusion) Total() int { return c[0][0] + c[0][1] + c[1][0] + c[1][1] }

// Support returns the number of examples with that label.
func (c Confusion) Support(class int) int { return c[class][0] + c[class][1] }

// Predicted returns the number of examples with that prediction.
func (c Confusion) Predicted(class int) int { return c[0][class] + c[1][class] }

// Accuracy is the share of examples predicted right.
func (c Confusion) Accuracy() float64 { return ratio(c[0][0]+c[1][1], c.Total()) }

// Scores are the scores of one class, or averages over classes.
type Scores struct {
	Precision float64 // of those predicted to be of the class, the share that is
	Recall    float64 // of those of the class, the share that is predicted so
	F1        float64 // harmonic mean of the two, 2·TP/(2·TP+FP+FN)
	Support   int     // examples with the label
}

// Class returns the scores of one class. Those of class 1 are what is usually
// meant by "the" precision and recall of a binary classifier.
func (c Confusion) Class(class int) Scores {
	hit := c[class][class]
	return Scores{
		Precision: ratio(hit, c.Predicted(class)),
		Recall:    ratio(hit, c.Support(class)),
		F1:        ratio(2*hit, c.Support(class)+c.Predicted(class)),
		Support:   c.Support(class),
	}
}

// Macro averages over both classes, each counting the same.
func (c Confusion) Macro() Scores { return c.average([]int{0, 1}, nil) }

// Weighted averages over both classes, each counting by its support.
func (c Confusion) Weighted() Scores {
	return c.average([]int{0, 1}, []float64{float64(c.Support(0)), float64(c.Support(1))})
}

// Present lists the classes that occur among labels or predictions.
func (c Confusion) Present() []int {
	return slices.DeleteFunc([]int{0, 1}, func(k int) bool { return c.Support(k)+c.Predicted(k) == 0 })
}

// MacroOver averages over some classes, each counting the same;
// MacroOver(c.Present()) is what scikit-learn does without labels.
func (c Confusion) MacroOver(classes []int) Scores { return c.average(classes, nil) }

func (c Confusion) average(classes []int, weights []float64) Scores {
	s := Scores{Support: c.Total()}
	if len(classes) == 0 || weights != nil && floats.Sum(weights) == 0 {
		return s
	}
	columns := make([][3]float64, len(classes))
	for i, k := range classes {
		of := c.Class(k)
		columns[i] = [3]float64{of.Precision, of.Recall, of.F1}
	}
	for j, mean := range []*float64{&s.Precision, &s.Recall, &s.F1} {
		values := make([]float64, len(classes))
		for i := range columns {
			values[i] = columns[i][j]
		}
		*mean = stat.Mean(values, weights)
	}
	return s
}

// MCC returns the correlation of labels and predictions (Matthews, 1975): 1 if
// all are right, 0 for guessing and where it is undefined, −1 if all are wrong.
func (c Confusion) MCC() float64 {
	tn, fp, fn, tp := float64(c[0][0]), float64(c[0][1]), float64(c[1][0]), float64(c[1][1])
	d := (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
	if d == 0 {
		return 0
	}
	return (tp*tn - fp*fn) / math.Sqrt(d)
}

// ROCAUC returns the area under the receiver operating characteristic: the
// probability that a positive example scores higher than a negative one, ties
// counting one half. It is undefined, and ok false, unless both classes occur.
// NaN scores are an error in the model, for which it is undefined too.
func ROCAUC(labels []int, scores []float64) (auc float64, ok bool) {
	if len(labels) != len(scores) {
		return 0, false
	}
	order := make([]int, len(labels))
	positive := 0
	for i := range order {
		if math.IsNaN(scores[i]) {
			return 0, false
		}
		order[i] = i
		positive += labels[i]
	}
	if positive == 0 || positive == len(labels) {
		return 0, false
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(scores[a], scores[b]) })
	y := make([]float64, len(order))
	classes := make([]bool, len(order))
	for i, k := range order {
		y[i], classes[i] = scores[k], labels[k] == 1
	}
	truePositive, falsePositive, _ := stat.ROC(nil, y, classes, nil)
	for i := 1; i < len(truePositive); i++ { // trapezoids
		auc += (falsePositive[i] - falsePositive[i-1]) * (truePositive[i] + truePositive[i-1]) / 2
	}
	return auc, true
}

func ratio(a, b int) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}
