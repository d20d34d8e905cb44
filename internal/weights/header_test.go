package weights

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/memwatch"
)

// manyTensors is the header of a file with n tensors without elements.
func manyTensors(n int) []byte {
	b := make([]byte, 0, 110*n)
	for i := range n {
		b = append(b, `,"encoder.layer.`...)
		b = strconv.AppendInt(b, int64(i), 10)
		b = append(b, `.attention.self.weight":{"dtype":"F32","shape":[0,768],"data_offsets":[0,0]}`...)
	}
	b[0] = '{'
	return append(b, '}')
}

// TestManyTensors: a header with a million tensors takes no more than four times
// its size.
func TestManyTensors(t *testing.T) {
	const n = 1_000_000
	if testing.Short() {
		t.Skip("takes 400 MB")
	}
	header := manyTensors(n)
	if len(header) > maxHeader {
		header = manyTensors(n * 9 / 10 * maxHeader / len(header))
	}
	content := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	content = append(content, header...)
	memwatch.Start(t, len(content)-16<<20)
	// What is allocated in all is the most that can be needed at once.
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f, err := openSafetensors("many", bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	took := after.TotalAlloc - before.TotalAlloc
	if tensors := len(f.tensors); tensors < n*8/10 {
		t.Errorf("%d tensors were read", tensors)
	}
	if took > 4*uint64(len(content)) {
		t.Errorf("a header of %d bytes took %d, more than four times as many", len(content), took)
	}
	t.Logf("%d tensors, header %.1f MB, allocated %.2f times as much", len(f.tensors), float64(len(content))/1e6,
		float64(took)/float64(len(content)))
}

// TestHeaderScanner: the scanner takes what JSON is, whatever its spaces and
// escapes, and nothing else.
func TestHeaderScanner(t *testing.T) {
	read := func(header string) (names []string, metadata map[string]string, err error) {
		metadata, err = parseHeader([]byte(header), func(name string, e safetensorsEntry) error {
			names = append(names, fmt.Sprintf("%s %s%v%v", name, e.DType, e.Shape, e.Offsets))
			return nil
		})
		return names, metadata, err
	}
	names, metadata, err := read(" {\t\"a\\u00e9\\\"\\n\" :\r\n{ \"shape\" : [ 1 , 2 ] , \"data_offsets\":[0,8],\"dtype\":\"F32\" } ," +
		"\"__metadata__\" : { \"k\":\"v\" , \"ä\":\"\" } , \"\":{\"dtype\":\"U8\",\"shape\":[ ],\"data_offsets\":[8,9]} } \n ")
	if err != nil || strings.Join(names, ";") != "aé\"\n F32[1 2][0 8]; U8[][8 9]" || len(metadata) != 2 || metadata["k"] != "v" {
		t.Errorf("got %q, %v, %v", names, metadata, err)
	}
	const entry = `{"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"__metadata__":{"k":"v"}}`
	for _, broken := range []string{
		"", "[]", "null", "{", `{"a"}`, `{"a":1}`, entry + "x", "x" + entry, entry + entry,
		strings.Replace(entry, "[1,2]", "[1,2.0]", 1), strings.Replace(entry, "[1,2]", "[01,2]", 1),
		strings.Replace(entry, "[1,2]", "[1e0,2]", 1), strings.Replace(entry, "[1,2]", "[1,2,]", 1),
		strings.Replace(entry, "[1,2]", "[1 2]", 1), strings.Replace(entry, "[1,2]", "[--1,2]", 1),
		strings.Replace(entry, "[1,2]", "[9223372036854775808]", 1), strings.Replace(entry, "[1,2]", "null", 1),
		strings.Replace(entry, "[0,8]", "[0,8,8]", 1), strings.Replace(entry, "[0,8]", "[0]", 1),
		strings.Replace(entry, "[0,8]", "[]", 1), strings.Replace(entry, `"F32"`, "32", 1),
		strings.Replace(entry, `"dtype"`, `"DTYPE"`, 1), strings.Replace(entry, `"dtype"`, `"shape"`, 1),
		strings.Replace(entry, `"dtype":"F32",`, `"dtype":"F32","dtype":"F32",`, 1),
		strings.Replace(entry, `"dtype":"F32",`, `"dtype":"F32","x":1,`, 1), strings.Replace(entry, `"a"`, "\"\xff\"", 1),
		strings.Replace(entry, `"a"`, `"\x"`, 1), strings.Replace(entry, `"a"`, "\"\n\"", 1), strings.Replace(entry, `"v"`, "1", 1),
		strings.Replace(entry, `"a"`, `'a'`, 1), strings.Replace(entry, `"F32",`, `"F32",,`, 1),
	} {
		if names, _, err := read(broken); err == nil {
			t.Errorf("%q was read as %q", broken, names)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 { // every beginning, and bytes changed at random
		cut := []byte(entry[:r.IntN(len(entry))])
		if _, _, err := read(string(cut)); err == nil {
			t.Fatalf("%q was read", cut)
		}
		changed := []byte(entry)
		changed[r.IntN(len(changed))] = byte(r.IntN(256))
		_, _, _ = read(string(changed)) // must not panic
	}
}
