package engine

import (
	"fmt"

	"github.com/criteria-go/criteria/internal/graph"
)

// Names of the ONNX artifacts, those of ONNX Runtime's former training tools.
const (
	trainingModel  = "training_model.onnx"
	evalModel      = "eval_model.onnx"
	optimizerModel = "optimizer_model.onnx"
)

// artifacts returns the graphs by file name, in standard operators, for the
// largest batch that was met. Parameters are inputs of all of them.
func (e *Engine) artifacts() map[string][]byte {
	rows, length := e.backend.largest()
	rows, length = max(1, rows), max(LengthStep, length)
	note := [2]string{"criteria.batch", fmt.Sprintf("%d x %d", rows, length)}
	files := map[string][]byte{
		evalModel: e.model.Evaluation(rows, length, nil).Encode(note),
	}
	if e.training != nil {
		files[trainingModel] = e.model.Training(rows, length, nil, dropoutScale).Encode(note)
		files[optimizerModel] = adamWGraph(chunk).Encode()
	}
	return files
}

// Inputs and outputs of the optimizer's graph: one AdamW step over n elements.
// Scalars have shape [1]: they are elements of one vector in memory.
const (
	optParam, optGradient            = "param", "gradient" // float32 [n]
	optMoment1, optMoment2           = "exp_avg", "exp_avg_sq"
	optGradScale                     = "grad_scale"       // factor of the gradient (clipping)
	optKeep                          = "weight_keep"      // 1 − lr·weight_decay
	optBeta1, optBeta2               = "beta1", "beta2"   // decay rates of the moments
	optStepSize                      = "step_size"        // lr / (1 − β₁ᵗ)
	optCorrection2                   = "bias_correction2" // 1 / sqrt(1 − β₂ᵗ)
	optEps                           = "eps"              // added to the root of the second moment
	outParam, outMoment1, outMoment2 = "new_param", "new_exp_avg", "new_exp_avg_sq"
)

// adamWGraph returns AdamW (Loshchilov and Hutter, arXiv:1711.05101) in the
// order of operations of torch.optim.AdamW:
//
//	p ← p·(1 − lr·λ);  m ← m + (1−β₁)(g − m);  v ← β₂·v + (1−β₂)·g²
//	p ← p − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + ε)
func adamWGraph(n int) *graph.Graph {
	g := graph.New("optimizer_model", nil)
	vector := func(name string) *graph.Value { return g.Input(name, graph.Float32, n) }
	scalar := func(name string) *graph.Value { return g.Input(name, graph.Float32, 1) }
	p, grad, m, v := vector(optParam), vector(optGradient), vector(optMoment1), vector(optMoment2)
	gradScale, keep, beta1, beta2 := scalar(optGradScale), scalar(optKeep), scalar(optBeta1), scalar(optBeta2)
	stepSize, correction2, eps := scalar(optStepSize), scalar(optCorrection2), scalar(optEps)

	one := g.Scalar(1)
	grad = g.Mul(grad, gradScale)
	m = g.Add(m, g.Mul(g.Sub(one, beta1), g.Sub(grad, m)))
	v = g.Add(g.Mul(beta2, v), g.Mul(g.Mul(g.Sub(one, beta2), grad), grad))
	root := g.Add(g.Mul(g.Sqrt(v), correction2), eps)
	p = g.Sub(g.Mul(p, keep), g.Div(g.Mul(stepSize, m), root))
	g.Output(outParam, p)
	g.Output(outMoment1, m)
	g.Output(outMoment2, v)
	return g
}
