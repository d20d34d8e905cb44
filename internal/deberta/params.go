package deberta

import (
	"fmt"
	"strings"
)

// Param is a trainable tensor. Names are the hub's keys; the head's are
// head.{k}.weight [out, in] and head.{k}.bias, k = 0 for the first hidden layer.
type Param struct {
	Name  string
	Shape []int
	// Decay tells whether weight decay applies: not to biases and LayerNorms,
	// as in Hugging Face's Trainer.
	Decay bool
}

// Size returns the number of elements.
func (p Param) Size() int {
	n := 1
	for _, d := range p.Shape {
		n *= d
	}
	return n
}

// IsHead tells whether the parameter belongs to the head, which a checkpoint
// from the hub does not have.
func (p Param) IsHead() bool { return strings.HasPrefix(p.Name, "head.") }

// WordEmbeddings is the name of the one parameter whose gradient comes as rows.
const WordEmbeddings = "deberta.embeddings.word_embeddings.weight"

const relEmbeddings = "deberta.encoder.rel_embeddings.weight"

// Model is an encoder with a head on top.
type Model struct {
	Config Config
	Head   Head
	// Recompute makes training graphs that compute the activations of every
	// layer twice instead of keeping them. The gradients are the same.
	Recompute bool
}

// Params lists the parameters: decayed ones first, so that each of the two
// kinds is one range of a flat buffer; query, key and value of a layer are
// neighbours.
func (m Model) Params() []Param {
	c := m.Config
	d, ffn := c.HiddenSize, c.IntermediateSize
	var decayed, plain []Param
	matrix := func(name string, rows, columns int) {
		decayed = append(decayed, Param{name, []int{rows, columns}, true})
	}
	vector := func(name string, n int) { plain = append(plain, Param{name, []int{n}, false}) }
	norm := func(prefix string) {
		vector(prefix+".weight", d)
		vector(prefix+".bias", d)
	}
	linear := func(prefix string, out, in int) {
		matrix(prefix+".weight", out, in)
		vector(prefix+".bias", out)
	}

	matrix(WordEmbeddings, c.VocabSize, d)
	norm("deberta.embeddings.LayerNorm")
	matrix(relEmbeddings, 2*c.PositionBuckets, d)
	norm("deberta.encoder.LayerNorm")
	for l := range c.Layers {
		prefix := layerPrefix(l)
		linear(prefix+"attention.self.query_proj", d, d)
		linear(prefix+"attention.self.key_proj", d, d)
		linear(prefix+"attention.self.value_proj", d, d)
		linear(prefix+"attention.output.dense", d, d)
		norm(prefix + "attention.output.LayerNorm")
		linear(prefix+"intermediate.dense", ffn, d)
		linear(prefix+"output.dense", d, ffn)
		norm(prefix + "output.LayerNorm")
	}
	in := d
	for k, width := range append(append([]int{}, m.Head.HiddenDims...), Classes) {
		linear(fmt.Sprintf("head.%d", k), width, in)
		in = width
	}
	return append(decayed, plain...)
}

func layerPrefix(l int) string { return fmt.Sprintf("deberta.encoder.layer.%d.", l) }
