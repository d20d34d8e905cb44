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
)

func main() {
	out := flag.String("out", filepath.Join("testdata", "sample"), "folder to write to")
	seed := flag.Uint64("seed", 1, "seed of texts and weights")
	posts := flag.Int("posts", 400, "number of posts")
	flag.Parse()
	files, err := sample(*seed, *posts)
	if err == nil {
		err = write(*out, files)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sampledata:", err)
		os.Exit(1)
	}
}

// sample returns the content of every file by its path below the folder.
func sample(seed uint64, n int) (map[string][]byte, error) {
	posts := newGenerator(seed).posts(n)
	files := make(map[string][]byte)

	rows := [][]string{{"post_id", "text"}}
	for _, p := range posts {
		rows = append(rows, []string{p.id, p.text()})
	}
	var err error
	if files["redsm5_posts.csv"], err = encodeCSV(rows); err != nil {
		return nil, err
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
	if files["redsm5_annotations.csv"], err = encodeCSV(rows); err != nil {
		return nil, err
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
		return nil, err
	}
	files["criteria.json"] = append(text, '\n')

	if err := addCheckpoint(files, seed); err != nil {
		return nil, err
	}
	return files, nil
}

func encodeCSV(rows [][]string) ([]byte, error) {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	if err := w.WriteAll(rows); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func write(dir string, files map[string][]byte) error {
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
