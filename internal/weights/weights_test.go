package weights_test

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/criteria-go/criteria/internal/weights"
)

// requireFormatError expects a *FormatError whose message is one line, names the
// file and a remedy, and contains every one of parts.
func requireFormatError(t *testing.T, err error, parts ...string) {
	t.Helper()
	var format *weights.FormatError
	if !errors.As(err, &format) {
		t.Fatalf("want a *FormatError, got %v", err)
	}
	if format.Path == "" || format.Found == "" || format.Remedy == "" {
		t.Errorf("incomplete error %#v", format)
	}
	message := err.Error()
	if strings.Contains(message, "\n") || len(message) > 1000 {
		t.Errorf("not a readable line: %q", message)
	}
	for _, part := range parts {
		if !strings.Contains(message, part) {
			t.Errorf("the error does not mention %q: %s", part, message)
		}
	}
}

// safetensors builds a file from its header and data.
func safetensors(header string, data ...byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), data...)
}

func TestSafetensorsRefused(t *testing.T) {
	two := func(a, b string) []byte {
		return safetensors(fmt.Sprintf(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[%s]},"b":{"dtype":"U8","shape":[2],"data_offsets":[%s]}}`, a, b), 1, 2, 3, 4)
	}
	tests := []struct {
		name    string
		content []byte
		want    string
	}{
		{"empty", nil, "empty"},
		{"short", []byte("abc"), "neither safetensors nor"},
		{"html", []byte("<!DOCTYPE html><html>not found</html>"), "neither safetensors nor"},
		{"lfs pointer", []byte("version https://git-lfs.github.com/spec/v1\noid sha256:00\n"), "git lfs pull"},
		{"tensorflow", []byte("\x89HDF\r\n\x1a\n........"), "TensorFlow"},
		{"header longer than the file", append(binary.LittleEndian.AppendUint64(nil, 1000), `{"a"`...), "header claims 1000 bytes"},
		{"absurd header", append(binary.LittleEndian.AppendUint64(nil, math.MaxUint64), `{"a"`...), "header claims"},
		{"cut header", safetensors(`{"a":{"dtype":"U8"`), "not what the format asks for"},
		{"text after the object", safetensors(`{} {}`), "follow the JSON object"},
		{"not an object", safetensors(`{"a":3}`), `tensor "a"`},
		{"missing shape", safetensors(`{"a":{"dtype":"U8","data_offsets":[0,0]}}`), "lacks dtype, shape"},
		{"one offset", safetensors(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1]}}`, 1), "two data_offsets"},
		{"unknown field", safetensors(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}}`, 1), "unknown field"},
		{"unknown type", safetensors(`{"a":{"dtype":"F7","shape":[1],"data_offsets":[0,1]}}`, 1), `"F7"`},
		{"negative dimension", safetensors(`{"a":{"dtype":"U8","shape":[-1,-1],"data_offsets":[0,1]}}`, 1), "impossible dimension -1"},
		{"overflowing shape", safetensors(`{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`), "2^40"},
		{"wrong length", safetensors(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,2]}}`, 1, 2), "needs 4 bytes, but has 2"},
		{"backward offsets", safetensors(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}}`, 1), "bytes 1 to 0"},
		{"offsets beyond the data", safetensors(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 1), "holds 1 bytes"},
		{"overlap", two("0,2", "1,3"), "overlap"},
		{"same place", two("0,2", "0,2"), "overlap"},
		{"gap", safetensors(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`, 1, 2, 3), "leave a gap"},
		{"hole at the start", safetensors(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 1, 2), "where byte 0 is due"},
		{"bytes left over", safetensors(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1, 2), "the tensors fill 1 bytes"},
		{"tensor twice", safetensors(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 1, 2), `tensor "a" appears twice`},
		{"metadata twice", safetensors(`{"__metadata__":{"a":"1"},"__metadata__":{"a":"1"}}`), "appears twice"},
		{"metadata not text", safetensors(`{"__metadata__":{"a":1}}`), "__metadata__"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := writeFile(t, test.content)
			f, err := weights.Open(path)
			if err == nil {
				f.Close()
			}
			requireFormatError(t, err, path, test.want)
		})
	}
}

// TestTruncatedAnywhere cuts a good file of each form at every length: each must
// be refused, none may be read as something shorter.
func TestTruncatedAnywhere(t *testing.T) {
	forms := map[string][]byte{
		"safetensors": safetensors(`{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}`, make([]byte, 16)...),
		"zip":         torchZip(t, "\x80\x02}"+str("a")+tensor("FloatStorage", "0", 4, 0, "22", "21")+"s.", map[string][]byte{"data/0": make([]byte, 16)}),
		"legacy":      torchLegacy("\x80\x02}"+str("a")+tensor("FloatStorage", "0", 4, 0, "22", "21")+"s.", []string{"0"}, make([]byte, 16)),
	}
	for name, content := range forms {
		t.Run(name, func(t *testing.T) {
			path := writeFile(t, content)
			openFile(t, path)
			for n := len(content) - 1; n >= 0; n-- {
				if err := os.Truncate(path, int64(n)); err != nil {
					t.Fatal(err)
				}
				f, err := weights.Open(path)
				if err == nil {
					f.Close()
				}
				requireFormatError(t, err)
			}
		})
	}
}

// TestFileCutWhileOpen shrinks a file under a reader: an error, not a crash.
func TestFileCutWhileOpen(t *testing.T) {
	content := safetensors(`{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`, make([]byte, 8)...)
	path := writeFile(t, content)
	f := openFile(t, path)
	if err := os.Truncate(path, int64(len(content)-4)); err != nil {
		t.Fatal(err)
	}
	requireFormatError(t, f.ReadFloat32("a", make([]float32, 2)), path, "changed since it was opened")
}

// The pieces of a pickle of protocol 2.
func str(s string) string {
	return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s
}
func num(n int) string { return "J" + string(binary.LittleEndian.AppendUint32(nil, uint32(n))) }
func dims(digits string) string {
	b := "("
	for _, d := range digits {
		b += num(int(d - '0'))
	}
	return b + "t"
}

// ref is the persistent id of a storage.
func ref(class, key string, elements int, more string) string {
	return "(" + str("storage") + "ctorch\n" + class + "\n" + str(key) + str("cpu") + num(elements) + more + "tQ"
}

// tensor is a call of _rebuild_tensor_v2; shape and strides give one digit per
// dimension.
func tensor(class, key string, elements, first int, shape, strides string) string {
	return rebuild(ref(class, key, elements, ""), first, shape, strides)
}

func rebuild(storage string, first int, shape, strides string) string {
	return "ctorch._utils\n_rebuild_tensor_v2\n(" + storage + num(first) + dims(shape) + dims(strides) + "\x89" + "ccollections\nOrderedDict\n)Rt" + "R"
}

func torchZip(t testing.TB, program string, members map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	add := func(name string, content []byte) {
		m, err := w.CreateHeader(&zip.FileHeader{Name: "archive/" + name, Method: zip.Store})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	add("data.pkl", []byte(program))
	for name, content := range members {
		add(name, content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// torchLegacy builds a file of the older form whose only storage has 4-byte
// elements.
func torchLegacy(program string, keys []string, data []byte) []byte {
	var b bytes.Buffer
	b.WriteString("\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.")
	b.WriteString("\x80\x02M\xe9\x03.")
	b.WriteString("\x80\x02}.")
	b.WriteString(program)
	b.WriteString("\x80\x02](")
	for _, key := range keys {
		b.WriteString(str(key))
	}
	b.WriteString("e.")
	b.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(data)/4)))
	b.Write(data)
	return b.Bytes()
}

func floats(xs ...float32) []byte {
	var b []byte
	for _, x := range xs {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func TestTorchViews(t *testing.T) {
	data := floats(0, 1, 2, 3, 4, 5)
	part := "(" + str("part") + num(2) + num(3) + "t"
	tests := []struct {
		name    string
		program string // of the one tensor
		legacy  bool
		want    []float32
	}{
		{"whole", tensor("FloatStorage", "0", 6, 0, "23", "31"), false, []float32{0, 1, 2, 3, 4, 5}},
		{"transposed", tensor("FloatStorage", "0", 6, 0, "32", "13"), false, []float32{0, 3, 1, 4, 2, 5}},
		{"column", tensor("FloatStorage", "0", 6, 1, "2", "3"), false, []float32{1, 4}},
		{"offset", tensor("FloatStorage", "0", 6, 2, "22", "21"), false, []float32{2, 3, 4, 5}},
		{"expanded", tensor("FloatStorage", "0", 6, 5, "22", "00"), false, []float32{5, 5, 5, 5}},
		{"three dimensions", tensor("FloatStorage", "0", 6, 0, "212", "103"), false, []float32{0, 3, 1, 4}},
		{"scalar", tensor("FloatStorage", "0", 6, 4, "", ""), false, []float32{4}},
		{"empty", tensor("FloatStorage", "0", 6, 6, "0", "1"), false, []float32{}},
		{"stride of a dimension of one", tensor("FloatStorage", "0", 6, 0, "16", "91"), false, []float32{0, 1, 2, 3, 4, 5}},
		{"parameter", "ctorch._utils\n_rebuild_parameter\n(" + tensor("FloatStorage", "0", 6, 4, "2", "1") + "\x88Nt" + "R", false, []float32{4, 5}},
		{"untyped storage", "ctorch._utils\n_rebuild_tensor_v3\n(" + ref("UntypedStorage", "0", 24, "") + num(3) + dims("3") + dims("1") + "\x89Nctorch\nfloat32\ntR", false, []float32{3, 4, 5}},
		{"shape as torch.Size", "ctorch._utils\n_rebuild_tensor_v2\n(" + ref("FloatStorage", "0", 6, "") + num(0) + "ctorch\nSize\n" + dims("2") + "\x85R" + dims("1") + "\x89N}tR", false, []float32{0, 1}},
		{"legacy", tensor("FloatStorage", "0", 6, 0, "32", "13"), true, []float32{0, 3, 1, 4, 2, 5}},
		{"legacy part", rebuild(ref("FloatStorage", "0", 6, part), 1, "2", "1"), true, []float32{3, 4}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			program := "\x80\x02}" + str("x") + test.program + "s."
			content := torchZip(t, program, map[string][]byte{"data/0": data})
			if test.legacy {
				content = torchLegacy(program, []string{"0"}, data)
			}
			f := openFile(t, writeFile(t, content))
			if diff := cmp.Diff(test.want, readFloat32(t, f, "x")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(floats(test.want...), readBytes(t, f, "x"), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("bytes (-want +got):\n%s", diff)
			}
		})
	}
}

// TestTorchLargeView gathers more than one chunk.
func TestTorchLargeView(t *testing.T) {
	const rows, columns = 700, 300
	var data []byte
	for i := range rows * columns {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(float32(i)))
	}
	size := "(" + num(columns) + num(rows) + "t(" + num(1) + num(columns) + "t"
	program := "\x80\x02}" + str("x") + "ctorch._utils\n_rebuild_tensor_v2\n(" + ref("FloatStorage", "0", rows*columns, "") + num(0) + size + "\x89NtRs."
	got := readFloat32(t, openFile(t, writeFile(t, torchZip(t, program, map[string][]byte{"data/0": data}))), "x")
	for i, x := range got {
		if want := float32(i%rows*columns + i/rows); x != want {
			t.Fatalf("element %d: want %g, got %g", i, want, x)
		}
	}
}

func TestTorchRefused(t *testing.T) {
	one := map[string][]byte{"data/0": floats(1, 2, 3, 4)}
	dict := func(value string) string { return "\x80\x02}" + str("x") + value + "s." }
	tests := []struct {
		name    string
		content []byte
		want    string
	}{
		{"foreign function", torchZip(t, dict("cposix\nsystem\n("+str("true")+"tR"), one), `"posix.system"`},
		{"foreign function on the stack", torchZip(t, "\x80\x04}"+str("x")+str("os")+str("system")+"\x93s.", one), `"os.system"`},
		{"foreign class", torchZip(t, dict("(ibuiltins\neval\n"), one), `"builtins.eval"`},
		{"foreign in the legacy form", torchLegacy(dict("cposix\nsystem\n)R"), []string{"0"}, nil), "nothing was executed"},
		{"no pickle", torchZip(t, "", one), "incomplete"},
		{"two pickles", torchZip(t, "\x80\x02}.", map[string][]byte{"x/data.pkl": nil}), "2 members named data.pkl"},
		{"unknown opcode", torchZip(t, "\x80\x02\xee.", one), "unknown opcode"},
		{"string beyond the end", torchZip(t, "\x80\x02X\xff\xff\xff\x7fabc.", one), "ends outside"},
		{"huge bytes", torchZip(t, "\x80\x05\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", one), "ends outside"},
		{"huge frame", torchZip(t, "\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.", one), "ends outside"},
		{"endless marks", torchZip(t, strings.Repeat("(", 100_000)+".", one), "more objects"},
		{"endless dictionaries", torchZip(t, strings.Repeat("}", 1<<20)+".", one), "more objects"},
		{"huge number", torchZip(t, "I"+strings.Repeat("9", 100_000)+"\n.", one), "a number of"},
		{"odd items", torchZip(t, "\x80\x02}("+str("a")+"u.", one), "cannot be read"},
		{"unhashable key", torchZip(t, "\x80\x02ccollections\nOrderedDict\n)RC\x01aNs.", one), "cannot be read"},
		{"a list", torchZip(t, "\x80\x02].", one), "holds a list"},
		{"no tensors", torchZip(t, dict(num(3)), one), `keys are ["x"]`},
		{"tensor named by a number", torchZip(t, "\x80\x02}K\x01"+tensor("FloatStorage", "0", 4, 0, "4", "1")+"s.", one), "named by a int"},
		{"storage missing", torchZip(t, dict(tensor("FloatStorage", "7", 4, 0, "4", "1")), one), `member "archive/data/7" is missing`},
		{"storage too short", torchZip(t, dict(tensor("FloatStorage", "0", 5, 0, "5", "1")), one), "should hold 5 numbers"},
		{"storage of negative length", torchZip(t, dict(tensor("FloatStorage", "0", -4, 0, "4", "1")), one), "claims -4"},
		{"storage described twice", torchZip(t, "\x80\x02}("+str("a")+tensor("FloatStorage", "0", 4, 0, "4", "1")+str("b")+tensor("HalfStorage", "0", 4, 0, "4", "1")+"u.", one), "in two ways"},
		{"view beyond its storage", torchZip(t, dict(tensor("FloatStorage", "0", 4, 1, "4", "1")), one), "does not fit"},
		{"strides beyond the storage", torchZip(t, dict(tensor("FloatStorage", "0", 4, 0, "22", "31")), one), "does not fit"},
		{"negative offset", torchZip(t, dict(tensor("FloatStorage", "0", 4, -1, "4", "1")), one), "does not fit"},
		{"fewer strides than dimensions", torchZip(t, dict(tensor("FloatStorage", "0", 4, 0, "22", "1")), one), "with strides [1]"},
		{"endless expansion", torchZip(t, dict("ctorch._utils\n_rebuild_tensor_v2\n("+ref("FloatStorage", "0", 4, "")+num(0)+"("+num(1<<30)+"t("+num(0)+"t\x89NtR"), one), "repeats"},
		{"overflowing shape", torchZip(t, dict("ctorch._utils\n_rebuild_tensor_v2\n("+ref("FloatStorage", "0", 4, "")+num(0)+"("+num(1<<30)+num(1<<30)+"t("+num(0)+num(0)+"t\x89NtR"), one), "2^40"},
		{"negated numbers", torchZip(t, dict("ctorch._utils\n_rebuild_tensor_v2\n("+ref("FloatStorage", "0", 4, "")+num(0)+dims("4")+dims("1")+"\x89N}"+str("neg")+"\x88stR"), one), "metadata"},
		{"shape of text", torchZip(t, dict("ctorch._utils\n_rebuild_tensor_v2\n("+ref("FloatStorage", "0", 4, "")+num(0)+"("+str("a")+"t)\x89NtR"), one), "argument 1 is a str"},
		{"too few arguments", torchZip(t, dict("ctorch._utils\n_rebuild_tensor_v2\n)R"), one), "0 arguments"},
		{"storage of another kind", torchZip(t, dict("("+str("module")+"NNNNtQ"), one), `"module"`},
		{"big-endian", torchZip(t, dict(tensor("FloatStorage", "0", 4, 0, "4", "1")), map[string][]byte{"data/0": floats(1, 2, 3, 4), "byteorder": []byte("big")}), `byte order "big"`},
		{"tar", append(make([]byte, 257), "ustar\x00........"...), "before 0.1.10"},
		{"legacy storage not listed", torchLegacy(dict(tensor("FloatStorage", "0", 4, 0, "4", "1")), nil, floats(1, 2, 3, 4)), "list of its 1 storages"},
		{"legacy unknown storage listed", torchLegacy(dict(tensor("FloatStorage", "0", 4, 0, "4", "1")), []string{"9"}, floats(1, 2, 3, 4)), `names "9"`},
		{"legacy storage of another length", torchLegacy(dict(tensor("FloatStorage", "0", 4, 0, "4", "1")), []string{"0"}, floats(1, 2, 3)), "should hold 4 numbers, but has 3"},
		{"legacy part beyond its root", torchLegacy(dict(rebuild(ref("FloatStorage", "0", 4, "("+str("p")+num(2)+num(3)+"t"), 0, "3", "1")), []string{"0"}, floats(1, 2, 3, 4)), "no numbers 2 to 5"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := writeFile(t, test.content)
			f, err := weights.Open(path)
			if err == nil {
				f.Close()
			}
			requireFormatError(t, err, path, test.want)
		})
	}
}

// TestTorchCompressedRefused: a storage in a compressed member has no place in
// the file from which it could be read in parts.
func TestTorchCompressedRefused(t *testing.T) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	m, err := w.Create("archive/data.pkl") // compressed
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(m, "\x80\x02}."); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = weights.Open(writeFile(t, b.Bytes()))
	requireFormatError(t, err, "compressed")
}

// TestHalfPrecision compares every one of the 65536 patterns with the value that
// IEEE 754 defines for it.
func TestHalfPrecision(t *testing.T) {
	data := make([]byte, 0, 2<<16)
	for h := range 1 << 16 {
		data = binary.LittleEndian.AppendUint16(data, uint16(h))
	}
	path := writeFile(t, safetensors(`{"h":{"dtype":"F16","shape":[65536],"data_offsets":[0,131072]}}`, data...))
	for h, got := range readFloat32(t, openFile(t, path), "h") {
		exponent, mantissa := h>>10&0x1f, h&0x3ff
		var want float64
		switch exponent {
		case 0:
			want = math.Ldexp(float64(mantissa), -24)
		case 0x1f:
			want = math.Inf(1)
			if mantissa != 0 {
				want = math.NaN()
			}
		default:
			want = math.Ldexp(float64(1024+mantissa), exponent-25)
		}
		negative := h>>15 == 1
		if negative {
			want = -want
		}
		same := float64(got) == want && math.Signbit(float64(got)) == negative
		if math.IsNaN(want) {
			same = math.IsNaN(float64(got)) && int(math.Float32bits(got)>>13)&0x3ff == mantissa
		}
		if !same {
			t.Fatalf("%04x: want %g, got %g", h, want, got)
		}
	}
}

func TestReadConverts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "all.safetensors")
	le := binary.LittleEndian
	err := weights.WriteSafetensors(path, nil, []weights.Source{
		weights.Bytes("f64", weights.F64, []int64{2}, le.AppendUint64(le.AppendUint64(nil, math.Float64bits(0.1)), math.Float64bits(-2))),
		weights.Bytes("bf16", weights.BF16, []int64{2}, []byte{0x80, 0x3f, 0x01, 0x80}),
		weights.Float32s("f32", nil, []float32{7}),
		weights.Int64s("i64", []int64{2}, []int64{math.MinInt64, 5}),
		weights.Bytes("i32", weights.I32, []int64{1}, []byte{0xfe, 0xff, 0xff, 0xff}),
		weights.Bytes("i16", weights.I16, []int64{1}, []byte{0xfe, 0xff}),
		weights.Bytes("i8", weights.I8, []int64{1}, []byte{0xfe}),
		weights.Bytes("u32", weights.U32, []int64{1}, []byte{0xfe, 0xff, 0xff, 0xff}),
		weights.Bytes("u16", weights.U16, []int64{1}, []byte{0xfe, 0xff}),
		weights.Bytes("u8", weights.U8, []int64{1, 1}, []byte{0xfe}),
		weights.Bytes("bool", weights.Bool, []int64{2}, []byte{1, 0}),
		weights.Bytes("u64", weights.U64, []int64{1}, []byte{0, 0, 0, 0, 0, 0, 0, 0x80}),
	})
	if err != nil {
		t.Fatal(err)
	}
	f := openFile(t, path)
	for name, want := range map[string][]float32{"f64": {0.1, -2}, "bf16": {1, math.Float32frombits(0x80010000)}, "f32": {7}} {
		if diff := cmp.Diff(want, readFloat32(t, f, name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for name, want := range map[string][]int64{
		"i64": {math.MinInt64, 5}, "i32": {-2}, "i16": {-2}, "i8": {-2},
		"u32": {1<<32 - 2}, "u16": {1<<16 - 2}, "u8": {254}, "bool": {1, 0},
	} {
		got := make([]int64, len(want))
		if err := f.ReadInt64(name, got); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	requireFormatError(t, f.ReadInt64("u64", make([]int64, 1)), "does not fit")
	requireFormatError(t, f.ReadInt64("f32", make([]int64, 1)), "ReadInt64 takes integers")
	requireFormatError(t, f.ReadFloat32("i64", make([]float32, 2)), "ReadFloat32 takes F32")
	requireFormatError(t, f.ReadFloat32("f64", make([]float32, 3)), "has 2 elements, but 3 are wanted")
	requireFormatError(t, f.ReadBytes("f64", make([]byte, 3)), "has 16 bytes, but 3 are wanted")
	requireFormatError(t, f.ReadFloat32("encoder.f64", nil), `no tensor "encoder.f64"`, `"f64"`)
}

func TestWriteIsDeterministic(t *testing.T) {
	dir := t.TempDir()
	half := weights.Bytes("a.half", weights.F16, []int64{1}, []byte{1, 2})
	big := make([]float32, 300_000) // more than one chunk
	for i := range big {
		big[i] = float32(i)
	}
	single, scalar := weights.Float32s("z<&>é", []int64{300, 1000}, big), weights.Float32s("m", nil, []float32{3})
	metadata := map[string]string{"format": "pt", "b": `"quoted"`, "a": ""}
	one, two := filepath.Join(dir, "1"), filepath.Join(dir, "2")
	for path, order := range map[string][]weights.Source{one: {half, single, scalar}, two: {single, scalar, half}} {
		if err := weights.WriteSafetensors(path, metadata, order); err != nil {
			t.Fatal(err)
		}
	}
	a, err := os.ReadFile(one)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(two)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("the bytes depend on the order of the sources")
	}
	want := `{"__metadata__":{"a":"","b":"\"quoted\"","format":"pt"},"m":{"dtype":"F32","shape":[],"data_offsets":[0,4]},` +
		`"z<&>é":{"dtype":"F32","shape":[300,1000],"data_offsets":[4,1200004]},"a.half":{"dtype":"F16","shape":[1],"data_offsets":[1200004,1200006]}}`
	if n := binary.LittleEndian.Uint64(a); n%8 != 0 || strings.TrimRight(string(a[8:8+n]), " ") != want {
		t.Errorf("header of %d bytes: %s", n, a[8:8+n])
	}
	f := openFile(t, one)
	if diff := cmp.Diff(metadata, f.Metadata()); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	if !slices.Equal(big, readFloat32(t, f, "z<&>é")) {
		t.Error("the numbers changed on the way through the file")
	}
}

// TestWriteLeavesNothingHalfWritten fails a write in the middle over an older
// file, which must survive, alone in its folder.
func TestWriteLeavesNothingHalfWritten(t *testing.T) {
	failure := errors.New("the source failed")
	ok := weights.Float32s("a", []int64{1}, []float32{1})
	tests := []struct {
		name string
		with weights.Source
		want string
	}{
		{"failing source", weights.Source{Name: "b", DType: weights.F32, Shape: []int64{2}, WriteTo: func(w io.Writer) error {
			_, err := w.Write(make([]byte, 4))
			return errors.Join(err, failure)
		}}, failure.Error()},
		{"short source", weights.Float32s("b", []int64{2}, []float32{1}), "wrote 4 bytes where F32[2] has 8"},
		{"long source", weights.Float32s("b", []int64{2}, []float32{1, 2, 3}), "wrote 12 bytes"},
		{"name twice", weights.Float32s("a", []int64{1}, []float32{1}), "given twice"},
		{"no name", weights.Float32s("", []int64{1}, []float32{1}), "name of a tensor"},
		{"reserved name", weights.Float32s("__metadata__", []int64{1}, []float32{1}), "name of a tensor"},
		{"name that is not text", weights.Float32s("\xff", []int64{1}, []float32{1}), "name of a tensor"},
		{"negative dimension", weights.Float32s("b", []int64{-1}, nil), "impossible dimension"},
		{"unknown type", weights.Bytes("b", "F7", []int64{1}, nil), "unknown type"},
		{"no data", weights.Source{Name: "b", DType: weights.F32}, "no data"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "model.safetensors")
			if err := weights.WriteSafetensors(path, nil, []weights.Source{ok}); err != nil {
				t.Fatal(err)
			}
			err := weights.WriteSafetensors(path, nil, []weights.Source{ok, test.with})
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("want an error about %q and %s, got %v", test.want, path, err)
			}
			if diff := cmp.Diff([]float32{1}, readFloat32(t, openFile(t, path), "a")); diff != "" {
				t.Errorf("the older file changed (-want +got):\n%s", diff)
			}
			files, err := os.ReadDir(dir)
			if err != nil || len(files) != 1 {
				t.Errorf("left behind: %v, %v", files, err)
			}
		})
	}
	err := weights.WriteSafetensors(filepath.Join(t.TempDir(), "missing", "x"), nil, []weights.Source{ok})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing folder: %v", err)
	}
}

func TestFolders(t *testing.T) {
	put := func(dir, name string, value float32) {
		t.Helper()
		if err := weights.WriteSafetensors(filepath.Join(dir, name), nil, []weights.Source{
			weights.Float32s(strings.TrimSuffix(name, filepath.Ext(name)), []int64{1}, []float32{value}),
		}); err != nil {
			t.Fatal(err)
		}
	}
	index := func(dir, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "model.safetensors.index.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("empty", func(t *testing.T) {
		_, err := weights.Open(t.TempDir())
		requireFormatError(t, err, "no model.safetensors")
		if !errors.Is(err, fs.ErrNotExist) {
			t.Error("not an fs.ErrNotExist")
		}
	})
	t.Run("missing", func(t *testing.T) {
		if _, err := weights.Open(filepath.Join(t.TempDir(), "x")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("content decides", func(t *testing.T) {
		dir := t.TempDir()
		put(dir, "pytorch_model.bin", 4)
		f := openFile(t, dir)
		if diff := cmp.Diff([]float32{4}, readFloat32(t, f, "pytorch_model")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("shards", func(t *testing.T) {
		dir := t.TempDir()
		put(dir, "one.safetensors", 1)
		put(dir, "two.safetensors", 2)
		index(dir, `{"metadata":{"total_size":8},"weight_map":{"one":"one.safetensors","two":"two.safetensors"}}`)
		f := openFile(t, dir)
		if diff := cmp.Diff([]string{"one", "two"}, f.Names()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]float32{2}, readFloat32(t, f, "two")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		names, err := weights.Files(dir)
		if diff := cmp.Diff([]string{"model.safetensors.index.json", "one.safetensors", "two.safetensors"}, names); err != nil || diff != "" {
			t.Errorf("Files: %v (-want +got):\n%s", err, diff)
		}
		put(dir, "model.safetensors", 3) // which comes first
		if names, err := weights.Files(dir); err != nil || len(names) != 1 || names[0] != "model.safetensors" {
			t.Errorf("Files: %v, %v; want model.safetensors", names, err)
		}
	})
	t.Run("no weights", func(t *testing.T) {
		if names, err := weights.Files(t.TempDir()); !errors.Is(err, fs.ErrNotExist) || len(names) != 0 {
			t.Errorf("Files: %v, %v; want fs.ErrNotExist", names, err)
		}
		dir := t.TempDir()
		index(dir, `{"weight_map":{"one":"../one.safetensors"}}`)
		_, err := weights.Files(dir)
		requireFormatError(t, err, "outside its folder")
	})
	for name, test := range map[string]struct{ index, want string }{
		"no JSON":       {`{`, "weight_map"},
		"no map":        {`{}`, "empty weight_map"},
		"escape":        {`{"weight_map":{"one":"../one.safetensors"}}`, "outside its folder"},
		"missing shard": {`{"weight_map":{"one":"one.safetensors","two":"two.safetensors"}}`, "not beside its index"},
		"other shard":   {`{"weight_map":{"one":"one.safetensors","two":"one.safetensors"}}`, `lacks tensor "two"`},
	} {
		t.Run("shards: "+name, func(t *testing.T) {
			dir := t.TempDir()
			put(dir, "one.safetensors", 1)
			index(dir, test.index)
			_, err := weights.Open(dir)
			requireFormatError(t, err, test.want)
		})
	}
}

func TestModernizeLayerNorm(t *testing.T) {
	path := filepath.Join(t.TempDir(), "old")
	one := func(name string, x float32) weights.Source {
		return weights.Float32s(name, []int64{1}, []float32{x})
	}
	if err := weights.WriteSafetensors(path, nil, []weights.Source{
		one("a.LayerNorm.gamma", 1), one("a.LayerNorm.beta", 2), one("b.LayerNorm.gamma", 3), one("b.LayerNorm.weight", 4), one("gamma", 5),
	}); err != nil {
		t.Fatal(err)
	}
	f := openFile(t, path)
	if _, ok := f.Info("a.LayerNorm.weight"); ok {
		t.Error("renamed without being asked")
	}
	f.ModernizeLayerNorm()
	want := []string{"a.LayerNorm.bias", "a.LayerNorm.weight", "b.LayerNorm.gamma", "b.LayerNorm.weight", "gamma"}
	if diff := cmp.Diff(want, f.Names()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]float32{2}, readFloat32(t, f, "a.LayerNorm.bias")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if info, _ := f.Info("a.LayerNorm.weight"); info.Name != "a.LayerNorm.weight" {
		t.Errorf("the description still says %s", info.Name)
	}
}

func TestStripWrappers(t *testing.T) {
	for name, c := range map[string]struct{ names, want []string }{
		"none":               {[]string{"a.weight", "module.b"}, []string{"a.weight", "module.b"}},
		"compiled":           {[]string{"_orig_mod.a", "_orig_mod.b.c"}, []string{"a", "b.c"}},
		"a compiled part":    {[]string{"deberta._orig_mod.a", "head.0.bias"}, []string{"deberta.a", "head.0.bias"}},
		"parallel":           {[]string{"module.a", "module.module.b"}, []string{"a", "module.b"}},
		"both":               {[]string{"_orig_mod.module.a", "_orig_mod.module.b"}, []string{"a", "b"}},
		"both, turned round": {[]string{"module._orig_mod.a", "module._orig_mod.b"}, []string{"a", "b"}},
		"a name twice":       {[]string{"_orig_mod.a", "a"}, []string{"_orig_mod.a", "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "wrapped")
			var sources []weights.Source
			for _, n := range c.names {
				sources = append(sources, weights.Float32s(n, []int64{1}, []float32{1}))
			}
			if err := weights.WriteSafetensors(path, nil, sources); err != nil {
				t.Fatal(err)
			}
			f := openFile(t, path)
			f.StripWrappers()
			if diff := cmp.Diff(c.want, f.Names()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestClosed(t *testing.T) {
	f, err := weights.Open(writeFile(t, safetensors(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 1, 2, 3, 4)))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.ReadFloat32("a", make([]float32, 1)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if err := f.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}
