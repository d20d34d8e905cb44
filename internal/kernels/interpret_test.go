package kernels

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/criteria-go/criteria/internal/dropout"
	"github.com/criteria-go/criteria/internal/graph"
	"github.com/criteria-go/criteria/internal/optim"
)

// tensor is an argument in the GPU's memory.
type tensor struct {
	Type string `json:"type"`
	Data []byte `json:"data"`
}

func tensorOf(kind string, elements any) tensor {
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, elements); err != nil {
		panic(err)
	}
	return tensor{kind, b.Bytes()}
}

func elements[T any](t *testing.T, data []byte) []T {
	t.Helper()
	var zero T
	out := make([]T, len(data)/binary.Size(zero))
	if err := binary.Read(bytes.NewReader(data), binary.LittleEndian, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// launch is a kernel with its arguments: tensors and numbers.
type launch struct {
	Kernel    string `json:"kernel"`
	Programs  int    `json:"programs"` // 0: as many as a vector needs
	Arguments []any  `json:"arguments"`
}

// interpret runs kernels on the CPU, and returns what became of their tensors.
func interpret(t *testing.T, launches []launch) [][][]byte {
	t.Helper()
	m := manifest(t)
	for i, l := range launches {
		at := slices.IndexFunc(m.Kernels, func(k Kernel) bool { return k.Name == l.Kernel })
		if at < 0 || len(l.Arguments) != len(m.Kernels[at].Arguments) {
			t.Fatalf("%s with %d arguments is not in the manifest", l.Kernel, len(l.Arguments))
		}
		if l.Programs == 0 {
			n := l.Arguments[len(l.Arguments)-1].(int) // the last one of every kernel that works on a vector
			launches[i].Programs = (n + m.Kernels[at].Block - 1) / m.Kernels[at].Block
		}
	}
	cases, err := json.Marshal(launches)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python(t), "interpret.py")
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	cmd.Stdin = bytes.NewReader(cases)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	var results [][][]byte
	if err := json.Unmarshal(out, &results); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	return results
}

// TestKernelDropout: the kernel keeps exactly what Philox says, scales it
// and rounds it to the nearest, whatever the size, the type and the key.
func TestKernelDropout(t *testing.T) {
	type dropoutCase struct {
		kind graph.Type
		n    int
		p    float64
		key  dropout.Key
	}
	var cases []dropoutCase
	for _, kind := range []graph.Type{graph.Float32, graph.Float16, graph.BFloat16} {
		cases = append(cases,
			dropoutCase{kind, 1024, 0.5, dropout.Key{}},
			dropoutCase{kind, 3001, 0.1, dropout.Key{Seed: 42, Step: 7<<16 | 3, Site: 12}},
			dropoutCase{kind, 5, 0.25, dropout.Key{Seed: math.MaxUint64, Step: 1<<47 | 5, Site: math.MaxInt32}},
			dropoutCase{kind, 2048, 0.9, dropout.Key{Seed: 1 << 63, Step: math.MaxUint32, Site: 1}})
	}
	r := rand.New(rand.NewPCG(1, 2))
	var launches []launch
	var inputs [][]float32
	for _, c := range cases {
		// A factor of few bits and numbers of few bits: so the products are
		// exact in every type, except for those of p = 0.1 in float32.
		x := make([]float32, c.n)
		for i := range x {
			x[i] = float32(r.IntN(31)+1) / 16
		}
		inputs = append(inputs, x)
		in, out := tensorOf("fp32", x), tensor{"fp32", make([]byte, 4*c.n)}
		if t, ok := lowTypes[c.kind]; ok {
			in, out = tensorOf(t, convert(x, c.kind)), tensor{t, make([]byte, 2*c.n)}
		}
		launches = append(launches, launch{Kernel: "dropout_" + c.kind.String(), Arguments: []any{in, out, tensorOf("i64", []int64{int64(c.key.Step)}),
			c.key.Seed, c.key.Site, dropout.PhiloxThreshold(c.p), scaleOf(c.kind, c.p), c.n}})
	}
	for i, result := range interpret(t, launches) {
		c := cases[i]
		mask := make([]byte, c.n)
		dropout.FillPhilox(mask, c.key, c.p)
		want := make([]float32, c.n)
		for j, keep := range mask {
			if keep == 1 {
				want[j] = inputs[i][j] * scaleOf(c.kind, c.p)
			}
		}
		ok := false
		if c.kind == graph.Float32 {
			ok = slices.Equal(elements[float32](t, result[1]), want)
		} else {
			ok = slices.Equal(elements[uint16](t, result[1]), convert(want, c.kind))
		}
		if !ok {
			t.Errorf("%+v: the result is not what Philox says", c)
		}
	}
}

// scaleOf returns 1/(1-p), of few bits for the low precisions.
func scaleOf(kind graph.Type, p float64) float32 {
	if kind.IsLow() {
		return 1.5
	}
	return float32(1 / (1 - p))
}

// lowTypes are the formats of 16 bits, by their names in Triton.
var lowTypes = map[graph.Type]string{graph.Float16: "fp16", graph.BFloat16: "bf16"}

// convert rounds to the nearest.
func convert(x []float32, low graph.Type) []uint16 {
	out := make([]uint16, len(x))
	for i, v := range x {
		out[i] = low.Bits(v)
	}
	return out
}

// sameCopy reports whether two vectors agree bit by bit, but for what a NaN carries.
func sameCopy(got, want []uint16, low graph.Type) bool {
	isNaN := func(bits uint16) bool { return bits&0x7fff > low.Bits(float32(math.Inf(1))) }
	return slices.EqualFunc(got, want, func(a, b uint16) bool { return a == b || isNaN(a) && isNaN(b) })
}

// numbers returns n numbers of all sizes, with zeros, denormal and huge ones.
func numbers(r *rand.Rand, n int) []float32 {
	special := []float32{0, float32(math.Copysign(0, -1)), 1e-45, -1e-45, 1e-40, 1.17549435e-38, 3.4e38, -3.4e38, 1, -1, 1e-8}
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(r.NormFloat64() * math.Pow(10, 8*r.Float64()-6))
		if r.IntN(4) == 0 {
			out[i] = special[r.IntN(len(special))]
		}
	}
	return out
}

// scalars are what the kernels of AdamW read of an update.
func scalars(o optim.AdamW, u optim.Update, finite bool) []float32 {
	t, flag := float64(u.Step), float32(0)
	if finite {
		flag = 1
	}
	return []float32{float32(1 - u.LR*u.WeightDecay), float32(o.Beta2), float32(1 - o.Beta1), float32(1 - o.Beta2),
		float32(u.LR / (1 - math.Pow(o.Beta1, t))), float32(1 / math.Sqrt(1-math.Pow(o.Beta2, t))), float32(o.Eps), u.GradScale, flag}
}

// sameBits reports whether two vectors agree bit by bit, but for what a NaN carries.
func sameBits(got, want []float32) bool {
	return slices.EqualFunc(got, want, func(a, b float32) bool {
		return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
	})
}

// TestKernelAdamW: the kernel's bits are those of the optimizer of the
// CPU, also for numbers at the ends of their range; an update that is skipped
// changes nothing whatever its gradients are. A copy is the parameters, rounded to
// the nearest, and does not go beyond them.
func TestKernelAdamW(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	type adamWCase struct {
		n int
		u optim.Update
		// skipped, with gradients that are not finite
		skipped bool
		copied  graph.Type // of the elements from first on; 0: there is no copy
		first   int
	}
	cases := []adamWCase{
		{n: 1024, u: optim.Update{Step: 1, LR: 2e-5, WeightDecay: 0.01, GradScale: 1}},
		{n: 3008, u: optim.Update{Step: 1000, LR: 1e-3, WeightDecay: 0, GradScale: 1. / 3}},
		{n: 16, u: optim.Update{Step: 2, LR: 0, WeightDecay: 0.1, GradScale: 1e-30}},
		{n: 2064, u: optim.Update{Step: 3, LR: 1e-3, WeightDecay: 0.01, GradScale: float32(math.NaN())}, skipped: true},
	}
	for _, c := range slices.Clone(cases) {
		for i, low := range []graph.Type{graph.Float16, graph.BFloat16} {
			c.copied, c.first = low, (c.n/2+i*c.n/4)&^15
			cases = append(cases, c)
		}
	}
	const beyond = 32 // elements after a copy, which are not its own
	var launches []launch
	var vectors [][4][]float32
	for _, c := range cases {
		p, g, m, v := numbers(r, c.n), numbers(r, c.n), numbers(r, c.n), numbers(r, c.n)
		for i := range v {
			v[i] = max(v[i], -v[i])
			if c.skipped && i%3 == 0 {
				g[i] = []float32{float32(math.Inf(1)), float32(math.NaN())}[i%2]
			}
		}
		if c.skipped || c.u.LR == 0 {
			// They stay what they are: all that can be special about rounding.
			for i := range p {
				p[i] = unround[(i+c.n)%len(unround)]
			}
		}
		vectors = append(vectors, [4][]float32{p, g, m, v})
		arguments := []any{tensorOf("fp32", p), tensorOf("fp32", g), tensorOf("fp32", m), tensorOf("fp32", v),
			tensorOf("fp32", scalars(optim.DefaultAdamW(), c.u, !c.skipped))}
		for range 3 {
			arguments = append(arguments, tensor{"fp32", make([]byte, 4*c.n)})
		}
		kernel := "adamw"
		if c.copied.IsLow() {
			kernel += "_" + c.copied.String()
			arguments = append(arguments, tensor{lowTypes[c.copied], bytes.Repeat([]byte{0xab}, 2*(c.n-c.first+beyond))}, c.first)
		}
		launches = append(launches, launch{Kernel: kernel, Arguments: append(arguments, c.n)})
	}
	for i, result := range interpret(t, launches) {
		c, x := cases[i], vectors[i]
		if !c.skipped {
			optim.DefaultAdamW().Step(x[0], x[2], x[3], x[1], c.u)
		}
		for j, want := range [][]float32{x[0], x[2], x[3]} {
			if !sameBits(elements[float32](t, result[5+j]), want) {
				t.Errorf("%+v: output %d differs from the CPU's", c, j)
			}
		}
		if !c.copied.IsLow() {
			continue
		}
		want := append(convert(x[0][c.first:], c.copied), slices.Repeat([]uint16{0xabab}, beyond)...)
		if got := elements[uint16](t, result[8]); !sameCopy(got, want, c.copied) {
			t.Errorf("%+v: the copy is not the parameters rounded", c)
		}
	}
}

// unround are numbers whose rounding to 16 bits is special: ties, carries, numbers
// that become 0, subnormal or infinite, and those that are not finite.
var unround = []float32{
	1 + 0x1p-11, 1 + 0x3p-11, 1 + 0x1p-8, 1 + 0x3p-8, 2 - 0x1p-20, -2 + 0x1p-12, 65504, 65519.99, 65520, -65536,
	0x1p-14, 0x1.ffep-15, 0x1p-24, 0x1p-25, 0x3p-25, 0x1.000002p-25, -0x1p-26, 0x1p-133, 0x1p-134, 0x1.8p-133, 0x1p-149,
	math.MaxFloat32, 0x1.fep127, 0x1.fefffep127, -0x1.ffp127, 0, float32(math.Copysign(0, -1)), 0.1,
	float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), math.Float32frombits(0xff800001),
}

// TestKernelAdamW8bit: codes, scales and parameters are those of the optimizer of
// the CPU, bit by bit, over several steps, also for blocks of zeros and for numbers
// at the ends of their range; a small tensor keeps its moments in float32. Copies
// are the parameters rounded; an update that is skipped does not touch them.
func TestKernelAdamW8bit(t *testing.T) {
	for _, copied := range []graph.Type{graph.Float32, graph.Float16, graph.BFloat16} {
		t.Run(copied.String(), func(t *testing.T) { testKernelAdamW8bit(t, copied) })
	}
}

func testKernelAdamW8bit(t *testing.T, copied graph.Type) {
	const (
		first        = 2064      // element that the copy begins with, within the big tensor
		big, small   = 5000, 300 // elements; they lie at 16 and 5024 of the flat vectors
		bigAt, smAt  = 16, 5024
		size         = 5328
		blocks       = 20 // of the big tensor
		scalesBefore = 4  // floats that belong to nobody
	)
	o := optim.DefaultAdamW()
	eight := optim.NewAdamW8bit(o, optim.RoundByTable)
	r := rand.New(rand.NewPCG(7, 8))
	p, state, m, v := numbers(r, size), optim.NewState8bit(big), make([]float32, small), make([]float32, small)
	var values, cells []byte
	for _, signed := range []bool{true, false} {
		book, table := optim.Codebook(signed)
		values = append(values, tensorOf("fp32", book[:]).Data...)
		cells = append(cells, table[:]...)
	}
	owners := make([]int32, blocks+2)
	owners[blocks], owners[blocks+1] = 1, 1
	tensors := []int64{
		0, bigAt, big, scalesBefore, scalesBefore + blocks, 7, 7 + big, 0,
		blocks, smAt, small, scalesBefore + 2*blocks, scalesBefore + 2*blocks + small, -1, -1, 9,
	}
	floats, codes := make([]float32, scalesBefore+2*blocks+2*small), make([]byte, 7+2*big)
	copies := slices.Repeat([]uint16{0xabab}, size-first)
	for step := 1; step <= 4; step++ {
		g := numbers(r, size)
		for i := range 600 {
			g[bigAt+i] = 0 // two blocks that have never had a gradient
		}
		for i := range g {
			g[i] = max(min(g[i], 1e15), -1e15) // the squares stay finite
		}
		u := optim.Update{Step: step, LR: 1e-3, WeightDecay: 0.01, GradScale: 0.5}
		plain := u
		plain.WeightDecay = 0
		skipped := step == 3
		// The two tensors are skipped together, as all are.
		both := append(scalars(o, u, !skipped), scalars(o, plain, !skipped)...)
		arguments := []any{tensorOf("fp32", p), tensorOf("fp32", g), tensor{"u8", codes}, tensorOf("fp32", floats), tensorOf("i32", owners),
			tensorOf("i64", tensors), tensor{"fp32", values}, tensor{"u8", cells}, tensorOf("fp32", both)}
		kernel := "adamw8bit"
		if copied.IsLow() {
			kernel += "_" + copied.String()
			arguments = append(arguments, tensorOf(lowTypes[copied], copies), first)
		}
		result := interpret(t, []launch{{Kernel: kernel, Arguments: append(arguments, len(owners))}})[0]
		if !skipped {
			eight.Step(p[bigAt:bigAt+big], g[bigAt:bigAt+big], state, u)
			o.Step(p[smAt:smAt+small], m, v, g[smAt:smAt+small], plain)
		}
		if !sameBits(elements[float32](t, result[0]), p) {
			t.Errorf("step %d: the parameters differ from the CPU's", step)
		}
		codes, floats = result[2], elements[float32](t, result[3])
		if want := slices.Concat(make([]byte, 7), state.M, state.V); !bytes.Equal(codes, want) {
			t.Errorf("step %d: the codes differ from the CPU's", step)
		}
		if want := slices.Concat(make([]float32, scalesBefore), state.MScale, state.VScale, m, v); !sameBits(floats, want) {
			t.Errorf("step %d: the scales or small moments differ from the CPU's", step)
		}
		if !copied.IsLow() {
			continue
		}
		want := slices.Clone(copies)
		if !skipped {
			for _, part := range [][2]int{{first, bigAt + big}, {smAt, smAt + small}} {
				copy(want[part[0]-first:], convert(p[part[0]:part[1]], copied))
			}
		}
		copies = elements[uint16](t, result[9])
		if !sameCopy(copies, want, copied) {
			t.Errorf("step %d: the copy is not the parameters rounded", step)
		}
	}
}

// TestKernelSumSquares: sums of squares, with no other mistake than that of
// adding 65536 numbers in float32, and infinite if the sum is.
func TestKernelSumSquares(t *testing.T) {
	const span = 65536
	r := rand.New(rand.NewPCG(5, 6))
	x := make([]float32, 2*span+16)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	overflow := slices.Clone(x)
	overflow[span+5] = 2e19
	var launches []launch
	for _, x := range [][]float32{x, overflow} {
		launches = append(launches, launch{Kernel: "sum_squares", Arguments: []any{tensorOf("fp32", x), tensor{"fp32", make([]byte, 12)}, len(x)}})
	}
	results := interpret(t, launches)
	for i, got := range elements[float32](t, results[0][1]) {
		var want float64
		for _, v := range x[i*span : min((i+1)*span, len(x))] {
			want += float64(v) * float64(v)
		}
		if math.Abs(float64(got)-want) > 1e-6*want {
			t.Errorf("sum %d is %v, want %v", i, got, want)
		}
	}
	if got := elements[float32](t, results[1][1]); !math.IsInf(float64(got[1]), 1) || math.IsInf(float64(got[0]+got[2]), 1) {
		t.Errorf("sums %v, want the second one infinite", got)
	}
}
