// Command sampledata writes the sample that the demo and the tests train on:
// fictional posts in the layout of the published corpus, and a tiny checkpoint
// with random weights.
//
//	go run ./internal/cmd/sampledata -out testdata/sample
//
// It writes redsm5_posts.csv, redsm5_annotations.csv, criteria.json and, in
// tiny-deberta, config.json, tokenizer_config.json and model.safetensors. The
// same flags give the same bytes. The vocabulary tiny-deberta/spm.model is not
// made here; see tiny-deberta/README.md.
//
// With -hard the posts are those of a harder sample, on which ways of training
// are compared (make bench-quality).
package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/criteria-go/criteria/internal/atomicfile"
)

func main() {
	out := flag.String("out", filepath.Join("testdata", "sample"), "folder to write to")
	seed := flag.Uint64("seed", 1, "seed of texts and weights")
	posts := flag.Int("posts", 400, "number of posts")
	hard := flag.Bool("hard", false, "write the harder sample")
	flag.Parse()
	generate := (*generator).posts
	if *hard {
		generate = (*generator).hardPosts
	}
	if err := write(*out, *seed, generate(newGenerator(*seed), *posts)); err != nil {
		fmt.Fprintln(os.Stderr, "sampledata:", err)
		os.Exit(1)
	}
}

// write writes a sample of posts to dir, with a checkpoint of that seed.
func write(dir string, seed uint64, posts []post) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	rows := [][]string{{"post_id", "text"}}
	for _, p := range posts {
		rows = append(rows, []string{p.id, p.text()})
	}
	if err := writeCSV(filepath.Join(dir, "redsm5_posts.csv"), rows); err != nil {
		return err
	}

	rows = [][]string{{"post_id", "sentence_id", "sentence_text", "DSM5_symptom", "status", "explanation"}}
	for _, p := range posts {
		for i, s := range p.sentences {
			if s.label != "" {
				rows = append(rows, []string{p.id, fmt.Sprintf("%s-%d", p.id, i+1), s.text, s.label,
					strconv.Itoa(s.status), s.explanation})
			}
		}
	}
	if err := writeCSV(filepath.Join(dir, "redsm5_annotations.csv"), rows); err != nil {
		return err
	}

	criteria := struct {
		Diagnosis string          `json:"diagnosis"`
		Criteria  []criterionText `json:"criteria"`
	}{Diagnosis: "Major depressive disorder (paraphrased for the sample)"}
	for _, s := range symptoms {
		criteria.Criteria = append(criteria.Criteria, s.criterion)
	}
	text, err := json.MarshalIndent(criteria, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.WriteFile(filepath.Join(dir, "criteria.json"), append(text, '\n')); err != nil {
		return err
	}
	return writeCheckpoint(filepath.Join(dir, "tiny-deberta"), seed)
}

func writeCSV(path string, rows [][]string) error {
	var b bytes.Buffer
	if err := csv.NewWriter(&b).WriteAll(rows); err != nil {
		return err
	}
	return atomicfile.WriteFile(path, b.Bytes())
}
