package criteria

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/criteria-go/criteria/internal/atomicfile"
	"github.com/criteria-go/criteria/internal/report"
	"github.com/criteria-go/criteria/internal/sumfile"
)

// reportPart is a file of a report.
type reportPart struct {
	name string
	make func() ([]byte, error)
}

// file writes a file of a report into the output directory and stores it as an
// artifact.
func (r *record) file(ctx context.Context, f reportPart) error {
	content, err := f.make()
	if err != nil {
		return fmt.Errorf("criteria: make %s: %w", f.name, err)
	}
	if err := atomicfile.WriteFile(filepath.Join(r.outputDir, f.name), content); err != nil {
		return fmt.Errorf("criteria: write %s: %w", f.name, err)
	}
	return r.artifact(ctx, f.name, content)
}

// report writes pictures and tables beside the model and stores all artifacts.
func (r *run) report(ctx context.Context) error {
	files := []reportPart{
		{confusionFile, r.confusionPicture},
		{reportFile, func() ([]byte, error) { return json.MarshalIndent(r.tested.Confusion.Report(), "", "  ") }},
	}
	if r.plan.keepsModel() {
		files = append(files, reportPart{curvesFile, r.curvesPicture})
	}
	for _, f := range files {
		if err := r.record.file(ctx, f); err != nil {
			return err
		}
	}
	dir := filepath.Join(r.outputDir, bestModelDir)
	if r.plan.keepsModel() {
		// Only now are the test scores known, which belong on the model card.
		card := filepath.Join(dir, cardFile)
		err := atomicfile.WriteFile(card, r.card())
		if err == nil {
			err = sumfile.Write(dir)
		}
		if err != nil {
			return fmt.Errorf("criteria: write the model card: %w", err)
		}
	}
	if err := r.record.tracked.LogArtifacts(ctx, dir, modelArtifact); err != nil {
		return trackingError("store the model", err)
	}
	return nil
}

// confusionPicture draws how the test split was judged.
func (r *run) confusionPicture() ([]byte, error) {
	counts := [][]int{r.tested.Confusion[0][:], r.tested.Confusion[1][:]}
	scores := r.tested.scores()
	title := fmt.Sprintf("Test split: macro-F1 %.3f, accuracy %.3f", scores.MacroF1, scores.Accuracy)
	return report.ConfusionMatrix(title, counts, []string{"absent (0)", "present (1)"})
}

// curvesPicture draws how losses and scores went over the epochs.
func (r *run) curvesPicture() ([]byte, error) {
	s := &r.loop.progress.state
	epochs := make([]report.Epoch, len(s.History))
	for i, e := range s.History {
		epochs[i] = report.Epoch{
			Number: e.Epoch, TrainLoss: e.Train.Loss, ValLoss: e.Val.Loss,
			TrainF1: e.Train.MacroF1, ValF1: e.Val.MacroF1,
		}
	}
	return report.TrainingCurves("Training of "+r.cfg.Model.Checkpoint, epochs, s.BestEpoch)
}

// card is the model card of best_model/: what the model is, from which data it
// comes, how good it is and how it is used. Without the scores of the test
// split it says that they are not known yet.
func (r *run) card() []byte {
	var b strings.Builder
	s, d := &r.loop.progress.state, r.splits.data
	base, metadata := r.cfg.Model.Checkpoint, ""
	if base != r.base.Dir { // an id of the hub, which its pages can link to; a folder says nothing to others
		metadata = "base_model: " + quoteYAML(base) + "\n"
	}
	fmt.Fprintf(&b, `---
library_name: criteria
pipeline_tag: text-classification
%s---

# Does a post show a criterion?

A DeBERTaV3 cross-encoder, fine-tuned from %s. It reads a pair of texts,
[CLS] post [SEP] criterion [SEP], and says with which probability the post
shows the criterion.

It is a research model. It does not diagnose, and no decision about a person
must rest on it alone.

`, metadata, base)

	b.WriteString("## Scores\n\n| split | pairs | accuracy | macro-F1 | weighted F1 | precision | recall | loss |\n" +
		"| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	row := func(name string, pairs int, s Scores) {
		fmt.Fprintf(&b, "| %s | %d | %.4f | %.4f | %.4f | %.4f | %.4f | %.4f |\n",
			name, pairs, s.Accuracy, s.MacroF1, s.WeightedF1, s.Precision, s.Recall, s.Loss)
	}
	row("validation", len(d.Val), s.best().Val)
	if r.tested.WeightSum > 0 {
		row("test", len(d.Test), r.tested.scores())
	}
	fmt.Fprintf(&b, "\nThese are the weights of epoch %d, the best by validation macro-F1. Precision and recall\n"+
		"are those of class 1, \"the post shows the criterion\"; F1 is averaged over both classes.\n", s.BestEpoch)
	if r.tested.WeightSum == 0 {
		b.WriteString("The test split was not evaluated (yet).\n")
	}

	fmt.Fprintf(&b, "\n## Data\n\n%d pairs to train on, %d to validate, %d to test; no post is in two splits.\n",
		len(d.Train), len(d.Val), len(d.Test))
	if len(d.Hashes) > 0 {
		b.WriteString("\n| file | SHA-256 |\n| --- | --- |\n")
		for _, name := range slices.Sorted(maps.Keys(d.Hashes)) {
			fmt.Fprintf(&b, "| %s | %s |\n", name, d.Hashes[name])
		}
	}

	b.WriteString("\n## Use\n\nIn Go:\n\n```go\nclassifier, err := criteria.Load(ctx, \"best_model\")\n" +
		"predictions, err := classifier.Predict(ctx, []criteria.Pair{{Post: post, Criterion: criterion}})\n```\n\n" +
		"In Python (the encoder; the head is in model.safetensors beside it):\n\n```python\n" +
		"from transformers import AutoModel, AutoTokenizer\n\nencoder = AutoModel.from_pretrained(\"best_model\")\n" +
		"tokenizer = AutoTokenizer.from_pretrained(\"best_model\")\n```\n\n")
	fmt.Fprintf(&b, "## Configuration\n\n```yaml\n%s```\n", r.cfg.Redacted().YAML())
	return []byte(b.String())
}

// quoteYAML writes s as a scalar that any YAML reader takes for a string.
func quoteYAML(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
