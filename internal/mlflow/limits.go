package mlflow

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math/big"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What MLflow accepts (mlflow/utils/validation.py, 2.9 to 3.17).
const (
	maxKey            = 250  // characters of a metric, parameter or tag key; more is an error
	maxParamValue     = 6000 // characters; more is cut off
	maxTagValue       = 8000 // characters; more is cut off
	maxExperimentName = 500
	maxDigest         = 36

	maxMetricsPerBatch  = 1000
	maxParamsPerBatch   = 100
	maxTagsPerBatch     = 100
	maxEntitiesPerBatch = 1000
	// A request may have 1 MB. Keys and values are counted with room for the
	// JSON around them.
	maxBatchBytes = 800_000
	entityBytes   = 120
)

// ValidKey returns why MLflow would refuse key as the name of a metric,
// parameter or tag, or nil.
func ValidKey(key string) error {
	switch {
	case key == "":
		return invalid("check key", "a key must not be empty")
	case utf8.RuneCountInString(key) > maxKey:
		return invalid("check key", fmt.Sprintf("key %q… has %d characters; MLflow takes %d", truncate(key, 40), utf8.RuneCountInString(key), maxKey))
	case !utf8.ValidString(key) || strings.ContainsFunc(key, badKeyRune):
		return invalid("check key", fmt.Sprintf("key %q: only letters, digits and _ - . / : space may be used", key))
	case path.Clean(key) != key || key == "." || key == ".." || strings.HasPrefix(key, "../") || strings.HasPrefix(key, "/"):
		return invalid("check key", fmt.Sprintf("key %q: it must be a relative path in its shortest form, as files are named after keys", key))
	}
	return nil
}

func badKeyRune(r rune) bool {
	return !unicode.IsLetter(r) && !unicode.IsNumber(r) && !strings.ContainsRune("_-./: ", r)
}

// CleanKey returns a key that MLflow accepts and that resembles s: what it
// refuses becomes "_".
func CleanKey(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || badKeyRune(r) {
			return '_'
		}
		return r
	}, s)
	s = truncate(strings.TrimLeft(path.Clean(s), "/"), maxKey)
	if ValidKey(s) != nil {
		s = strings.ReplaceAll(s, ".", "_")
	}
	if ValidKey(s) != nil {
		return "_"
	}
	return s
}

func invalid(op, message string) error {
	return &APIError{Op: op, Code: codeInvalid, Message: message}
}

// truncate returns the first n characters of s.
func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// prepare checks and cuts a batch as MLflow does: bad keys are an error, long
// values are cut off, and a parameter given twice must have one value.
func (b Batch) prepare() (Batch, error) {
	out := Batch{Metrics: b.Metrics}
	for _, m := range b.Metrics {
		if err := ValidKey(m.Key); err != nil {
			return Batch{}, err
		}
	}
	seen := make(map[string]string, len(b.Params))
	for _, p := range b.Params {
		if err := ValidKey(p.Key); err != nil {
			return Batch{}, err
		}
		p.Value = truncate(strings.ToValidUTF8(p.Value, "\uFFFD"), maxParamValue)
		if old, ok := seen[p.Key]; ok {
			if old != p.Value {
				return Batch{}, paramConflict(p.Key, old, p.Value)
			}
			continue
		}
		seen[p.Key] = p.Value
		out.Params = append(out.Params, p)
	}
	last := make(map[string]int, len(b.Tags))
	for _, t := range b.Tags {
		if err := ValidKey(t.Key); err != nil {
			return Batch{}, err
		}
		t.Value = truncate(strings.ToValidUTF8(t.Value, "\uFFFD"), maxTagValue)
		if i, ok := last[t.Key]; ok {
			out.Tags[i] = t
			continue
		}
		last[t.Key] = len(out.Tags)
		out.Tags = append(out.Tags, t)
	}
	return out, nil
}

func paramConflict(key, old, value string) error {
	return &APIError{Op: "log parameter", Code: codeInvalid, Message: fmt.Sprintf(
		"parameter %q is %q already and cannot become %q: parameters are written once (use a tag for what changes)",
		key, truncate(old, 60), truncate(value, 60))}
}

// split cuts a prepared batch into batches that one request may carry:
// parameters first, then tags, then points.
func (b Batch) split() []Batch {
	var out []Batch
	var cur Batch
	bytes := 0
	flush := func() {
		if !cur.Empty() {
			out, cur, bytes = append(out, cur), Batch{}, 0
		}
	}
	room := func(n, limit, size int) {
		if n >= limit || len(cur.Metrics)+len(cur.Params)+len(cur.Tags) >= maxEntitiesPerBatch || bytes+size > maxBatchBytes {
			flush()
		}
		bytes += size
	}
	for _, p := range b.Params {
		room(len(cur.Params), maxParamsPerBatch, len(p.Key)+2*len(p.Value)+entityBytes)
		cur.Params = append(cur.Params, p)
	}
	for _, t := range b.Tags {
		room(len(cur.Tags), maxTagsPerBatch, len(t.Key)+2*len(t.Value)+entityBytes)
		cur.Tags = append(cur.Tags, t)
	}
	for _, m := range b.Metrics {
		room(len(cur.Metrics), maxMetricsPerBatch, len(m.Key)+entityBytes)
		cur.Metrics = append(cur.Metrics, m)
	}
	flush()
	return out
}

// prepareInputs cuts the fields of dataset inputs to their widths and keeps
// the first of those with equal name and digest, as MLflow does.
func prepareInputs(inputs []DatasetInput) ([]DatasetInput, error) {
	seen := make(map[[2]string]bool, len(inputs))
	var out []DatasetInput
	for _, in := range inputs {
		if in.Name == "" || in.Digest == "" {
			return nil, invalid("log inputs", fmt.Sprintf("dataset %q: name and digest must not be empty", in.Name))
		}
		in.Name, in.Digest = truncate(in.Name, 500), truncate(in.Digest, maxDigest)
		in.SourceType = truncate(cmp.Or(in.SourceType, "local"), 36)
		if key := [2]string{in.Name, in.Digest}; !seen[key] {
			seen[key] = true
			out = append(out, in)
		}
	}
	return out, nil
}

// prepare checks a run specification and fills in what MLflow would: a name,
// and the tags that repeat name and user.
func (s RunSpec) prepare() (RunSpec, error) {
	if s.Start.IsZero() {
		return s, invalid("create run", "the start time is missing")
	}
	if s.Name == "" {
		s.Name = madeUpName()
	}
	s.Name = truncate(s.Name, 250)
	tags := []Tag{{TagRunName, s.Name}}
	if s.User != "" {
		tags = append(tags, Tag{TagUser, s.User})
	}
	b, err := Batch{Tags: append(slices.Clone(s.Tags), tags...)}.prepare()
	s.Tags = b.Tags
	return s, err
}

// newID returns 32 random hexadecimal digits, the form of MLflow's run IDs.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return hex.EncodeToString(b[:])
}

// madeUpName returns a name that is easy to say and to tell from others.
func madeUpName() string {
	first := []string{"amber", "brisk", "calm", "clever", "crisp", "eager", "fleet", "gentle", "keen", "lively", "lucid", "merry", "nimble", "placid", "quiet", "steady", "sunny", "tidy", "vivid", "wise"}
	second := []string{"badger", "crane", "dolphin", "falcon", "fox", "heron", "ibex", "jay", "koala", "lark", "lynx", "marten", "otter", "owl", "panda", "raven", "seal", "sparrow", "swan", "wren"}
	return fmt.Sprintf("%s-%s-%d", first[randomInt(len(first))], second[randomInt(len(second))], randomInt(1000))
}

func randomInt(n int) int64 {
	i, _ := rand.Int(rand.Reader, big.NewInt(int64(n))) // never fails for n > 0
	return i.Int64()
}
