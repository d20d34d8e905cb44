package criteria

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// card is the model card of best_model/: what the model is, from which data it
// comes, how good it is and how it is used. Without the scores of the test
// split it says that they are not known yet.
func (r *run) card() []byte {
	var b strings.Builder
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

	b.WriteString("## Scores\n\n| split | pairs | accuracy | macro-F1 | weighted F1 | precision | recall | loss |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	row := func(name string, pairs int, s Scores) {
		fmt.Fprintf(&b, "| %s | %d | %.4f | %.4f | %.4f | %.4f | %.4f | %.4f |\n",
			name, pairs, s.Accuracy, s.MacroF1, s.WeightedF1, s.Precision, s.Recall, s.Loss)
	}
	row("validation", len(r.data.Val), r.state.best().Val)
	if r.testTally.WeightSum > 0 {
		row("test", len(r.data.Test), r.testTally.scores())
	}
	fmt.Fprintf(&b, "\nThese are the weights of epoch %d, the best by validation macro-F1. Precision and recall\nare those of class 1, \"the post shows the criterion\"; F1 is averaged over both classes.\n", r.state.BestEpoch)
	if r.testTally.WeightSum == 0 {
		b.WriteString("The test split was not evaluated (yet).\n")
	}

	fmt.Fprintf(&b, "\n## Data\n\n%d pairs to train on, %d to validate, %d to test; no post is in two splits.\n", len(r.data.Train), len(r.data.Val), len(r.data.Test))
	if len(r.data.Hashes) > 0 {
		b.WriteString("\n| file | SHA-256 |\n| --- | --- |\n")
		for _, name := range slices.Sorted(maps.Keys(r.data.Hashes)) {
			fmt.Fprintf(&b, "| %s | %s |\n", name, r.data.Hashes[name])
		}
	}

	b.WriteString("\n## Use\n\nIn Go:\n\n```go\nclassifier, err := criteria.Load(ctx, \"best_model\")\n" +
		"predictions, err := classifier.Predict(ctx, []criteria.Pair{{Post: post, Criterion: criterion}})\n```\n\n" +
		"In Python (the encoder; the head is in model.safetensors beside it):\n\n```python\n" +
		"from transformers import AutoModel, AutoTokenizer\n\nencoder = AutoModel.from_pretrained(\"best_model\")\ntokenizer = AutoTokenizer.from_pretrained(\"best_model\")\n```\n\n")
	fmt.Fprintf(&b, "## Configuration\n\n```yaml\n%s```\n", r.cfg.Redacted().YAML())
	return []byte(b.String())
}

// quoteYAML writes s as a scalar that any YAML reader takes for a string.
func quoteYAML(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
