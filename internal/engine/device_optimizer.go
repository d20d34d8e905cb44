package engine

import (
	"slices"

	"github.com/criteria-go/criteria/internal/graph"
	"github.com/criteria-go/criteria/internal/optim"
)

// Further inputs and outputs of the optimizer's graph for a device. It reads and
// writes vectors and state in place, so every output is named after its input.
const (
	devLearningRate = "learning_rate" // float64 [1]
	devMicro        = "micro_batches" // float32 [1]: how many the gradients are the sum of
	devStep         = "step"          // float64 [1]: updates taken
	devScale        = "loss_scale"    // float32 [1]: factor of the gradients
	devGood         = "good_steps"    // float32 [1]: updates since the scale was changed
	devNorm         = "grad_norm"     // float32 [1]: global norm before clipping; output only
)

// updated returns the name of the output that replaces an input.
func updated(input string) string { return "new_" + input }

// Dynamic loss scaling, with the constants of torch.amp.GradScaler: gradients
// that are too small for float16 are multiplied by a scale, which is halved
// after an update that came out infinite, and was skipped, and doubled after
// 2000 that did not.
const (
	initialLossScale = 1 << 16
	lossScaleGrowth  = 2
	lossScaleBackoff = 0.5
	growthInterval   = 2000
)

// deviceOptimizer says what the optimizer's graph for a device computes.
type deviceOptimizer struct {
	decayed, size int // elements of the flat vectors, as in layout
	// low is the type of the copy that products read, of the parameters from copied
	// on; a type of no low precision: there is none.
	low         graph.Type
	copied      int
	weightDecay float64
	maxGradNorm float64 // 0: gradients are not clipped
	scaled      bool    // whether the loss scale follows the gradients
	adamW       optim.AdamW
	kernels     graph.Kernels // operators of the device beside those of ONNX
	quantized   *quantizedOnDevice
}

// graph returns clipping to the global norm and AdamW over the flat vectors in
// one graph. Nothing of an update whose norm is not finite takes effect. What
// the host decides on the CPU (was the norm finite, which step is it) is decided
// here by the device, so that nobody waits for the norm.
func (o deviceOptimizer) graph() *graph.Graph {
	g := graph.New("optimizer_model", o.kernels)
	single := func(name string) *graph.Value { return g.Input(name, graph.Float32, 1) }
	double := func(name string) *graph.Value { return g.Input(name, graph.Float64, 1) }
	rate, step := double(devLearningRate), double(devStep)
	micro, scale, good := single(devMicro), single(devScale), single(devGood)

	type part struct {
		suffix  string
		decay   float64
		vectors [4]*graph.Value // parameters, gradients, first and second moments
		copied  int             // of the parameters, at the end
	}
	var parts []part
	names := []string{optParam, optGradient, optMoment1, optMoment2}
	add := func(suffix string, from, to int, decay float64) {
		if from == to {
			return
		}
		p := part{suffix: suffix, decay: decay}
		for i, name := range names {
			p.vectors[i] = g.Input(name+suffix, graph.Float32, to-from)
		}
		if o.low.IsLow() {
			p.copied = max(to-max(from, o.copied), 0)
		}
		parts = append(parts, p)
	}
	if o.quantized != nil {
		names = names[:2] // the moments are bytes
		add("", 0, o.size, 0)
	} else {
		add(decayedPart, 0, o.decayed, o.weightDecay)
		add(plainPart, o.decayed, o.size, 0)
	}

	// Sums of squares: by chunks in float32, then over the chunks in float64.
	// (ONNX Runtime has an operator for both, which needs cuDNN.)
	var squares *graph.Value
	for _, p := range parts {
		grad := p.vectors[1]
		sum := g.ReduceSum(g.Cast(sumSquares(g, grad), graph.Float64), false, 0)
		if squares == nil {
			squares = sum
		} else {
			squares = g.Add(squares, sum)
		}
	}
	one := g.Double(1)
	share := g.Div(one, g.Cast(g.Mul(micro, scale), graph.Float64))
	norm := g.Mul(g.Reshape(g.Sqrt(squares), 1), share)
	finite := g.Equal(g.Sub(norm, norm), g.Double(0))
	factor := share
	if o.maxGradNorm > 0 {
		factor = g.Mul(share, g.Min(one, g.Div(g.Double(o.maxGradNorm), g.Add(norm, g.Double(1e-6)))))
	}
	factor = g.Cast(factor, graph.Float32)

	// Scalars in float64, as on the CPU: 1 − 0.999ᵗ loses five digits in float32.
	a := o.adamW
	t := g.Add(step, one)
	stepSize := g.Div(rate, g.Sub(one, g.Pow(g.Double(a.Beta1), t)))
	correction := g.Div(one, g.Sqrt(g.Sub(one, g.Pow(g.Double(a.Beta2), t))))
	// A step that is skipped multiplies by 1 and adds 0.
	or := func(x *graph.Value, skipped float64) *graph.Value {
		return g.Where(finite, g.Cast(x, graph.Float32), g.Scalar(skipped))
	}
	decayed := func(decay float64) *graph.Value { return or(g.Sub(one, g.Mul(rate, g.Double(decay))), 1) }
	stepSize, correction = or(stepSize, 0), g.Cast(correction, graph.Float32)
	unit := g.Scalar(1)
	beta1, beta2 := g.Scalar(a.Beta1), g.Scalar(a.Beta2)
	rise1 := g.Where(finite, g.Sub(unit, beta1), g.Scalar(0))
	rise2 := g.Where(finite, g.Sub(unit, beta2), g.Scalar(0))
	keep2 := g.Where(finite, beta2, unit)
	number := func(x float64) *graph.Value { return g.Float([]float32{float32(x)}, 1) }
	scalars := func(decay float64) []*graph.Value { // of the kernels
		return []*graph.Value{decayed(decay), number(a.Beta2), number(1 - a.Beta1), number(1 - a.Beta2),
			stepSize, correction, number(a.Eps), factor, g.Where(finite, number(1), number(0))}
	}
	for _, p := range parts {
		x, grad, m, v := p.vectors[0], p.vectors[1], p.vectors[2], p.vectors[3]
		var low *graph.Value
		if p.copied > 0 && (o.quantized != nil || g.Offers(graph.AdamW)) {
			low = g.Input(optLow+p.suffix, o.low, p.copied)
		}
		if o.quantized != nil {
			both := g.Concat(0, append(scalars(o.weightDecay), scalars(0)...)...)
			x, state, low := g.AdamW8bit(x, grad, g.Input(optState, graph.Uint8, o.quantized.bytes), both, low, o.quantized.tables)
			output(g, optParam, x)
			output(g, optState, state)
			output(g, optLow, low)
			continue
		}
		if g.Offers(graph.AdamW) {
			x, m, v, low = g.AdamW(x, grad, m, v, g.Concat(0, scalars(p.decay)...), low)
			o.output(g, p.suffix, x, m, v, low)
			continue
		}
		grad = g.Where(finite, g.Mul(grad, factor), g.Scalar(0))
		m = g.Add(m, g.Mul(rise1, g.Sub(grad, m)))
		v = g.Add(g.Mul(keep2, v), g.Mul(g.Mul(rise2, grad), grad))
		root := g.Add(g.Mul(g.Sqrt(v), correction), g.Scalar(a.Eps))
		if p.decay != 0 {
			x = g.Mul(x, decayed(p.decay))
		}
		x = g.Sub(x, g.Div(g.Mul(stepSize, m), root))
		if p.copied > 0 {
			low = g.Cast(g.Slice(x, 0, x.Size()-p.copied, x.Size()), o.low)
		}
		o.output(g, p.suffix, x, m, v, low)
	}
	g.Output(devNorm, g.Cast(norm, graph.Float32))
	g.Output(updated(devStep), g.Where(finite, t, step))
	if o.scaled {
		counted := g.Add(good, unit)
		full := g.Greater(counted, g.Scalar(growthInterval-0.5))
		grown := g.Where(full, g.Scale(scale, lossScaleGrowth), scale)
		g.Output(updated(devScale), g.Where(finite, grown, g.Scale(scale, lossScaleBackoff)))
		g.Output(updated(devGood), g.Where(finite, g.Where(full, g.Scalar(0), counted), g.Scalar(0)))
	}
	return g
}

func (o deviceOptimizer) output(g *graph.Graph, suffix string, x, m, v, low *graph.Value) {
	output(g, optParam+suffix, x)
	output(g, optMoment1+suffix, m)
	output(g, optMoment2+suffix, v)
	output(g, optLow+suffix, low)
}

// output makes v, if it is not nil, what replaces an input.
func output(g *graph.Graph, input string, v *graph.Value) {
	if v != nil {
		g.Output(updated(input), v)
	}
}

// sumSquares returns the sum for every chunk.
func sumSquares(g *graph.Graph, x *graph.Value) *graph.Value {
	if g.Offers(graph.SumSquares) {
		return g.SumSquares(x, chunk)
	}
	return g.ReduceSum(g.Reshape(g.Mul(x, x), x.Size()/chunk, chunk), false, 1)
}

// optState is the name of the moments in 8 bits: uint8, as [placeQuantized] has them.
const optState = "state"

// optLow is the name of the copy of the last parameters in low precision. Only our
// kernels have it as an input, too.
const optLow = "low"

// quantizedOnDevice is what the kernel for moments in 8 bits needs beside vectors.
type quantizedOnDevice struct {
	bytes  int // of the state
	tables graph.State8bit
}

// quantizedFor describes the tensors of a layout, of which those before decayed
// decay, to the kernel.
func quantizedFor(l layout, decayed int) *quantizedOnDevice {
	places, size := placeQuantized(l.params)
	q := &quantizedOnDevice{bytes: size}
	for i, p := range l.params {
		n, at := p.Size(), places[i]
		perMoment, codes2, scalars := n, -1, 0
		if at.codes >= 0 {
			perMoment, codes2 = optim.Blocks(n), at.codes+n
		}
		if l.offsets[i] >= decayed {
			scalars = 9
		}
		var row [8]int64
		for j, v := range []int{len(q.tables.Owners), l.offsets[i], n, at.floats, at.floats + perMoment, at.codes, codes2, scalars} {
			row[j] = int64(v)
		}
		q.tables.Tensors = append(q.tables.Tensors, row)
		q.tables.Owners = append(q.tables.Owners, slices.Repeat([]int32{int32(i)}, optim.Blocks(n))...)
	}
	for i, signed := range []bool{true, false} {
		q.tables.Values[i], q.tables.Cells[i] = optim.Codebook(signed)
	}
	return q
}

// Suffixes of the vectors' two parts.
const decayedPart, plainPart = ".decayed", ".plain"
