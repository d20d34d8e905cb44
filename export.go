package criteria

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/criteria-go/criteria/internal/atomicfile"
	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/engine"
	"github.com/criteria-go/criteria/internal/readfile"
)

// ExportOption configures [ExportONNX].
type ExportOption interface {
	applyExport(*engine.ONNXExport) error
}

type exportOption func(*engine.ONNXExport) error

func (f exportOption) applyExport(o *engine.ONNXExport) error { return f(o) }

// WithInt8 stores the weights of the encoder in eight bits and computes the
// products of its linear layers in integers: a quarter of the size. What that
// costs in accuracy depends on the model: measure it on data of yours.
//
// Activations are quantised by their range in a batch, so the logits of a pair
// depend a little on the pairs that it is computed with.
func WithInt8() ExportOption {
	return exportOption(func(o *engine.ONNXExport) error {
		o.Int8 = true
		return nil
	})
}

// WithExternalData writes the weights into a file of their own, model.onnx.data,
// which must stay beside model.onnx. Models of more than 2 GiB are written so
// without being asked: ONNX files cannot be larger.
func WithExternalData() ExportOption {
	return exportOption(func(o *engine.ONNXExport) error {
		o.External = true
		return nil
	})
}

// ExportONNX writes the model in modelDir, a best_model folder, into the folder
// dir, which it makes if need be, for programs in any language that ONNX Runtime
// has a binding for: model.onnx, the weights included, and the tokenizer's
// tokenizer.json and tokenizer_config.json. It computes nothing and needs no
// ONNX Runtime.
//
// The model takes batches of any number of pairs and of any length:
//
//	input_ids       int64 [batch, sequence]   [CLS] post [SEP] criterion [SEP], padded with 0
//	attention_mask  int64 [batch, sequence]   1 for tokens, 0 for padding
//	token_type_ids  int64 [batch, sequence]   ignored
//	logits          float32 [batch, 2]        criterion absent, criterion present
//
// All operators are of the ONNX standard, version 20 (ONNX Runtime 1.18 or
// newer). The model's metadata_props are
//
//	criteria.version     of this library
//	criteria.labels      what the logits stand for, a JSON list
//	criteria.max_length  tokens to which pairs were cut in training
//	criteria.truncation  how they were cut
//	criteria.threshold   probability above which a pair is labelled true for the highest macro-F1
//	criteria.temperature by which logits are divided for calibrated probabilities
//
// The last two are from the validation split, and missing if the training did
// not store them; nothing in the model applies them.
// A file that is there already is replaced, once the new one is whole.
func ExportONNX(ctx context.Context, modelDir, dir string, opts ...ExportOption) error {
	var o engine.ONNXExport
	if err := applyAll(&o, opts, ExportOption.applyExport); err != nil {
		return err
	}
	tokenizer, err := readTokenizerConfig(modelDir)
	if err != nil {
		return err
	}
	labels, err := json.Marshal(deberta.ClassNames)
	if err != nil {
		return err
	}
	o.Metadata = [][2]string{
		{"criteria.version", moduleVersion()},
		{"criteria.labels", string(labels)},
		{"criteria.max_length", strconv.Itoa(tokenizer.MaxLength)},
		{"criteria.truncation", tokenizer.Truncation},
	}
	switch d, err := readDecision(modelDir); {
	case err == nil:
		o.Metadata = append(o.Metadata,
			[2]string{"criteria.threshold", strconv.FormatFloat(d.Threshold, 'g', -1, 64)},
			[2]string{"criteria.temperature", strconv.FormatFloat(d.Temperature, 'g', -1, 64)})
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return export(modelDir, dir, func() error { return engine.ExportONNX(ctx, modelDir, dir, o) })
}

// ExportTransformers writes the model in modelDir, a best_model folder, into the
// folder dir, which it makes if need be, in the layout of Hugging Face
// transformers, and returns the name of the class that is to load it.
//
// DebertaV2ForSequenceClassification is the whole model: from_pretrained of it,
// of AutoModelForSequenceClassification or of a pipeline gives the same logits.
// That class has a head for cls pooling and at most one hidden layer, not wider
// than the encoder, as the default head is; narrower ones are filled up with
// units that stay 0.
//
// Of models with another head, DebertaV2Model (AutoModel) loads the encoder,
// with the same hidden states. The head is in head.safetensors: per hidden layer
// head.{k}.weight [out, in] and head.{k}.bias, k from 0, and last the layer that
// gives the logits. Pooling, widths and activation are the entry criteria_head
// of config.json.
func ExportTransformers(ctx context.Context, modelDir, dir string) (class string, err error) {
	err = export(modelDir, dir, func() (err error) {
		class, err = engine.ExportTransformers(ctx, modelDir, dir)
		return err
	})
	return class, err
}

// export makes dir, has write fill it and adds the tokenizer's files.
func export(modelDir, dir string, write func() error) error {
	fail := func(err error) error { return fmt.Errorf("criteria: export %s to %s: %w", modelDir, dir, err) }
	if a, err := os.Stat(modelDir); err == nil {
		if b, err := os.Stat(dir); err == nil && os.SameFile(a, b) {
			return fail(errors.New("the folders are the same; give another one for the export"))
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fail(err)
	}
	if err := write(); err != nil {
		return fail(err)
	}
	for _, name := range []string{"tokenizer.json", "tokenizer_config.json"} {
		content, err := readfile.All(context.Background(), filepath.Join(modelDir, name), readfile.Tokenizer)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a tokenizer that was injected saves what it likes
		}
		if err == nil {
			err = atomicfile.WriteFile(filepath.Join(dir, name), content)
		}
		if err != nil {
			return fail(err)
		}
	}
	return nil
}
