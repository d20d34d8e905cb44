package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/criteria-go/criteria/internal/atomicfile"
	"github.com/criteria-go/criteria/internal/deberta"
	"github.com/criteria-go/criteria/internal/graph"
	"github.com/criteria-go/criteria/internal/weights"
)

// Exports read a saved model from its folder; they need no ONNX Runtime.

// Files of an export.
const (
	exportedModel = "model.onnx"
	externalData  = exportedModel + ".data"
	headFile      = "head.safetensors"
)

// savedModel is a model on the disk.
type savedModel struct {
	deberta.Model
	config []byte // config.json
	file   *weights.File
}

func openSaved(dir string) (*savedModel, error) {
	config, raw, err := readConfig(context.Background(), dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("engine: %w: give the best_model folder of a training", err)
	} else if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	head, err := readHead(raw)
	if err == nil {
		err = head.Validate()
	}
	if err != nil {
		return nil, fmt.Errorf("engine: %s: %w", dir, err)
	}
	file, err := weights.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	file.StripWrappers()
	if err := checkSize(config, file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	file.ModernizeLayerNorm()
	m := &savedModel{deberta.Model{Config: config, Head: head}, raw, file}
	// All parameters are there, before anything is written.
	for _, p := range m.Params() {
		if _, err := findParam(file, p); err != nil {
			return nil, errors.Join(err, file.Close())
		}
	}
	return m, nil
}

// read returns the elements of a parameter.
func (m *savedModel) read(p deberta.Param) ([]float32, error) {
	name, err := findParam(m.file, p)
	if err != nil {
		return nil, err
	}
	elements := make([]float32, p.Size())
	if err := m.file.ReadFloat32(name, elements); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	return elements, nil
}

// ONNXExport says how a model is exported.
type ONNXExport struct {
	Int8     bool        // weights of the encoder in eight bits; see [deberta.Model.Inference]
	External bool        // elements of the weights in a file of their own, whatever their size
	Metadata [][2]string // metadata_props of the model
}

// ExportONNX writes the model in modelDir into dir, which exists, as
// model.onnx: its inputs and outputs are those of [deberta.Model.Inference].
// Weights that exceed what a protobuf message may hold are in model.onnx.data.
func ExportONNX(ctx context.Context, modelDir, dir string, o ONNXExport) (err error) {
	m, err := openSaved(modelDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.file.Close()) }()
	g := m.Inference(func(p deberta.Param) ([]float32, error) {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("engine: exporting %s: %w", modelDir, context.Cause(ctx))
		}
		return m.read(p)
	}, o.Int8)
	model := filepath.Join(dir, exportedModel)
	err = graph.ErrTooLarge
	if !o.External {
		err = atomicfile.Write(model, func(w io.Writer) error { return g.WriteModel(w, nil, o.Metadata...) })
	}
	if errors.Is(err, graph.ErrTooLarge) {
		// The data get their name before the model that refers to them.
		err = atomicfile.Write(model, func(w io.Writer) error {
			return atomicfile.Write(filepath.Join(dir, externalData), func(data io.Writer) error {
				return g.WriteModel(w, &graph.External{Location: externalData, W: data}, o.Metadata...)
			})
		})
	}
	return err
}

// ExportTransformers writes the model in modelDir into dir, which exists, in the
// layout of transformers, and returns the name of the class that is to load it.
//
// DebertaV2ForSequenceClassification is a linear layer as wide as the encoder
// with an activation, on the first token, then the logits. It holds every head
// with cls pooling of at most one hidden layer that is not wider: a narrower one
// is filled up with units that stay 0, and no layer at all is the identity.
//
// Of any other model the encoder is a DebertaV2Model, and head.safetensors
// holds head.{k}.weight [out, in] and head.{k}.bias.
func ExportTransformers(ctx context.Context, modelDir, dir string) (class string, err error) {
	m, err := openSaved(modelDir)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, m.file.Close()) }()
	class = "DebertaV2Model"
	h := m.Head
	whole := h.Pooling == "cls" && len(h.HiddenDims) <= 1 && (len(h.HiddenDims) == 0 || h.HiddenDims[0] <= m.Config.HiddenSize)
	if whole {
		class = "DebertaV2ForSequenceClassification"
	}

	var model, head []weights.Source
	for _, p := range m.Params() {
		switch name := p.Name; {
		case p.IsHead() && whole: // below
		case p.IsHead():
			head = append(head, m.source(ctx, p, name))
		case whole:
			model = append(model, m.source(ctx, p, name))
		default:
			model = append(model, m.source(ctx, p, strings.TrimPrefix(name, "deberta.")))
		}
	}
	if whole {
		classifier, err := m.sequenceClassifier()
		if err != nil {
			return "", err
		}
		model = append(model, classifier...)
	}
	config, err := m.transformersConfig(class, whole)
	if err != nil {
		return "", err
	}
	format := map[string]string{"format": "pt"}
	if err := weights.WriteSafetensors(filepath.Join(dir, weightsFile), format, model); err != nil {
		return "", fmt.Errorf("engine: %w", err)
	}
	if !whole {
		if err := weights.WriteSafetensors(filepath.Join(dir, headFile), format, head); err != nil {
			return "", fmt.Errorf("engine: %w", err)
		}
	}
	return class, atomicfile.WriteFile(filepath.Join(dir, configFile), config)
}

// source is a parameter under a name of its own, in float32.
func (m *savedModel) source(ctx context.Context, p deberta.Param, name string) weights.Source {
	return weights.Source{Name: name, DType: weights.F32, Shape: int64s(p.Shape), WriteTo: func(w io.Writer) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		elements, err := m.read(p)
		if err != nil {
			return err
		}
		return weights.Float32s(name, int64s(p.Shape), elements).WriteTo(w)
	}}
}

// sequenceClassifier returns the head as DebertaV2ForSequenceClassification has
// it: pooler.dense and classifier.
func (m *savedModel) sequenceClassifier() ([]weights.Source, error) {
	elements := map[string][]float32{}
	for _, p := range m.Params() {
		if p.IsHead() {
			values, err := m.read(p)
			if err != nil {
				return nil, err
			}
			elements[p.Name] = values
		}
	}
	d := m.Config.HiddenSize
	dense, bias, classifier := make([]float32, d*d), make([]float32, d), make([]float32, deberta.Classes*d)
	width, last := d, "head.0"
	if len(m.Head.HiddenDims) == 1 {
		width, last = m.Head.HiddenDims[0], "head.1"
		copy(dense, elements["head.0.weight"]) // the first rows; the others stay 0
		copy(bias, elements["head.0.bias"])
	} else {
		for i := range d {
			dense[i*d+i] = 1
		}
	}
	for c := range deberta.Classes {
		copy(classifier[c*d:], elements[last+".weight"][c*width:][:width])
	}
	square, wide := int64(d), int64(deberta.Classes)
	return []weights.Source{
		weights.Float32s("pooler.dense.weight", []int64{square, square}, dense),
		weights.Float32s("pooler.dense.bias", []int64{square}, bias),
		weights.Float32s("classifier.weight", []int64{wide, square}, classifier),
		weights.Float32s("classifier.bias", []int64{wide}, elements[last+".bias"]),
	}, nil
}

// transformersConfig returns the config.json of an export.
func (m *savedModel) transformersConfig(class string, whole bool) ([]byte, error) {
	var file map[string]any
	if err := json.Unmarshal(m.config, &file); err != nil {
		return nil, err
	}
	delete(file, "torch_dtype") // the older name of dtype
	file["dtype"] = "float32"
	file["architectures"] = []string{class}
	if whole {
		delete(file, headKey)
		activation := "linear" // transformers' name for none
		if len(m.Head.HiddenDims) == 1 {
			activation = m.Head.Activation
		}
		file["pooler_hidden_size"] = m.Config.HiddenSize
		file["pooler_hidden_act"] = activation
		file["pooler_dropout"] = 0
		file["cls_dropout"] = m.Head.Dropout
		file["problem_type"] = "single_label_classification"
		file["id2label"] = map[string]string{"0": deberta.ClassNames[0], "1": deberta.ClassNames[1]}
		file["label2id"] = map[string]int{deberta.ClassNames[0]: 0, deberta.ClassNames[1]: 1}
	}
	out, err := json.MarshalIndent(file, "", "  ")
	return append(out, '\n'), err
}
