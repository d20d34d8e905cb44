package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/criteria-go/criteria/internal/golden"
	"github.com/google/go-cmp/cmp"
)

// TestSampleIsReproducible compares what the generator writes with what is
// committed: whoever changes one must change the other.
func TestSampleIsReproducible(t *testing.T) {
	dir := t.TempDir()
	if err := write(dir, 1, newGenerator(1).posts(400)); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		want, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		got, err := os.ReadFile(filepath.Join(golden.Root(t), "testdata", "sample", name))
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			t.Errorf("testdata/sample/%s is not what the generator writes; run go run ./internal/cmd/sampledata", filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestPosts looks at what the sample promises.
func TestPosts(t *testing.T) {
	posts := newGenerator(1).posts(400)
	if diff := cmp.Diff(posts, newGenerator(1).posts(400), cmp.AllowUnexported(post{}, sentence{})); diff != "" {
		t.Errorf("a second time (-want +got):\n%s", diff)
	}
	if cmp.Equal(posts, newGenerator(2).posts(400), cmp.AllowUnexported(post{}, sentence{})) {
		t.Error("two seeds give the same posts")
	}
	shown, denied := make(map[string]int), make(map[string]int)
	for _, p := range posts {
		if n := len(p.sentences); n < 1 || n > 8 {
			t.Errorf("%s has %d sentences, want 1 to 8", p.id, n)
		}
		if strings.ContainsAny(p.text(), "{}") {
			t.Errorf("%s has a slot that was not filled: %s", p.id, p.text())
		}
		for _, s := range p.sentences {
			if s.status == 1 {
				shown[s.label]++
			} else if s.label != "" {
				denied[s.label]++
			}
		}
	}
	for _, s := range symptoms {
		if shown[s.label] < 60 || denied[s.label] < 10 {
			t.Errorf("%s is shown by %d posts and denied by %d, want at least 60 and 10", s.label, shown[s.label], denied[s.label])
		}
	}
}

// TestHardPosts looks at what makes the harder sample hard.
func TestHardPosts(t *testing.T) {
	posts := newGenerator(1).hardPosts(1000)
	shown, errors := 0, 0
	for _, p := range posts {
		if strings.ContainsAny(p.text(), "{}") {
			t.Errorf("%s has a slot that was not filled: %s", p.id, p.text())
		}
		positive := make(map[string]bool)
		for _, s := range p.sentences {
			if s.status == 1 {
				positive[s.label] = true
			}
			if strings.HasPrefix(s.explanation, "An error") {
				errors++
			}
		}
		shown += len(positive)
	}
	if share := float64(shown) / float64(len(posts)*len(symptoms)); share < 0.09 || share > 0.12 {
		t.Errorf("%.3f of the pairs are positive, want about 0.1", share)
	}
	if errors == 0 {
		t.Error("no annotator has erred")
	}
	for label, more := range paraphrases {
		if len(more) < 4 || !slices.ContainsFunc(symptoms, func(s symptom) bool { return s.label == label }) {
			t.Errorf("%d paraphrases of %q, want four at least of a symptom", len(more), label)
		}
	}
}

// TestTinyVocabulary checks that the embedding table has a row for every
// piece of spm.model and for [MASK].
func TestTinyFits(t *testing.T) {
	dir := filepath.Join(golden.Root(t), "testdata", "sample", "tiny-deberta")
	total := int64(0)
	for _, name := range []string{"config.json", "model.safetensors", "spm.model", "tokenizer_config.json"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > 2<<20 {
		t.Errorf("the tiny checkpoint takes %d bytes, want at most 2 MiB", total)
	}
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got config
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tiny, got); diff != "" {
		t.Errorf("config.json (-want +got):\n%s", diff)
	}
}
