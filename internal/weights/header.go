package weights

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// headerScanner reads the JSON of a safetensors header from left to right. It
// knows the few forms that occur there, and keeps nothing but the tensors:
// encoding/json makes several times the size of the header in garbage, and lets
// the second of two tensors of one name silently replace the first.
type headerScanner struct {
	raw []byte
	at  int
	// words has the names of fields and element types that were met, so that a
	// million tensors do not have a million copies.
	words map[string]string

	entry     safetensorsEntry // that is being read
	seen      [3]bool          // its fields
	readField func(key string) error
}

// parseHeader reads the JSON object of a header. It calls add with every tensor,
// in the order of the file, and returns the metadata.
func parseHeader(raw []byte, add func(name string, e safetensorsEntry) error) (metadata map[string]string, err error) {
	s := &headerScanner{raw: raw, words: make(map[string]string)}
	s.readField = s.field
	err = s.object(s.text, func(name string) error {
		if name != metadataKey {
			e, err := s.tensor()
			if err != nil {
				return fmt.Errorf("tensor %s: %w", quote(name), err)
			}
			return add(name, e)
		}
		if metadata != nil {
			return fmt.Errorf("%s appears twice", metadataKey)
		}
		metadata = make(map[string]string)
		err := s.object(s.text, func(key string) (err error) {
			metadata[key], err = s.text()
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", metadataKey, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	// Writers pad the header with spaces so that the data is aligned.
	if s.space(); s.at < len(raw) {
		return nil, fmt.Errorf("%d bytes follow the JSON object", len(raw)-s.at)
	}
	return metadata, nil
}

// tensor reads the object that describes a tensor.
func (s *headerScanner) tensor() (safetensorsEntry, error) {
	s.entry, s.seen = safetensorsEntry{}, [3]bool{}
	if err := s.object(s.word, s.readField); err != nil {
		return safetensorsEntry{}, err
	}
	if s.seen != [3]bool{true, true, true} {
		return safetensorsEntry{}, errors.New("it lacks dtype, shape or two data_offsets")
	}
	return s.entry, nil
}

// field reads a value of the object that describes a tensor.
func (s *headerScanner) field(key string) (err error) {
	e, n := &s.entry, 0
	switch key {
	case "dtype":
		var name string
		name, err = s.word()
		e.DType = DType(name)
	case "shape":
		n = 1
		e.Shape, err = s.numbers(nil)
	case "data_offsets":
		n = 2
		var offsets []int64
		if offsets, err = s.numbers(e.Offsets[:0:2]); err == nil && len(offsets) != 2 {
			err = fmt.Errorf("it lacks two data_offsets, it has %d", len(offsets))
		}
	default:
		return fmt.Errorf("unknown field %s", quote(key))
	}
	if s.seen[n] {
		return fmt.Errorf("%s appears twice", key)
	}
	s.seen[n] = true
	return err
}

// object reads an object: key reads a key, value the value that it has.
func (s *headerScanner) object(key func() (string, error), value func(key string) error) error {
	if err := s.expect('{'); err != nil {
		return err
	}
	if s.skip('}') {
		return nil
	}
	for {
		name, err := key()
		if err != nil {
			return err
		}
		if err := s.expect(':'); err != nil {
			return err
		}
		if err := value(name); err != nil {
			return err
		}
		if s.skip('}') {
			return nil
		}
		if err := s.expect(','); err != nil {
			return err
		}
	}
}

// numbers reads an array of integers and appends them to list.
func (s *headerScanner) numbers(list []int64) ([]int64, error) {
	if err := s.expect('['); err != nil {
		return nil, err
	}
	if list == nil {
		list = make([]int64, 0, s.commas())
	}
	if s.skip(']') {
		return list, nil
	}
	for {
		n, err := s.number()
		if err != nil {
			return nil, err
		}
		list = append(list, n)
		if s.skip(']') {
			return list, nil
		}
		if err := s.expect(','); err != nil {
			return nil, err
		}
	}
}

// commas counts the elements of the array that begins here, or some more.
func (s *headerScanner) commas() int {
	end := bytes.IndexByte(s.raw[s.at:], ']')
	if end < 0 {
		return 0
	}
	inside := s.raw[s.at : s.at+end]
	if len(bytes.TrimSpace(inside)) == 0 {
		return 0
	}
	return bytes.Count(inside, []byte(",")) + 1
}

func (s *headerScanner) number() (int64, error) {
	s.space()
	begin := s.at
	for s.at < len(s.raw) && (s.raw[s.at] == '-' || s.raw[s.at] >= '0' && s.raw[s.at] <= '9') {
		s.at++
	}
	digits := s.raw[begin:s.at]
	if bare := bytes.TrimPrefix(digits, []byte("-")); len(bare) > 1 && bare[0] == '0' {
		return 0, s.wrong("a number that begins with 0")
	}
	n, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil {
		return 0, s.wrong("no integer of 64 bits")
	}
	return n, nil
}

// text reads a string.
func (s *headerScanner) text() (string, error) {
	if err := s.expect('"'); err != nil {
		return "", err
	}
	begin, escaped := s.at, false
	for ; s.at < len(s.raw); s.at++ {
		switch c := s.raw[s.at]; {
		case c == '\\':
			escaped = true
			s.at++
		case c < ' ':
			return "", s.wrong("a control character in a string")
		case c == '"':
			quoted := s.raw[begin-1 : s.at+1]
			s.at++
			if !utf8.Valid(quoted) {
				return "", s.wrong("a string that is not UTF-8")
			}
			if !escaped {
				return string(quoted[1 : len(quoted)-1]), nil
			}
			var text string
			err := json.Unmarshal(quoted, &text)
			return text, err
		}
	}
	return "", s.wrong("a string without an end")
}

// word is text for a string that comes again and again.
func (s *headerScanner) word() (string, error) {
	s.space()
	if rest := s.raw[s.at:]; len(rest) > 0 && rest[0] == '"' {
		if end := bytes.IndexByte(rest[1:], '"'); end >= 0 {
			if known, ok := s.words[string(rest[1:1+end])]; ok {
				s.at += end + 2
				return known, nil
			}
		}
	}
	text, err := s.text()
	if err == nil && len(s.words) < 100 && !strings.ContainsAny(text, `"\`) {
		s.words[text] = text
	}
	return text, err
}

// expect reads one character after white space.
func (s *headerScanner) expect(c byte) error {
	if !s.skip(c) {
		return s.wrong(fmt.Sprintf("no %q", c))
	}
	return nil
}

// skip reads a character after white space if it is c.
func (s *headerScanner) skip(c byte) bool {
	s.space()
	if s.at < len(s.raw) && s.raw[s.at] == c {
		s.at++
		return true
	}
	return false
}

func (s *headerScanner) space() {
	for s.at < len(s.raw) {
		switch s.raw[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return
		}
	}
}

func (s *headerScanner) wrong(found string) error { return fmt.Errorf("byte %d: %s", s.at, found) }
