package token

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits of a tokenizer.json. That of DeBERTaV3 has 8 MB and 128,001 tokens, that
// of mDeBERTaV3 16 MB and 250,102.
const (
	maxJSONSize = 64 << 20
	maxPieces   = 1 << 21
	maxAdded    = 1 << 16
	maxSteps    = 64 // of a normalizer or pre-tokenizer, nested ones included
)

// definition is a tokenizer.json, read and checked.
type definition struct {
	text         []byte
	added        []addedToken // with the ids that transformers gives them
	normalizer   normalizer   // nil: none
	splitter     splitter
	vocab        vocabulary
	unknown      int
	byteFallback bool
	special      SpecialIDs
	size         int
}

// specialNames are the tokens that every DeBERTaV3 tokenizer has.
var specialNames = []string{"[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"}

// addedToken is a token that is looked for in a text before it is split.
type addedToken struct {
	ID         int    `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`

	protected bool // a special token of the checkpoint itself, which no text may bring
}

// parseDefinition reads a tokenizer.json and refuses what DeBERTa does not have.
func parseDefinition(text []byte) (*definition, error) {
	if len(text) > maxJSONSize {
		return nil, fmt.Errorf("token: found a tokenizer.json of %d bytes, want at most %d", len(text), maxJSONSize)
	}
	var f struct {
		Version       *string         `json:"version"`
		AddedTokens   []addedToken    `json:"added_tokens"`
		Normalizer    json.RawMessage `json:"normalizer"`
		PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
		PostProcessor json.RawMessage `json:"post_processor"`
		Model         *struct {
			Type         string     `json:"type"`
			UnkID        *int       `json:"unk_id"`
			Vocab        vocabulary `json:"vocab"`
			ByteFallback bool       `json:"byte_fallback"`
		} `json:"model"`
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, fmt.Errorf("token: found no tokenizer.json, want one that the tokenizers library has written: %w", err)
	}
	switch {
	case f.Version != nil && *f.Version != "1.0":
		return nil, fmt.Errorf("token: found a tokenizer.json of version %q, want 1.0", *f.Version)
	case f.Model == nil:
		return nil, errors.New(`token: found a tokenizer.json without "model", want one of a DeBERTaV3 checkpoint`)
	case f.Model.Type != "Unigram":
		return nil, fmt.Errorf("token: found a tokenizer.json with a model of type %q, want Unigram, as all DeBERTaV3 models have; remove the file to use spm.model", f.Model.Type)
	case f.Model.Vocab.err != nil:
		return nil, fmt.Errorf("token: tokenizer.json: model: vocab: %w", f.Model.Vocab.err)
	case f.Model.UnkID == nil:
		return nil, errors.New("token: tokenizer.json: model: found no unk_id, want the id of the piece for unknown characters")
	}
	d := &definition{
		text: text, added: f.AddedTokens, vocab: f.Model.Vocab,
		unknown: *f.Model.UnkID, byteFallback: f.Model.ByteFallback,
	}
	var err error
	if d.normalizer, err = parseNormalizer(f.Normalizer, new(int)); err != nil {
		return nil, fmt.Errorf("token: tokenizer.json: normalizer: %w", err)
	}
	if d.splitter, err = parseSplitter(f.PreTokenizer); err != nil {
		return nil, fmt.Errorf("token: tokenizer.json: pre_tokenizer: %w", err)
	}
	if err := d.numberAdded(templateTokens(f.PostProcessor)); err != nil {
		return nil, fmt.Errorf("token: tokenizer.json: added_tokens: %w", err)
	}
	return d, nil
}

// numberAdded gives the added tokens the ids that transformers gives them,
// whatever the file says: that of the piece of the same name, else the next one.
// A second token of the same name changes the first.
func (d *definition) numberAdded(template map[string]bool) error {
	if len(d.added) > maxAdded {
		return fmt.Errorf("found %d, want at most %d", len(d.added), maxAdded)
	}
	pieces := len(d.vocab.pieces)
	wanted := make(map[string]bool, len(d.added))
	for _, a := range d.added {
		if a.ID < 0 || a.ID > maxPieces {
			return fmt.Errorf("found the id %d of %q, want one of 0 to %d", a.ID, a.Content, maxPieces)
		}
		wanted[a.Content] = true
	}
	ids := make(map[string]int, len(wanted))
	for id, piece := range d.vocab.pieces {
		if wanted[piece] {
			ids[piece] = id
		}
	}
	next := pieces
	numbered := d.added[:0:0]
	places := make(map[string]int, len(wanted))
	for _, a := range d.added {
		if a.Content == "" {
			continue
		}
		id, ok := ids[a.Content]
		if !ok {
			id = next
			ids[a.Content] = id
		}
		next = max(next, id+1)
		a.ID = id
		a.protected = a.Special && (id < pieces || slices.Contains(specialNames, a.Content) || template[a.Content])
		if at, again := places[a.Content]; again {
			numbered[at] = a
			continue
		}
		places[a.Content] = len(numbered)
		numbered = append(numbered, a)
	}
	d.added, d.size = numbered, next
	for i, id := range []*int32{&d.special.PAD, &d.special.CLS, &d.special.SEP, &d.special.UNK, &d.special.MASK} {
		at, ok := places[specialNames[i]]
		if !ok {
			return fmt.Errorf("found no %s, want [PAD], [CLS], [SEP], [UNK] and [MASK], as DeBERTaV3 has", specialNames[i])
		}
		*id = int32(numbered[at].ID)
	}
	return nil
}

// templateTokens returns the special tokens that a post-processor puts around texts.
func templateTokens(post json.RawMessage) map[string]bool {
	var p struct {
		Tokens map[string]json.RawMessage `json:"special_tokens"`
	}
	names := map[string]bool{}
	if json.Unmarshal(post, &p) == nil {
		for name := range p.Tokens {
			names[name] = true
		}
	}
	return names
}

// normalizerSpec is a normalizer in tokenizer.json.
type normalizerSpec struct {
	Type        string            `json:"type"`
	Normalizers []json.RawMessage `json:"normalizers"`
	StripLeft   bool              `json:"strip_left"`
	StripRight  bool              `json:"strip_right"`
	Charsmap    string            `json:"precompiled_charsmap"`
	Pattern     struct{ String, Regex *string }
	Content     string `json:"content"`
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(bytes.TrimSpace(raw)) == "null" }

// parseNormalizer reads a normalizer; steps counts those read so far.
func parseNormalizer(raw json.RawMessage, steps *int) (normalizer, error) {
	if isNull(raw) {
		return nil, nil
	}
	if *steps++; *steps > maxSteps {
		return nil, fmt.Errorf("found more than %d steps", maxSteps)
	}
	var s normalizerSpec
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	switch s.Type {
	case "Sequence":
		var all sequence
		for _, raw := range s.Normalizers {
			n, err := parseNormalizer(raw, steps)
			if err != nil {
				return nil, err
			}
			if n != nil {
				all = append(all, n)
			}
		}
		return all, nil
	case "Strip":
		return strip{s.StripLeft, s.StripRight}, nil
	case "Lowercase":
		return lowercase{}, nil
	case "NFC":
		return nfc{}, nil
	case "Precompiled":
		data, err := base64.StdEncoding.DecodeString(s.Charsmap)
		if err != nil {
			return nil, fmt.Errorf("precompiled_charsmap: %w", err)
		}
		return parseCharsmap(data)
	case "Replace":
		return parseReplace(s)
	}
	return nil, fmt.Errorf("found the type %q, want those of DeBERTa: %s; remove the file to use spm.model", s.Type,
		"Sequence, Strip, Lowercase, NFC, Precompiled or Replace")
}

func parseReplace(s normalizerSpec) (normalizer, error) {
	switch p := s.Pattern; {
	case p.String != nil && *p.String != "":
		pattern := []byte(*p.String)
		return replaceAll{func(text []byte) int {
			if bytes.HasPrefix(text, pattern) {
				return len(pattern)
			}
			return 0
		}, s.Content}, nil
	case p.Regex != nil && patterns[*p.Regex] != nil:
		return replaceAll{patterns[*p.Regex], s.Content}, nil
	case p.Regex != nil:
		return nil, fmt.Errorf("found the regular expression %q to replace, want one of %q; remove the file to use spm.model",
			*p.Regex, slices.Sorted(maps.Keys(patterns)))
	}
	return nil, errors.New("found nothing to replace, want a pattern")
}

// splitterSpec is a pre-tokenizer in tokenizer.json.
type splitterSpec struct {
	Type           string         `json:"type"`
	PreTokenizers  []splitterSpec `json:"pretokenizers"`
	Behavior       string         `json:"behavior"`
	Replacement    string         `json:"replacement"`
	AddPrefixSpace *bool          `json:"add_prefix_space"`
	PrependScheme  string         `json:"prepend_scheme"`
	Split          *bool          `json:"split"`
}

// parseSplitter reads a pre-tokenizer: Metaspace, perhaps with Punctuation before it.
func parseSplitter(raw json.RawMessage) (splitter, error) {
	if isNull(raw) {
		return splitter{}, errors.New("found none, want Metaspace, as all DeBERTaV3 models have")
	}
	var s splitterSpec
	if err := json.Unmarshal(raw, &s); err != nil {
		return splitter{}, err
	}
	specs := []splitterSpec{s}
	if s.Type == "Sequence" {
		specs = s.PreTokenizers
	}
	var names []string
	for _, s := range specs {
		names = append(names, s.Type)
	}
	var result splitter
	switch strings.Join(names, " ") {
	case "Metaspace":
	case "Punctuation Metaspace":
		if b := specs[0].Behavior; b != "" && b != "Isolated" {
			return splitter{}, fmt.Errorf("found Punctuation with the behavior %q, want Isolated", b)
		}
		result.punctuation = true
	default:
		return splitter{}, fmt.Errorf("found %q, want Metaspace, or Punctuation and Metaspace; remove the file to use spm.model", names)
	}
	var err error
	result.metaspace, err = parseMetaspace(specs[len(specs)-1])
	return result, err
}

func parseMetaspace(s splitterSpec) (metaspace, error) {
	m := metaspace{mark: s.Replacement, whole: s.Split != nil && !*s.Split}
	if utf8.RuneCountInString(m.mark) != 1 || m.mark == " " {
		return m, fmt.Errorf("found Metaspace with the replacement %q, want one character, as ▁", m.mark)
	}
	switch s.PrependScheme {
	case "always", "":
	case "first":
		m.prepend = prependFirst
	case "never":
		m.prepend = prependNever
	default:
		return m, fmt.Errorf("found Metaspace with the prepend_scheme %q, want always, first or never", s.PrependScheme)
	}
	if s.AddPrefixSpace != nil && !*s.AddPrefixSpace {
		if m.prepend != prependNever {
			return m, errors.New("found Metaspace with add_prefix_space false and a prepend_scheme that is not never")
		}
	}
	return m, nil
}

// vocabulary is the vocab of a Unigram model, [[piece, score], …].
type vocabulary struct {
	pieces []string
	scores []float64
	err    error // what is wrong with it, if it is one of another model
}

// UnmarshalJSON reads the pieces, of which there are many: reflection takes ten
// times as long. What it is given is JSON.
func (v *vocabulary) UnmarshalJSON(text []byte) error {
	*v = vocabulary{}
	r := pieceReader{text: string(text)}
	n := len(text) / 32 // of the bytes a piece has, with its score
	v.pieces, v.scores = make([]string, 0, n), make([]float64, 0, n)
	if !r.is('[') {
		v.err = errors.New("found no list of [piece, score]")
		return nil
	}
	for more := !r.is(']'); more; more = r.is(',') {
		piece, score, err := r.piece()
		if err == nil && len(v.pieces) == maxPieces {
			err = fmt.Errorf("found more than %d", maxPieces)
		}
		if err != nil {
			v.err = fmt.Errorf("piece %d: %w", len(v.pieces), err)
			return nil
		}
		v.pieces = append(v.pieces, piece)
		v.scores = append(v.scores, score)
	}
	return nil
}

// pieceReader reads [piece, score] in JSON that is known to be well formed.
type pieceReader struct {
	text string // one for all pieces, which are parts of it
	at   int
}

// is reports whether the next token is a delimiter, and takes it if so.
func (r *pieceReader) is(c byte) bool {
	for r.at < len(r.text) && strings.IndexByte(" \t\r\n", r.text[r.at]) >= 0 {
		r.at++
	}
	if r.at == len(r.text) || r.text[r.at] != c {
		return false
	}
	r.at++
	return true
}

var errPiece = errors.New("want [piece, score]")

func (r *pieceReader) piece() (string, float64, error) {
	if !r.is('[') || !r.is('"') {
		return "", 0, errPiece
	}
	piece, err := r.string()
	if err != nil || !r.is(',') {
		return "", 0, errPiece
	}
	r.is(' ') // skips white space
	start := r.at
	for r.at < len(r.text) && strings.IndexByte("+-.0123456789eE", r.text[r.at]) >= 0 {
		r.at++
	}
	score, err := strconv.ParseFloat(r.text[start:r.at], 64)
	if err != nil || !r.is(']') {
		return "", 0, errPiece
	}
	return piece, score, nil
}

// string reads a string whose first quotation mark is behind.
func (r *pieceReader) string() (string, error) {
	start := r.at
	plain := true
	for ; r.text[r.at] != '"'; r.at++ {
		if r.text[r.at] == '\\' {
			plain = false
			r.at++
		}
	}
	r.at++
	if raw := r.text[start : r.at-1]; plain && utf8.ValidString(raw) {
		return raw, nil
	}
	var s string
	err := json.Unmarshal([]byte(r.text[start-1:r.at]), &s)
	return s, err
}
