package criteria_test

import (
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria"
)

func sampleConfig() criteria.DataConfig {
	c := criteria.DefaultConfig().Data
	c.ReDSM5Dir, c.DSM5CriteriaPath = "testdata/sample", "testdata/sample/criteria.json"
	return c
}

func TestReadDataset(t *testing.T) {
	d, err := criteria.ReadDataset(t.Context(), sampleConfig(), 42)
	if err != nil {
		t.Fatal(err)
	}
	if d.Name != "sample" || d.Source != "testdata/sample" || len(d.Notes) != 0 {
		t.Errorf("name %q, source %q, notes %v", d.Name, d.Source, d.Notes)
	}
	if diff := cmp.Diff([]string{"criteria.json", "redsm5_annotations.csv", "redsm5_posts.csv"}, slices.Sorted(maps.Keys(d.Hashes))); diff != "" {
		t.Errorf("hashes (-want +got):\n%s", diff)
	}
	posts := make(map[string]string)
	total := len(d.Train) + len(d.Val) + len(d.Test)
	for split, examples := range map[string][]criteria.Example{"train": d.Train, "val": d.Val, "test": d.Test} {
		for _, e := range examples {
			if other, ok := posts[e.PostID]; ok && other != split {
				t.Fatalf("post %s is in %s and %s", e.PostID, other, split)
			}
			posts[e.PostID] = split
			if e.Post == "" || e.Criterion == "" || e.CriterionID == "" {
				t.Fatalf("an empty field in %+v", e)
			}
		}
	}
	if total != 9*len(posts) {
		t.Errorf("%d pairs of %d posts; want 9 for each", total, len(posts))
	}
	if share := float64(len(d.Train)) / float64(total); share < 0.79 || share > 0.81 {
		t.Errorf("the training split is a share of %v; want 0.8", share)
	}
	again, err := criteria.ReadDataset(t.Context(), sampleConfig(), 42)
	if diff := cmp.Diff(d, again); err != nil || diff != "" {
		t.Errorf("read again: %v\n%s", err, diff)
	}
	if other, err := criteria.ReadDataset(t.Context(), sampleConfig(), 43); err != nil || cmp.Equal(d.Test, other.Test) {
		t.Errorf("another seed gave the same split (%v)", err)
	}
}

func TestReadDatasetOwnSplit(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i, split := range []string{"train", "val", "test"} {
		p := string(rune('p' + i))
		write(split+".csv", "post_id,text,criterion_id,status\n"+p+"1,some text,c1,1\n"+p+"2,other text,c1,0\n")
	}
	write("criteria.json", `{"c1": "the first", "c2": "nobody speaks about it"}`)
	c := criteria.DefaultConfig().Data
	c.ReDSM5Dir, c.DSM5CriteriaPath = dir, filepath.Join(dir, "criteria.json")
	d, err := criteria.ReadDataset(t.Context(), c, 1)
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Train) != 2 || len(d.Val) != 2 || len(d.Test) != 2 {
		t.Errorf("splits of %d, %d and %d pairs; want 2 each", len(d.Train), len(d.Val), len(d.Test))
	}
	if notes := strings.Join(d.Notes, "\n"); !strings.Contains(notes, "ratios are ignored") || !strings.Contains(notes, "c2") {
		t.Errorf("notes: %s", notes)
	}
}

func TestReadDatasetFaults(t *testing.T) {
	c := sampleConfig()
	c.ReDSM5Dir = filepath.Join(t.TempDir(), "none")
	_, err := criteria.ReadDataset(t.Context(), c, 1)
	var fault *criteria.DataError
	if !errors.As(err, &fault) || fault.File != c.ReDSM5Dir || !strings.Contains(err.Error(), "data.redsm5_dir") {
		t.Errorf("a folder that does not exist: %#v", err)
	}
}

// A text that stands under several post ids in different splits is said, once.
func TestSharedTextsAreReported(t *testing.T) {
	b := newBench(t)
	b.config.Train.Epochs = 1
	logged := func() string {
		var log strings.Builder
		b.run(t, criteria.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		return log.String()
	}
	const note = "under several post ids"
	if got := logged(); strings.Contains(got, note) {
		t.Errorf("nothing is shared, but the log says:\n%s", got)
	}
	text, from := b.data.Train[0].Post, b.data.Train[0].PostID
	for i := range b.data.Test {
		if b.data.Test[i].PostID == b.data.Test[0].PostID {
			b.data.Test[i].Post = text
		}
	}
	b.dir = t.TempDir()
	got := logged()
	if strings.Count(got, note) != 1 || !strings.Contains(got, from) || !strings.Contains(got, b.data.Test[0].PostID) || !strings.Contains(got, "level=WARN") {
		t.Errorf("the log says:\n%s", got)
	}
}
