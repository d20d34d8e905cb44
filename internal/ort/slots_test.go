package ort_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The places of the functions in ONNX Runtime's table are written down in
// api.h. They are compared with the declaration of the table in the header that
// onnxruntime_go carries.
func TestSlots(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/yalue/onnxruntime_go").Output()
	if err != nil {
		t.Fatal(err)
	}
	header, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "onnxruntime_c_api.h"))
	if err != nil {
		t.Fatal(err)
	}
	table := string(header)
	_, table, ok := strings.Cut(table, "\nstruct OrtApi {\n")
	if !ok {
		t.Fatal("no struct OrtApi in the header")
	}
	table, _, _ = strings.Cut(table, "\n};\n")
	table = regexp.MustCompile(`(?s)/\*.*?\*/|//[^\n]*`).ReplaceAllString(table, "")
	member := regexp.MustCompile(`ORT_API2_STATUS\(\s*(\w+)|ORT_CLASS_RELEASE\(\s*(\w+)\s*\)|\(\s*ORT_API_CALL\s*\*\s*(\w+)\)|ORT_API_T\(\s*[^,]+,\s*(\w+)`)
	slots := map[string]int{}
	for i, m := range member.FindAllStringSubmatch(table, -1) {
		name := m[1] + m[3] + m[4]
		if m[2] != "" {
			name = "Release" + m[2]
		}
		slots[name] = i
	}

	ours, err := os.ReadFile("api.h")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`ORTX_(\w+) = (\d+),`).FindAllStringSubmatch(string(ours), -1)
	if len(found) < 40 {
		t.Fatalf("only %d slots found in api.h", len(found))
	}
	for _, m := range found {
		got, _ := strconv.Atoi(m[2])
		if want, ok := slots[m[1]]; !ok || got != want {
			t.Errorf("%s: got slot %d, want %d (in the header: %t)", m[1], got, want, ok)
		}
	}
}
