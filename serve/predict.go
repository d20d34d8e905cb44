package serve

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/criteria-go/criteria"
)

// pair is a question.
type pair struct {
	Post      *string `json:"post"`
	Criterion *string `json:"criterion"`
}

// question is the body of /v1/predict: one pair, or many.
type question struct {
	Post      *string `json:"post"`
	Criterion *string `json:"criterion"`
	Pairs     []pair  `json:"pairs"`
}

type prediction struct {
	Probability float64 `json:"probability"` // that the post shows the criterion
	Label       bool    `json:"label"`       // whether that is above the threshold
	Truncated   bool    `json:"truncated"`   // whether the pair was too long and was cut
}

type predictions struct {
	Predictions []prediction `json:"predictions"`
	Threshold   float64      `json:"threshold"`
}

// predict answers /v1/predict.
func (s *Server) predict(r *http.Request) (answer, error) {
	model, err := s.model("")
	if err != nil {
		return answer{}, err
	}
	text, err := s.readJSON(r)
	if err != nil {
		return answer{}, err
	}
	pairs, single, err := s.questions(text)
	if err != nil {
		return answer{}, err
	}
	results, err := s.ask(r.Context(), model, pairs)
	if err != nil {
		return answer{}, err
	}
	answers := predictions{make([]prediction, len(results)), model.Threshold()}
	for i, p := range results {
		answers.Predictions[i] = prediction{p.Probability, p.Label, p.Truncated}
	}
	if single {
		return answer{body: answers.Predictions[0], pairs: 1}, nil
	}
	return answer{body: answers, pairs: len(pairs)}, nil
}

// ask lets a model predict within the time that an answer may take.
func (s *Server) ask(ctx context.Context, model Classifier, pairs []criteria.Pair) ([]criteria.Prediction, error) {
	ctx, cancel := context.WithTimeout(ctx, s.limits.Timeout)
	defer cancel()
	results, err := model.Predict(ctx, pairs)
	if err != nil {
		return nil, err
	}
	s.metrics.predicted(results)
	return results, nil
}

// questions returns the pairs that a body asks about.
func (s *Server) questions(text []byte) (pairs []criteria.Pair, single bool, err error) {
	var q question
	if err := decode(text, &q); err != nil {
		return nil, false, err
	}
	single = q.Pairs == nil
	if single {
		q.Pairs = []pair{{q.Post, q.Criterion}}
	} else if q.Post != nil || q.Criterion != nil {
		return nil, false, invalid("want either post and criterion or pairs, not both")
	}
	if err := s.checkNumber(len(q.Pairs)); err != nil {
		return nil, false, err
	}
	pairs = make([]criteria.Pair, len(q.Pairs))
	for i, p := range q.Pairs {
		where := "pairs[" + strconv.Itoa(i) + "]."
		if single {
			where = ""
		}
		if pairs[i].Post, err = s.text(where+"post", p.Post); err != nil {
			return nil, false, err
		}
		if pairs[i].Criterion, err = s.text(where+"criterion", p.Criterion); err != nil {
			return nil, false, err
		}
	}
	return pairs, single, nil
}

func (s *Server) checkNumber(pairs int) error {
	switch {
	case pairs == 0:
		return invalid("want at least one pair")
	case pairs > s.limits.Pairs:
		return tooLarge("too_many_pairs", "found %d pairs, want at most %d", pairs, s.limits.Pairs)
	}
	return nil
}

func (s *Server) text(field string, text *string) (string, error) {
	switch {
	case text == nil || *text == "":
		return "", invalid("%s: want a text", field)
	case len(*text) > s.limits.Text:
		return "", tooLarge("text_too_long", "%s: found %d bytes, want at most %d", field, len(*text), s.limits.Text)
	}
	return *text, nil
}

// readJSON returns a body that is called JSON.
func (s *Server) readJSON(r *http.Request) ([]byte, error) {
	if err := checkEncoding(r.Header); err != nil {
		return nil, err
	}
	if types := r.Header.Values("Content-Type"); len(types) > 0 {
		media, parameters, err := mime.ParseMediaType(types[0])
		if err != nil || len(types) > 1 || media != "application/json" {
			return nil, unsupported("want Content-Type: application/json")
		}
		if charset, ok := parameters["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
			return nil, unsupported("Content-Type: want charset=utf-8, the only one of JSON")
		}
	}
	text, err := s.body(r)
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(text) {
		return nil, &Error{http.StatusBadRequest, "invalid_utf8", "the request is not UTF-8"}
	}
	return text, nil
}

// checkEncoding refuses bodies that are compressed: a small one may become huge.
func checkEncoding(h http.Header) error {
	for _, encodings := range h.Values("Content-Encoding") {
		for encoding := range strings.SplitSeq(encodings, ",") {
			if encoding = strings.TrimSpace(encoding); encoding != "" && !strings.EqualFold(encoding, "identity") {
				return unsupported("Content-Encoding: want none; send the body as it is")
			}
		}
	}
	return nil
}

// body reads a body of bounded size.
func (s *Server) body(r *http.Request) ([]byte, error) {
	if r.ContentLength > s.limits.Body {
		return nil, tooLarge("body_too_large", "want at most %d bytes", s.limits.Body)
	}
	text, err := io.ReadAll(io.LimitReader(r.Body, s.limits.Body+1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &Error{http.StatusRequestTimeout, "slow_request", "the request did not arrive in time"}
	case err != nil:
		// The connection broke, or what came over it is no HTTP.
		return nil, invalid("the request could not be read")
	case int64(len(text)) > s.limits.Body:
		return nil, tooLarge("body_too_large", "want at most %d bytes", s.limits.Body)
	}
	return text, nil
}

// wanted describes the fields of a question, and the question itself.
var wanted = map[string]string{
	"": "an object", "post": "a text", "criterion": "a text", "pairs": "a list",
}

// decode reads exactly one JSON value with the fields of q and no others, each
// once and in the case in which they are documented.
func decode(text []byte, q *question) error {
	err := json.Unmarshal(text, q, json.RejectUnknownMembers(true))
	var syntax *jsontext.SyntacticError
	var meaning *json.SemanticError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, json.ErrUnknownName):
		return invalid(`want {"post": "…", "criterion": "…"} or {"pairs": [{…}, …]}, in lower case, and no other fields`)
	case errors.Is(err, jsontext.ErrDuplicateName):
		return invalid("a field is there twice")
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return invalidJSON("the JSON value is not complete")
	case errors.As(err, &syntax):
		if strings.Contains(syntax.Error(), "surrogate") {
			return &Error{http.StatusBadRequest, "invalid_utf8", "a text has one half of a surrogate pair, which is no character"}
		}
		return invalidJSON("not JSON from byte %d on", syntax.ByteOffset)
	case errors.As(err, &meaning):
		where, want := field(meaning.JSONPointer)
		return invalid("%swant %s, not %s", where, want, kindName(meaning.JSONKind))
	}
	return invalid("want the fields that are documented")
}

// field says where in a question a value is, as "pairs[3].post: ", and what is
// wanted there. It has met no names but those of a question.
func field(p jsontext.Pointer) (where, want string) {
	last := ""
	for token := range p.Tokens() {
		if _, err := strconv.Atoi(token); err == nil {
			where, last = where+"["+token+"]", ""
			continue
		}
		if where != "" {
			where += "."
		}
		where, last = where+token, token
	}
	if where != "" {
		where += ": "
	}
	return where, wanted[last]
}

func kindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	case '"':
		return "a text"
	case '0':
		return "a number"
	case '[':
		return "a list"
	}
	return "an object"
}
