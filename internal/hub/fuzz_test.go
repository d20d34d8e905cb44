package hub

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/memwatch"
)

// FuzzParse: whatever is accepted as the name of a model stays inside the cache.
func FuzzParse(f *testing.F) {
	f.Add("microsoft/deberta-v3-base@main")
	f.Fuzz(func(t *testing.T, ref string) {
		memwatch.Start(t, len(ref))
		m, err := parse(ref)
		if err != nil {
			return
		}
		if folder := m.folder(); filepath.Base(folder) != folder || !filepath.IsLocal(folder) {
			t.Errorf("%q has the folder %q", ref, folder)
		}
		if path := filepath.FromSlash(m.revision); !filepath.IsLocal(path) || strings.Contains(m.revision, "..") {
			t.Errorf("%q has the revision %q", ref, m.revision)
		}
		if want := strings.TrimSuffix(m.id+"@"+m.revision, "@main"); want != strings.TrimSuffix(ref, "@main") {
			t.Errorf("%q was read as %q", ref, want)
		}
	})
}
