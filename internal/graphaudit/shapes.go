package graphaudit

import "slices"

// run follows the shapes of values through the operators, in order, and adds up
// what these cost.
func (ts tensors) run(operators []Operator) Cost {
	c := Cost{ByType: map[string]int{}, Unknown: map[string]int{}}
	passed := false // whether weights are inputs; initializers are mere constants then
	for _, t := range ts {
		passed = passed || t.weight && !t.constant
	}
	for _, t := range ts {
		if t.weight && t.constant != passed {
			c.Parameters += t.size()
			c.Bytes += t.bytes
		}
	}
	producer := map[string]int{}
	heaviest := make([]int, len(operators)) // of the chains that end at an operator
	before := make([]int, len(operators))
	last := -1
	for i, o := range operators {
		in := make([]tensor, len(o.Inputs))
		known, constant := true, len(o.Inputs) > 0
		before[i] = -1
		for k, name := range o.Inputs {
			t, ok := ts[name]
			known = known && (ok || name == "")
			constant = constant && (t.constant || name == "")
			in[k] = t
			if j, made := producer[name]; made && (before[i] < 0 || heaviest[j] > heaviest[before[i]]) {
				before[i] = j
			}
		}
		flops := 0
		out, ok := []tensor(nil), false
		if known {
			out, ok = operator{o, in}.results()
		}
		if ok {
			if flops = (operator{o, in}).flops(out[0]); constant {
				c.OnceFLOPs += flops
				flops = 0
			}
			for k, name := range o.Outputs {
				if name != "" && k < len(out) {
					out[k].constant = constant
					ts[name] = out[k]
				}
			}
		} else {
			c.Unknown[o.Type]++
		}
		c.FLOPs += flops
		if flops > 0 {
			c.ByType[o.Type] += flops
		}
		for _, name := range o.Outputs {
			producer[name] = i
		}
		heaviest[i] = flops
		if j := before[i]; j >= 0 {
			heaviest[i] += heaviest[j]
		}
		if last < 0 || heaviest[i] > heaviest[last] {
			last = i
		}
	}
	for i := last; i >= 0; i = before[i] {
		c.Heaviest = append(c.Heaviest, operators[i])
		c.HeaviestFLOPs = heaviest[last]
	}
	slices.Reverse(c.Heaviest)
	return c
}

// operator is an operator with its inputs.
type operator struct {
	Operator
	in []tensor
}

func (o operator) attribute(name string, missing int) int {
	if v, ok := o.Attributes[name].(int64); ok {
		return int(v)
	}
	return missing
}

func (o operator) list(name string) ([]int, bool) {
	v, ok := o.Attributes[name].([]int64)
	list := make([]int, len(v))
	for i, x := range v {
		list[i] = int(x)
	}
	return list, ok
}

// axis returns a valid axis of a value, counted from its start.
func axis(a, rank int) (int, bool) {
	if a < 0 {
		a += rank
	}
	return a, a >= 0 && a < rank
}

// arithmetic are the elementwise operators with broadcasting.
var arithmetic = map[string]func(a, b int) int{
	"Add": func(a, b int) int { return a + b },
	"Sub": func(a, b int) int { return a - b },
	"Mul": func(a, b int) int { return a * b },
	"Max": func(a, b int) int { return max(a, b) },
	"Min": func(a, b int) int { return min(a, b) },
	"Div": func(a, b int) int {
		if b == 0 {
			return 0
		}
		return a / b
	},
	"Pow": nil, "Equal": nil, "Greater": nil, "Less": nil, "GreaterOrEqual": nil, "LessOrEqual": nil, "And": nil, "Or": nil, "Where": nil,
}

// pointwise are the operators whose result has the shape of their first input.
var pointwise = []string{"Abs", "Cast", "Clip", "Dropout", "Elu", "Erf", "Exp", "Gelu", "Identity", "LayerNormalization", "Log",
	"LogSoftmax", "Neg", "Not", "Reciprocal", "Relu", "Sigmoid", "Sign", "Softmax", "Sqrt", "Tanh"}

// results returns what is known of the outputs, and false if the operator is
// unknown or its shapes depend on what is not known.
func (o operator) results() (out []tensor, ok bool) {
	if len(o.in) == 0 {
		return nil, false
	}
	x := o.in[0]
	one := func(shape []int, ints []int) ([]tensor, bool) {
		for _, d := range shape {
			if d < 0 {
				return nil, false
			}
		}
		t := tensor{shape: shape, ints: ints}
		if n := t.size(); n > maxInts || len(ints) != n {
			t.ints = nil
		}
		return []tensor{t}, true
	}
	if f, ok := arithmetic[o.Type]; ok {
		shape := x.shape
		for _, y := range o.in[1:] {
			if shape, ok = broadcast(shape, y.shape); !ok {
				return nil, false
			}
		}
		var ints []int
		if f != nil && len(o.in) == 2 && x.ints != nil && o.in[1].ints != nil {
			ints = pairwise(f, x.ints, o.in[1].ints)
		}
		return one(shape, ints)
	}
	if slices.Contains(pointwise, o.Type) {
		ints := x.ints
		switch o.Type {
		case "Neg":
			ints = nil
			for _, v := range x.ints {
				ints = append(ints, -v)
			}
		case "Clip":
			ints = o.clipped()
		case "Cast", "Identity":
		default:
			ints = nil
		}
		out, ok := one(x.shape, ints)
		if o.Type == "LayerNormalization" { // mean and reciprocal deviation
			stat := slices.Clone(x.shape)
			a, ok := axis(o.attribute("axis", -1), len(stat))
			if !ok {
				return nil, false
			}
			for i := a; i < len(stat); i++ {
				stat[i] = 1
			}
			out = append(out, tensor{shape: stat}, tensor{shape: stat})
		}
		return out, ok
	}
	switch o.Type {
	case "MatMul", "FusedMatMul", "MatMulInteger":
		if len(o.in) < 2 {
			return nil, false
		}
		m, _, n, batch, ok := o.product()
		if !ok {
			return nil, false
		}
		return one(append(batch, m, n), nil)
	case "Gemm":
		if len(o.in) < 2 || len(x.shape) != 2 || len(o.in[1].shape) != 2 {
			return nil, false
		}
		m, _, n, _, ok := o.product()
		if !ok {
			return nil, false
		}
		return one([]int{m, n}, nil)
	case "DynamicQuantizeLinear":
		return []tensor{{shape: x.shape}, {shape: []int{}}, {shape: []int{}}}, true
	case "Shape":
		return one([]int{len(x.shape)}, x.shape)
	case "Reshape":
		return o.reshaped(one)
	case "Transpose":
		perm, ok := o.list("perm")
		if !ok || len(perm) != len(x.shape) {
			return nil, false
		}
		shape := make([]int, len(perm))
		for i, p := range perm {
			if p < 0 || p >= len(perm) {
				return nil, false
			}
			shape[i] = x.shape[p]
		}
		return one(shape, nil)
	case "Gather":
		if len(o.in) < 2 {
			return nil, false
		}
		a, ok := axis(o.attribute("axis", 0), len(x.shape))
		if !ok {
			return nil, false
		}
		index := o.in[1]
		var ints []int
		for _, i := range index.ints {
			if i < 0 {
				i += len(x.ints)
			}
			if len(x.shape) != 1 || i < 0 || i >= len(x.ints) {
				ints = nil
				break
			}
			ints = append(ints, x.ints[i])
		}
		return one(slices.Concat(x.shape[:a], index.shape, x.shape[a+1:]), ints)
	case "Concat":
		a, ok := axis(o.attribute("axis", 0), len(x.shape))
		if !ok {
			return nil, false
		}
		shape := slices.Clone(x.shape)
		shape[a] = 0
		var ints []int
		whole := len(shape) == 1
		for _, t := range o.in {
			if len(t.shape) != len(shape) {
				return nil, false
			}
			shape[a] += t.shape[a]
			whole = whole && (t.ints != nil || t.size() == 0)
			ints = append(ints, t.ints...)
		}
		if !whole {
			ints = nil
		}
		return one(shape, ints)
	case "Slice":
		return o.sliced(one)
	case "Range":
		if len(o.in) < 3 || len(x.ints) != 1 || len(o.in[1].ints) != 1 || len(o.in[2].ints) != 1 {
			return nil, false
		}
		from, to, step := x.ints[0], o.in[1].ints[0], o.in[2].ints[0]
		if step <= 0 || min(from, to) < -maxInts || max(from, to) > maxInts {
			return nil, false
		}
		ints := []int{}
		for v := from; v < to; v += step {
			ints = append(ints, v)
		}
		return one([]int{len(ints)}, ints)
	case "Expand":
		if len(o.in) < 2 || o.in[1].ints == nil {
			return nil, false
		}
		shape, ok := broadcast(x.shape, o.in[1].ints)
		if !ok {
			return nil, false
		}
		return one(shape, nil)
	case "ConstantOfShape":
		if x.ints == nil {
			return nil, false
		}
		return one(slices.Clone(x.ints), nil)
	case "ReduceSum", "ReduceMean", "ReduceMax":
		axes, ok := o.list("axes")
		if !ok && len(o.in) > 1 {
			axes, ok = o.in[1].ints, o.in[1].ints != nil
		}
		if !ok {
			return nil, false
		}
		drop := make([]bool, len(x.shape))
		for _, a := range axes {
			a, ok := axis(a, len(x.shape))
			if !ok {
				return nil, false
			}
			drop[a] = true
		}
		shape := []int{}
		for i, d := range x.shape {
			switch {
			case !drop[i]:
				shape = append(shape, d)
			case o.attribute("keepdims", 1) == 1:
				shape = append(shape, 1)
			}
		}
		return one(shape, nil)
	}
	return nil, false
}

// clipped bounds integers.
func (o operator) clipped() (ints []int) {
	for _, v := range o.in[0].ints {
		if len(o.in) > 1 && len(o.in[1].ints) == 1 {
			v = max(v, o.in[1].ints[0])
		}
		if len(o.in) > 2 && len(o.in[2].ints) == 1 {
			v = min(v, o.in[2].ints[0])
		}
		ints = append(ints, v)
	}
	return ints
}

func (o operator) reshaped(one func(shape, ints []int) ([]tensor, bool)) ([]tensor, bool) {
	if len(o.in) < 2 || o.in[1].ints == nil {
		return nil, false
	}
	x := o.in[0]
	shape, rest, open := slices.Clone(o.in[1].ints), 1, -1
	for i, d := range shape {
		switch {
		case d == -1 && open < 0:
			open = i
			continue
		case d == 0 && i < len(x.shape):
			shape[i] = x.shape[i]
		case d <= 0:
			return nil, false
		}
		rest *= shape[i]
	}
	if open >= 0 {
		if rest == 0 || x.size()%rest != 0 {
			return nil, false
		}
		shape[open] = x.size() / rest
	} else if rest != x.size() {
		return nil, false
	}
	return one(shape, x.ints)
}

func (o operator) sliced(one func(shape, ints []int) ([]tensor, bool)) ([]tensor, bool) {
	x := o.in[0]
	if len(o.in) < 4 {
		return nil, false
	}
	starts, ends, axes := o.in[1].ints, o.in[2].ints, o.in[3].ints
	if len(o.in) > 4 || len(starts) == 0 || len(starts) != len(ends) || len(axes) != len(starts) {
		return nil, false
	}
	shape := slices.Clone(x.shape)
	var ints []int
	for i, a := range axes {
		a, ok := axis(a, len(shape))
		if !ok {
			return nil, false
		}
		n := x.shape[a]
		bound := func(v int) int {
			if v < 0 {
				v += n
			}
			return min(max(v, 0), n)
		}
		from, to := bound(starts[i]), bound(ends[i])
		shape[a] = max(to-from, 0)
		if len(x.shape) == 1 && len(x.ints) == n && to >= from {
			ints = x.ints[from:to]
		}
	}
	return one(shape, ints)
}

// product returns the sizes of a product of matrices m×k and k×n.
func (o operator) product() (m, k, n int, batch []int, ok bool) {
	a, b := o.in[0].shape, o.in[1].shape
	if len(a) < 2 || len(b) < 2 {
		return 0, 0, 0, nil, false
	}
	batch, ok = broadcast(a[:len(a)-2], b[:len(b)-2])
	m, k = a[len(a)-2], a[len(a)-1]
	if o.attribute("transA", 0) != 0 {
		m, k = k, m
	}
	kb, n := b[len(b)-2], b[len(b)-1]
	if o.attribute("transB", 0) != 0 {
		kb, n = n, kb
	}
	return m, k, n, slices.Clone(batch), ok && k == kb
}

// flops returns the operations that make the first result.
func (o operator) flops(result tensor) int {
	switch o.Type {
	case "MatMul", "FusedMatMul", "MatMulInteger", "Gemm":
		_, k, _, _, _ := o.product()
		n := 2 * k * result.size()
		if o.Type == "Gemm" && len(o.in) > 2 {
			n += result.size()
		}
		return n
	case "ReduceSum", "ReduceMean", "ReduceMax":
		return o.in[0].size()
	case "Softmax", "LogSoftmax", "LayerNormalization":
		return 5 * result.size()
	case "Gelu":
		return 8 * result.size()
	case "DynamicQuantizeLinear":
		return 4 * result.size() // smallest, largest, scale, round
	case "Cast", "Identity", "Where", "Dropout", "Not":
		return 0
	}
	if _, ok := arithmetic[o.Type]; ok || slices.Contains(pointwise, o.Type) {
		return result.size()
	}
	return 0
}

// broadcast is NumPy's rule.
func broadcast(a, b []int) ([]int, bool) {
	shape := make([]int, max(len(a), len(b)))
	for i := range shape {
		da, db := 1, 1
		if k := i - len(shape) + len(a); k >= 0 {
			da = a[k]
		}
		if k := i - len(shape) + len(b); k >= 0 {
			db = b[k]
		}
		if da != db && da != 1 && db != 1 {
			return nil, false
		}
		shape[i] = max(da, db)
		if da == 0 || db == 0 {
			shape[i] = 0
		}
	}
	return shape, true
}

// pairwise applies f to lists of which one may have a single element.
func pairwise(f func(a, b int) int, a, b []int) []int {
	if len(a) == 0 || len(b) == 0 || len(a) != len(b) && len(a) != 1 && len(b) != 1 {
		return nil
	}
	out := make([]int, max(len(a), len(b)))
	for i := range out {
		out[i] = f(a[min(i, len(a)-1)], b[min(i, len(b)-1)])
	}
	return out
}
