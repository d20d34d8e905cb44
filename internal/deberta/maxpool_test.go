package deberta

import (
	"math"
	"slices"
	"testing"

	"github.com/criteria-go/criteria/internal/ort"
)

// TestMaxPoolingAtTies: with max pooling the gradient is not continuous. Where two tokens
// of a row have nearly the same maximum, the last bit of one weight decides which of them
// gets the gradient, while the loss stays what it is; with mean pooling the same bit does
// nothing. So two programs that round differently, as ours and PyTorch, part with max
// pooling at the first batch with such a tie, and the golden cases with max pooling, which
// have none, agree: it is rounding alone.
func TestMaxPoolingAtTies(t *testing.T) {
	rt, err := ort.Acquire(ort.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Close()
	config := Config{HiddenSize: 32, Layers: 2, Heads: 2, IntermediateSize: 48, VocabSize: 50, LayerNormEps: 1e-7,
		PositionBuckets: 16, MaxPosition: 64, InitializerRange: 0.02}
	model := Model{Config: config, Head: Head{Pooling: "max"}}
	m := newMix(model, 2, 9, 6)
	weight := &m.values[WordEmbeddings][int(m.ids[0][2])*config.HiddenSize] // one, of one token

	states := model.newPackedBuilder("states", 2, kernels(rt), nil)
	loss, logits := states.classify()
	states.g.Output(Loss, loss)
	states.g.Output(Logits, logits)
	states.g.Output("hidden", states.hidden)
	maxima := func(w float32) []int {
		*weight = w
		return m.maxima(m.run(t, rt, states.graph(), 1)["hidden"])
	}
	below, above := float32(-0.5), float32(0.5)
	first, other := maxima(below), maxima(above)
	place := 0
	for place < len(first) && first[place] == other[place] {
		place++
	}
	if place == len(first) {
		t.Fatal("the weight moves no maximum")
	}
	for middle := (below + above) / 2; below < middle && middle < above; middle = (below + above) / 2 {
		if maxima(middle)[place] == first[place] {
			below = middle
		} else {
			above = middle
		}
	}

	// below and above are neighbours, or nearly so, and the maximum is another one.
	jump := func(pooling string) (inLoss, inGradients float64) {
		m.model.Head.Pooling = pooling
		g := m.model.PackedTraining(2, kernels(rt), drawn)
		*weight = below
		a := m.run(t, rt, g, 1)
		*weight = above
		b := m.run(t, rt, g, 1)
		for output, x := range a {
			largest, worst := 1e-8, 0.0
			for i := range x {
				largest = max(largest, math.Abs(float64(x[i])))
				worst = max(worst, math.Abs(float64(x[i])-float64(b[output][i])))
			}
			if output == Loss {
				inLoss = worst / largest
			} else if output != Logits {
				inGradients = max(inGradients, worst/largest)
			}
		}
		return inLoss, inGradients
	}
	if step := math.Abs(float64(above-below)) / math.Abs(float64(above)); step > 1e-6 {
		t.Fatalf("the weight differs by %g of itself, want its last bits", step)
	}
	if l, g := jump("max"); l > 1e-6 || g < 1e-3 {
		t.Errorf("max: the loss moves by %.2g, the gradients by %.2g of their largest element; want below 1e-6 and above 1e-3", l, g)
	}
	if l, g := jump("mean"); l > 1e-6 || g > 1e-5 {
		t.Errorf("mean: the loss moves by %.2g, the gradients by %.2g of their largest element; want below 1e-6 and 1e-5", l, g)
	}
}

// maxima returns the tokens with the largest element of every column of every row.
func (m mix) maxima(hidden []float32) []int {
	var tokens []int
	width, at := m.model.Config.HiddenSize, 0
	for _, n := range m.lengths {
		for c := range width {
			column := make([]float32, n)
			for i := range column {
				column[i] = hidden[(at+i)*width+c]
			}
			tokens = append(tokens, slices.Index(column, slices.Max(column)))
		}
		at += n
	}
	return tokens
}
