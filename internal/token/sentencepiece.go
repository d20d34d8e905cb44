package token

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	jsonFile   = "tokenizer.json"
	spmFile    = "spm.model"
	configFile = "tokenizer_config.json"

	// The hub's model has 128,000 pieces in 2.5 MB. More than this is no
	// SentencePiece model of DeBERTa, and would cost memory to find out.
	maxModelSize = 64 << 20
)

// Config is the part of tokenizer_config.json that decides how spm.model is
// converted. The zero value is that of the hub's DeBERTaV3 checkpoints.
type Config struct {
	DoLowerCase  bool `json:"do_lower_case"`
	SplitByPunct bool `json:"split_by_punct"`
}

func parseConfig(text []byte) (Config, error) {
	var c Config
	if text == nil {
		return c, nil
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, fmt.Errorf("found no tokenizer configuration, want a JSON object with do_lower_case and split_by_punct true or false: %w", err)
	}
	return c, nil
}

// Types of SentencePiece.Type in sentencepiece_model.proto.
const (
	pieceNormal      = 1
	pieceControl     = 3
	pieceUserDefined = 4
)

// Values of TrainerSpec.ModelType.
const modelUnigram = 1

type spmPiece struct {
	text  string
	score float32
	kind  uint64
}

// spmModel is what the conversion needs of a ModelProto.
type spmModel struct {
	pieces    []spmPiece
	modelType uint64
	unkID     int32
	charsmap  []byte
}

// parseSentencePiece reads a serialised ModelProto (sentencepiece_model.proto
// of the SentencePiece project). Fields that the conversion has no use for are
// skipped.
func parseSentencePiece(data []byte) (*spmModel, error) {
	m := &spmModel{modelType: modelUnigram}
	err := fields(data, func(number protowire.Number, value wireValue) error {
		switch {
		case number == 1 && value.kind == protowire.BytesType: // repeated SentencePiece pieces
			if len(m.pieces) == maxPieces {
				return fmt.Errorf("found more than %d pieces", maxPieces)
			}
			p, err := parsePiece(value.bytes)
			if err != nil {
				return fmt.Errorf("piece %d: %w", len(m.pieces), err)
			}
			m.pieces = append(m.pieces, p)
		case number == 2 && value.kind == protowire.BytesType: // TrainerSpec trainer_spec
			return fields(value.bytes, func(number protowire.Number, value wireValue) error {
				switch {
				case number == 3 && value.kind == protowire.VarintType:
					m.modelType = value.number
				case number == 40 && value.kind == protowire.VarintType:
					m.unkID = int32(value.number)
				}
				return nil
			})
		case number == 3 && value.kind == protowire.BytesType: // NormalizerSpec normalizer_spec
			return fields(value.bytes, func(number protowire.Number, value wireValue) error {
				if number == 2 && value.kind == protowire.BytesType {
					m.charsmap = value.bytes
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("found no readable SentencePiece model, want one as on the hub (%w); download the file again", err)
	}
	switch {
	case len(m.pieces) == 0:
		return nil, errors.New("found a SentencePiece model without pieces, want one as on the hub; download the file again")
	case m.modelType != modelUnigram:
		return nil, fmt.Errorf("found a SentencePiece model of type %d, want type %d (unigram), as all DeBERTaV3 models have", m.modelType, modelUnigram)
	case m.unkID < 0 || int(m.unkID) >= len(m.pieces):
		return nil, fmt.Errorf("found unk_id %d in a SentencePiece model of %d pieces, want the id of a piece", m.unkID, len(m.pieces))
	}
	return m, nil
}

func parsePiece(data []byte) (spmPiece, error) {
	p := spmPiece{kind: pieceNormal}
	err := fields(data, func(number protowire.Number, value wireValue) error {
		switch {
		case number == 1 && value.kind == protowire.BytesType:
			if !utf8.Valid(value.bytes) {
				return fmt.Errorf("found a piece that is not UTF-8: %q", value.bytes)
			}
			p.text = string(value.bytes)
		case number == 2 && value.kind == protowire.Fixed32Type:
			p.score = math.Float32frombits(uint32(value.number))
			if s := float64(p.score); math.IsNaN(s) || math.IsInf(s, 0) {
				return fmt.Errorf("found the score %v, want a finite number", p.score)
			}
		case number == 3 && value.kind == protowire.VarintType:
			p.kind = value.number
		}
		return nil
	})
	return p, err
}

// wireValue is one field value as it stands in a protobuf message.
type wireValue struct {
	kind   protowire.Type
	number uint64 // varint, fixed32, fixed64
	bytes  []byte // length-delimited: a view into the message
}

// fields calls f for every field of a message, in order.
func fields(data []byte, f func(protowire.Number, wireValue) error) error {
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		value := wireValue{kind: kind}
		switch kind {
		case protowire.VarintType:
			value.number, n = protowire.ConsumeVarint(data)
		case protowire.Fixed32Type:
			var v uint32
			v, n = protowire.ConsumeFixed32(data)
			value.number = uint64(v)
		case protowire.Fixed64Type:
			value.number, n = protowire.ConsumeFixed64(data)
		case protowire.BytesType:
			value.bytes, n = protowire.ConsumeBytes(data)
		default:
			n = protowire.ConsumeFieldValue(number, kind, data)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		if err := f(number, value); err != nil {
			return err
		}
	}
	return nil
}

// ConvertSentencePiece turns the content of spm.model into the tokenizer.json
// that DebertaV2Converter of transformers 4.x makes of it. (The one of
// transformers 5.x leaves out the normalisation that the model was trained
// with, and differs on full-width letters, ligatures, "…" and the like.)
func ConvertSentencePiece(model []byte, c Config) ([]byte, error) {
	m, err := parseSentencePiece(model)
	if err != nil {
		return nil, err
	}
	added, err := m.addedTokens()
	if err != nil {
		return nil, err
	}
	ids := make(map[string]int, len(added))
	for _, a := range added {
		ids[a.Content] = a.ID
	}

	type object = map[string]any
	var normalizers []any
	if c.DoLowerCase {
		normalizers = append(normalizers, object{"type": "Lowercase"})
	}
	normalizers = append(normalizers, object{"type": "Strip", "strip_left": true, "strip_right": true})
	if len(m.charsmap) > 0 {
		normalizers = append(normalizers, object{"type": "Precompiled",
			"precompiled_charsmap": base64.StdEncoding.EncodeToString(m.charsmap)})
	}
	normalizers = append(normalizers, object{"type": "Replace", "pattern": object{"Regex": " {2,}"}, "content": " "})

	metaspace := object{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}
	var splitters []any
	if c.SplitByPunct {
		splitters = append(splitters, object{"type": "Punctuation", "behavior": "Isolated"})
	}
	splitters = append(splitters, metaspace)

	special := func(token string, kind int) any {
		return object{"SpecialToken": object{"id": token, "type_id": kind}}
	}
	sequence := func(name string, kind int) any {
		return object{"Sequence": object{"id": name, "type_id": kind}}
	}
	specialToken := func(token string) any {
		return object{"id": token, "ids": []int{ids[token]}, "tokens": []string{token}}
	}
	single := []any{special("[CLS]", 0), sequence("A", 0), special("[SEP]", 0)}

	vocab := make([]vocabEntry, len(m.pieces))
	for i, p := range m.pieces {
		vocab[i] = vocabEntry{p.text, float64(p.score)}
	}
	return encodeJSON(tokenizerFile{
		Version:      "1.0",
		AddedTokens:  added,
		Normalizer:   object{"type": "Sequence", "normalizers": normalizers},
		PreTokenizer: object{"type": "Sequence", "pretokenizers": splitters},
		PostProcessor: object{
			"type":   "TemplateProcessing",
			"single": single,
			"pair":   append(single[:3:3], sequence("B", 1), special("[SEP]", 1)),
			"special_tokens": object{
				"[CLS]": specialToken("[CLS]"),
				"[SEP]": specialToken("[SEP]"),
			},
		},
		Decoder: metaspace,
		Model: unigramFile{
			Type:  "Unigram",
			UnkID: int(m.unkID),
			Vocab: vocab,
		},
	})
}

// addedTokens lists the tokens that are found in a text before it is split:
// control and user-defined pieces, the five special tokens of DeBERTaV3, and
// [MASK], whose id is the number of pieces.
func (m *spmModel) addedTokens() ([]addedToken, error) {
	var added []addedToken
	missing := map[string]bool{"[PAD]": true, "[CLS]": true, "[SEP]": true, "[UNK]": true, "[MASK]": true}
	for id, p := range m.pieces {
		named := missing[p.text]
		if !named && p.kind != pieceControl && p.kind != pieceUserDefined {
			continue
		}
		delete(missing, p.text)
		added = append(added, addedToken{
			ID:         id,
			Content:    p.text,
			Normalized: p.text == "[UNK]",
			Special:    named || p.kind == pieceControl,
		})
	}
	for _, token := range []string{"[PAD]", "[CLS]", "[SEP]", "[UNK]"} {
		if missing[token] {
			return nil, fmt.Errorf("found no piece %s in the SentencePiece model, want the layout of DeBERTaV3: [PAD], [CLS], [SEP], [UNK] among the pieces", token)
		}
	}
	if missing["[MASK]"] {
		added = append(added, addedToken{ID: len(m.pieces), Content: "[MASK]", Special: true})
	}
	return added, nil
}

// tokenizerFile is tokenizer.json in the order in which the Rust library
// writes it.
type tokenizerFile struct {
	Version       string       `json:"version"`
	Truncation    any          `json:"truncation"`
	Padding       any          `json:"padding"`
	AddedTokens   []addedToken `json:"added_tokens"`
	Normalizer    any          `json:"normalizer"`
	PreTokenizer  any          `json:"pre_tokenizer"`
	PostProcessor any          `json:"post_processor"`
	Decoder       any          `json:"decoder"`
	Model         any          `json:"model"`
}

type unigramFile struct {
	Type         string       `json:"type"`
	UnkID        int          `json:"unk_id"`
	Vocab        []vocabEntry `json:"vocab"`
	ByteFallback bool         `json:"byte_fallback"`
}

// vocabEntry is written as [piece, score].
type vocabEntry struct {
	piece string
	score float64
}

// MarshalJSON writes the score as a float even when it is a whole number.
func (v vocabEntry) MarshalJSON() ([]byte, error) {
	piece, err := encodeJSON(v.piece)
	if err != nil {
		return nil, err
	}
	score := strconv.AppendFloat(nil, v.score, 'g', -1, 64)
	if !bytes.ContainsAny(score, ".e") {
		score = append(score, ".0"...)
	}
	return fmt.Appendf(nil, "[%s,%s]", piece, score), nil
}

// encodeJSON is json.Marshal without the escapes for HTML: pieces such as "<"
// stay readable.
func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}
