package token

import (
	"encoding/json"
	"errors"
	"fmt"
)

// definition is a tokenizer.json, parsed as far as Go needs it.
type definition struct {
	text    []byte
	file    rawFile
	model   rawModel
	special SpecialIDs
	size    int
}

// rawFile keeps what is passed on to the Rust library as it stands.
type rawFile struct {
	Version       json.RawMessage `json:"version,omitempty"`
	Truncation    json.RawMessage `json:"truncation"`
	Padding       json.RawMessage `json:"padding"`
	AddedTokens   []addedToken    `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         json.RawMessage `json:"model"`
}

type rawModel struct {
	Type         string            `json:"type"`
	UnkID        *int              `json:"unk_id"`
	Vocab        []json.RawMessage `json:"vocab"`
	ByteFallback bool              `json:"byte_fallback"`
}

func parseDefinition(text []byte) (*definition, error) {
	d := &definition{text: text}
	if err := json.Unmarshal(text, &d.file); err != nil {
		return nil, fmt.Errorf("token: found no tokenizer.json, want one that the tokenizers library has written: %w", err)
	}
	if d.file.Model == nil {
		return nil, errors.New(`token: found a tokenizer.json without "model", want one of a DeBERTaV3 checkpoint`)
	}
	var kind struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(d.file.Model, &kind); err != nil {
		return nil, fmt.Errorf("token: tokenizer.json: model: %w", err)
	}
	if kind.Type != "Unigram" {
		return nil, fmt.Errorf("token: found a tokenizer.json with a model of type %q, want Unigram, as all DeBERTaV3 models have; remove the file to use spm.model", kind.Type)
	}
	if err := json.Unmarshal(d.file.Model, &d.model); err != nil {
		return nil, fmt.Errorf("token: tokenizer.json: model: %w", err)
	}

	d.size = len(d.model.Vocab)
	ids := make(map[string]int)
	for _, a := range d.file.AddedTokens {
		if a.ID < 0 || a.ID > maxPieces {
			return nil, fmt.Errorf("token: tokenizer.json: added_tokens: found the id %d of %q, want one of 0 to %d", a.ID, a.Content, maxPieces)
		}
		ids[a.Content] = a.ID
		d.size = max(d.size, a.ID+1)
	}
	for _, s := range []struct {
		token string
		id    *int32
	}{
		{"[PAD]", &d.special.PAD}, {"[CLS]", &d.special.CLS}, {"[SEP]", &d.special.SEP},
		{"[UNK]", &d.special.UNK}, {"[MASK]", &d.special.MASK},
	} {
		id, ok := ids[s.token]
		if !ok {
			return nil, fmt.Errorf("token: found no added token %s in tokenizer.json, want [PAD], [CLS], [SEP], [UNK] and [MASK], as DeBERTaV3 has", s.token)
		}
		*s.id = int32(id)
	}
	return d, nil
}

// native returns the JSON for the Rust library, which splits one text at a
// time and adds, cuts and pads nothing.
//
// Unless special tokens are to be interpreted, no text can yield one: they are
// neither added tokens, which are looked for before a text is split, nor
// pieces that splitting could find. (Leaving out the first alone is not
// enough: "[SEP]" is a piece of score 0, the best there is.) The pieces keep
// their ids, but their names begin with a NUL, which no text contains.
func (d *definition) native(interpretSpecialTokens bool) ([]byte, error) {
	f := d.file
	f.Truncation, f.Padding, f.PostProcessor = nil, nil, nil
	if interpretSpecialTokens {
		return encodeJSON(f)
	}

	model := d.model
	model.Vocab = append([]json.RawMessage(nil), model.Vocab...)
	f.AddedTokens = []addedToken{}
	for _, a := range d.file.AddedTokens {
		if !a.Special {
			f.AddedTokens = append(f.AddedTokens, a)
			continue
		}
		if a.ID >= len(model.Vocab) {
			continue
		}
		var entry [2]json.RawMessage
		if err := json.Unmarshal(model.Vocab[a.ID], &entry); err != nil {
			return nil, fmt.Errorf("token: tokenizer.json: found the piece %s, want [text, score]: %w", model.Vocab[a.ID], err)
		}
		name, err := encodeJSON("\x00" + a.Content)
		if err != nil {
			return nil, err
		}
		entry[0] = name
		if model.Vocab[a.ID], err = encodeJSON(entry); err != nil {
			return nil, err
		}
	}
	var err error
	if f.Model, err = encodeJSON(model); err != nil {
		return nil, err
	}
	return encodeJSON(f)
}
