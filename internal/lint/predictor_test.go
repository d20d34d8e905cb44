package lint

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What a program that only predicts may take. The limits may only be lowered.
const (
	maxPredictorSize     = 25_000_000 // bytes, on amd64, with symbols
	maxPredictorPackages = 360        // the standard library's included, half of them
)

// notInPredictor are modules that such a program does without.
var notInPredictor = []string{
	"modernc.org/", "github.com/jackc/pgx", "github.com/go-sql-driver/mysql", // see packages sqlite, postgres, mysql
	"github.com/daulet/tokenizers",
}

// TestPredictorIsSmall builds a program that loads a model and predicts.
func TestPredictorIsSmall(t *testing.T) {
	const program = "./internal/lint/testdata/predictor"
	packages := strings.Fields(string(golist(t, "-deps", program)))
	for _, p := range packages {
		for _, module := range notInPredictor {
			if strings.HasPrefix(p, module) {
				t.Errorf("a program that only predicts links %s", p)
			}
		}
	}
	if len(packages) > maxPredictorPackages {
		t.Errorf("a program that only predicts links %d packages, want at most %d", len(packages), maxPredictorPackages)
	}
	file := filepath.Join(t.TempDir(), "predictor")
	build := exec.Command("go", "build", "-o", file, program)
	build.Dir = root
	// Building needs a C compiler and nothing else, least of all flags for the linker.
	build.Env = append(os.Environ(), "CGO_LDFLAGS=", "CXX=/nonexistent")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d packages, %.1f MB", len(packages), float64(info.Size())/1e6)
	if info.Size() > maxPredictorSize {
		t.Errorf("a program that only predicts has %d bytes, want at most %d", info.Size(), maxPredictorSize)
	}
}
