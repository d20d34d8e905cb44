// Package token turns pairs of texts into token ids, as DeBERTaV3 wants them:
// [CLS] first [SEP] second [SEP].
//
// A checkpoint brings either tokenizer.json, or spm.model (a SentencePiece
// unigram model), which [ConvertSentencePiece] turns into the tokenizer.json
// that the converter of transformers 4.x makes. The texts are split in Go, into
// the ids, and at the places, that the Rust tokenizers library finds, version
// 0.20.4: tests compare the two. With the build tag daulet that library itself,
// through github.com/daulet/tokenizers, splits them; see "deps oracle".
package token

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/criteria-go/criteria/internal/atomicfile"
	"github.com/criteria-go/criteria/internal/parallel"
	"github.com/criteria-go/criteria/internal/readfile"
)

// ErrClosed is returned by the methods of a [Tokenizer] after Close.
var ErrClosed = errors.New("token: tokenizer is closed")

// Pair is two texts to be encoded together.
type Pair struct{ First, Second string }

// SpecialIDs are the ids of the special tokens.
type SpecialIDs struct{ PAD, CLS, SEP, UNK, MASK int32 }

// Encoding is one encoded pair.
type Encoding struct {
	IDs           []int32
	AttentionMask []int32 // 1 for tokens, 0 for padding
	TypeIDs       []int32 // 0 up to the first [SEP] and for padding, 1 after it
	Truncated     bool    // whether tokens of a text were cut off
}

// Encodings holds the ids of many pairs, unpadded, one after another.
type Encodings struct {
	IDs       []int32
	Offsets   []int  // pair i is IDs[Offsets[i]:Offsets[i+1]]; len = pairs+1
	Truncated []bool // whether tokens of pair i were cut off; len = pairs
}

// Len returns the number of pairs.
func (e Encodings) Len() int { return len(e.Truncated) }

// At returns the ids of pair i, a view.
func (e Encodings) At(i int) []int32 { return e.IDs[e.Offsets[i]:e.Offsets[i+1]] }

// Tokenizer encodes pairs. It is safe for concurrent use.
type Tokenizer struct {
	definition *definition
	config     []byte // tokenizer_config.json

	mu      sync.RWMutex // held for reading while the encoder is in use
	encoder encoder      // nil once closed
}

// An Option changes how [Open] and [FromJSON] set up a tokenizer.
type Option func(*options)

type options struct{ interpretSpecialTokens bool }

// InterpretSpecialTokens makes strings such as "[SEP]" in a text become the
// special token, as transformers does by default. Without it they are split
// like any other text, so that nobody can write a post that ends early or
// brings its own criterion.
func InterpretSpecialTokens() Option { return func(o *options) { o.interpretSpecialTokens = true } }

// Open loads the tokenizer of the checkpoint in dir: tokenizer.json if it is
// there, otherwise spm.model and, if it is there, tokenizer_config.json with
// the keys do_lower_case and split_by_punct.
func Open(dir string, opts ...Option) (*Tokenizer, error) {
	configPath := filepath.Join(dir, configFile)
	config, err := readfile.All(context.Background(), configPath, readfile.Tokenizer)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("token: %w", err)
	}
	path := filepath.Join(dir, jsonFile)
	text, err := readfile.All(context.Background(), path, readfile.Tokenizer)
	if errors.Is(err, os.ErrNotExist) {
		path = filepath.Join(dir, spmFile)
		text, err = convertFile(path, configPath, config)
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("token: found neither %s nor %s in %s, want one of them; copy it there from the model's page on the hub: %w",
				jsonFile, spmFile, dir, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	t, err := FromJSON(text, opts...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	t.config = config
	return t, nil
}

func convertFile(path, configPath string, config []byte) ([]byte, error) {
	c, err := parseConfig(config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", configPath, err)
	}
	model, err := readfile.All(context.Background(), path, maxModelSize)
	if err != nil {
		return nil, err
	}
	text, err := ConvertSentencePiece(model, c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}

// FromJSON makes a tokenizer of the content of a tokenizer.json.
func FromJSON(text []byte, opts ...Option) (*Tokenizer, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	def, err := parseDefinition(text)
	if err != nil {
		return nil, err
	}
	enc, err := newEncoder(def, o.interpretSpecialTokens)
	if err != nil {
		return nil, fmt.Errorf("token: tokenizer.json: %w", err)
	}
	def.vocab = vocabulary{} // the encoder has its own form of it
	return &Tokenizer{definition: def, encoder: enc}, nil
}

// JSON returns the tokenizer.json of this tokenizer. The caller must not
// change it.
func (t *Tokenizer) JSON() []byte { return t.definition.text }

// SaveTo writes tokenizer.json and tokenizer_config.json into dir, from which
// [Open] and transformers load the same tokenizer.
func (t *Tokenizer) SaveTo(dir string) error {
	config := t.config
	if config == nil {
		config = []byte("{\n  \"do_lower_case\": false,\n  \"tokenizer_class\": \"DebertaV2Tokenizer\",\n  \"vocab_type\": \"spm\"\n}\n")
	}
	if err := atomicfile.WriteFile(filepath.Join(dir, jsonFile), t.definition.text); err != nil {
		return fmt.Errorf("token: %w", err)
	}
	if err := atomicfile.WriteFile(filepath.Join(dir, configFile), config); err != nil {
		return fmt.Errorf("token: %w", err)
	}
	return nil
}

// Special returns the ids of the special tokens.
func (t *Tokenizer) Special() SpecialIDs { return t.definition.special }

// VocabSize returns the number of ids, [MASK] and other added tokens included.
// The embedding table of a checkpoint may be longer, but not shorter.
func (t *Tokenizer) VocabSize() int { return t.definition.size }

// Close frees the tokenizer after waiting for the calls that use it. A second
// call does nothing.
func (t *Tokenizer) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.encoder != nil {
		t.encoder.close()
		t.encoder = nil
	}
	return nil
}

// EncodePair encodes [CLS] first [SEP] second [SEP], cut to at most maxLength
// ids and padded. An empty second text still gets its [SEP]. If truncation may
// not cut enough, the error is a [*TruncationError].
func (t *Tokenizer) EncodePair(first, second string, maxLength int, truncation Truncation, padding Padding) (Encoding, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.encoder == nil {
		return Encoding{}, ErrClosed
	}
	return t.assemble(maxLength, truncation, padding, t.ids(first), t.ids(second))
}

// assemble builds the encoding of one text, or of two.
func (t *Tokenizer) assemble(maxLength int, truncation Truncation, padding Padding, parts ...[]int32) (Encoding, error) {
	keep := make([]int, len(parts))
	for i, p := range parts {
		keep[i] = len(p)
	}
	truncated, err := truncation.cut(keep, maxLength)
	if err != nil {
		return Encoding{}, err
	}
	length := 1
	for _, n := range keep {
		length += n + 1
	}
	padded := length
	if padding == PadMaxLength {
		padded = max(length, maxLength)
	}

	s := t.definition.special
	e := Encoding{
		IDs:           make([]int32, 0, padded),
		AttentionMask: make([]int32, padded),
		TypeIDs:       make([]int32, padded),
		Truncated:     truncated,
	}
	e.IDs = append(e.IDs, s.CLS)
	for i, p := range parts {
		start := len(e.IDs)
		e.IDs = append(append(e.IDs, p[:keep[i]]...), s.SEP)
		for j := start; j < len(e.IDs); j++ {
			e.TypeIDs[j] = int32(i)
		}
	}
	for i := range e.IDs {
		e.AttentionMask[i] = 1
	}
	for len(e.IDs) < padded {
		e.IDs = append(e.IDs, s.PAD)
	}
	return e, nil
}

// EncodeAll encodes pairs on several goroutines (0: one per CPU) and returns
// them in order, cut to at most maxLength ids and unpadded. Each distinct text
// is split once, however many pairs it is in: in a cross product of posts and
// criteria that is most of the work.
func (t *Tokenizer) EncodeAll(ctx context.Context, pairs []Pair, workers, maxLength int, truncation Truncation) (Encodings, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.encoder == nil {
		return Encodings{}, ErrClosed
	}

	// Number the distinct texts.
	numbers := make(map[string]int)
	var texts []string
	number := func(text string) {
		if _, ok := numbers[text]; !ok {
			numbers[text] = len(texts)
			texts = append(texts, text)
		}
	}
	for _, p := range pairs {
		number(p.First)
		number(p.Second)
	}
	ids, err := t.split(ctx, texts, workers)
	if err != nil {
		return Encodings{}, err
	}

	// Cut, then copy into one array of exactly the right size.
	e := Encodings{Offsets: make([]int, len(pairs)+1), Truncated: make([]bool, len(pairs))}
	kept := make([][2]int, len(pairs))
	for i, p := range pairs {
		kept[i] = [2]int{len(ids[numbers[p.First]]), len(ids[numbers[p.Second]])}
		e.Truncated[i], err = truncation.cut(kept[i][:], maxLength)
		if err != nil {
			return Encodings{}, fmt.Errorf("pair %d: %w", i, err)
		}
		e.Offsets[i+1] = e.Offsets[i] + 3 + kept[i][0] + kept[i][1]
	}
	s := t.definition.special
	e.IDs = make([]int32, 0, e.Offsets[len(pairs)])
	for i, p := range pairs {
		e.IDs = append(e.IDs, s.CLS)
		e.IDs = append(e.IDs, ids[numbers[p.First]][:kept[i][0]]...)
		e.IDs = append(e.IDs, s.SEP)
		e.IDs = append(e.IDs, ids[numbers[p.Second]][:kept[i][1]]...)
		e.IDs = append(e.IDs, s.SEP)
	}
	return e, nil
}

// split splits texts on several goroutines, all of which have ended when it
// returns.
func (t *Tokenizer) split(ctx context.Context, texts []string, workers int) ([][]int32, error) {
	if workers <= 0 {
		workers = parallel.Cores()
	}
	const portion = 16 // texts taken at once: fewer would contend, more would leave one goroutine last
	ids := make([][]int32, len(texts))
	parallel.Do((len(texts)+portion-1)/portion, workers, func(part int) {
		if ctx.Err() != nil {
			return
		}
		from := part * portion
		for i, text := range texts[from:min(from+portion, len(texts))] {
			ids[from+i] = t.ids(text)
		}
	})
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	return ids, nil
}

// ids splits one text. The caller holds t.mu.
func (t *Tokenizer) ids(text string) []int32 {
	return t.encoder.encode([]int32{}, text)
}
