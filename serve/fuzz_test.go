package serve

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/criteria-go/criteria"

	"github.com/criteria-go/criteria/internal/memwatch"
)

// FuzzPredict: whatever comes is answered by a prediction for each pair, or by
// an error that says which of the documented kinds it is.
func FuzzPredict(f *testing.F) {
	for _, body := range []string{
		`{"post": "a", "criterion": "b"}`, `{"pairs": [{"post": "a", "criterion": "b"}, {"post": "c", "criterion": "d"}]}`,
		`{"pairs": []}`, `{"pairs": null}`, `{"pairs": {}}`, `{"post": "\ud800", "criterion": "\u0000"}`, "{\"post\": \"\xff\"}",
		`{"post": null}`, `[[[[[[`, `{"POST": "a", "criterion": "b", "criterion": "c"}`, ``, `0`, `{} {}`,
	} {
		f.Add(body)
	}
	s := testServer(classifier{}, WithLimits(Limits{Body: 4096, Pairs: 5, Text: 100}))
	f.Fuzz(func(t *testing.T, body string) {
		memwatch.Start(t, len(body))
		w := httptest.NewRecorder()
		s.ServeHTTP(w, post(body))
		var answer struct {
			Error       *Error
			Probability *float64
			Predictions []criteria.Prediction
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Fatalf("%v: %s", err, w.Body)
		}
		if w.Code == http.StatusOK {
			if answer.Error != nil || (answer.Probability == nil) == (len(answer.Predictions) == 0) || !utf8.ValidString(body) {
				t.Errorf("%q: %s", body, w.Body)
			}
			return
		}
		known := map[int][]string{
			http.StatusBadRequest:            {"invalid_json", "invalid_utf8", "invalid_request"},
			http.StatusRequestEntityTooLarge: {"body_too_large", "too_many_pairs", "text_too_long"},
		}
		if answer.Error == nil || !slices.Contains(known[w.Code], answer.Error.Code) || strings.Contains(answer.Error.Message, "\n") {
			t.Errorf("%q: status %d, %s", body, w.Code, w.Body)
		}
	})
}
