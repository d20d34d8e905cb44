package fakes

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/criteria-go/criteria"
)

// Tokenizer takes each word for a token.
type Tokenizer struct {
	Closed bool
}

// EncodePairs implements [criteria.Tokenizer]; a pair that is too long is cut
// at its end.
func (t *Tokenizer) EncodePairs(ctx context.Context, pairs []criteria.Pair, maxLength int) (criteria.Encodings, error) {
	all := criteria.Encodings{Offsets: []int{0}}
	for _, p := range pairs {
		e, _, err := t.Locate(ctx, p, maxLength)
		if err != nil {
			return criteria.Encodings{}, err
		}
		all.Truncated = append(all.Truncated, e.Truncated...)
		all.IDs = append(all.IDs, e.IDs...)
		all.Offsets = append(all.Offsets, len(all.IDs))
	}
	return all, ctx.Err()
}

// Locate implements [criteria.Locator].
func (t *Tokenizer) Locate(ctx context.Context, pair criteria.Pair, maxLength int) (criteria.Encodings, []criteria.TokenSpan, error) {
	if err := ctx.Err(); err != nil {
		return criteria.Encodings{}, nil, err
	}
	ids, spans := []int32{1}, []criteria.TokenSpan{{Special: true}}
	for part, text := range []string{pair.Post, pair.Criterion} {
		end := 0
		for word := range strings.FieldsSeq(text) {
			start := end + strings.Index(text[end:], word)
			end = start + len(word)
			h := fnv.New32a()
			_, _ = h.Write([]byte(word))
			ids = append(ids, int32(4+h.Sum32()%(vocabulary-4)))
			spans = append(spans, criteria.TokenSpan{InCriterion: part == 1, Start: start, End: end})
		}
		ids, spans = append(ids, 2), append(spans, criteria.TokenSpan{Special: true})
	}
	n := min(len(ids), maxLength)
	return criteria.Encodings{IDs: ids[:n], Offsets: []int{0, n}, Truncated: []bool{len(ids) > n}}, spans[:n], nil
}

// SaveTo implements [criteria.Tokenizer].
func (t *Tokenizer) SaveTo(dir string) error {
	return os.WriteFile(filepath.Join(dir, "tokenizer.json"), []byte("{}\n"), 0o644)
}

// Close implements [criteria.Tokenizer].
func (t *Tokenizer) Close() error {
	t.Closed = true
	return nil
}

// Tracker writes down what it is told. Its zero value is ready for use.
type Tracker struct {
	// Before, if set, is called before each operation ("start", "metrics",
	// "artifact config/config.yaml", "end" …); its error is returned.
	Before func(op string) error

	mu   sync.Mutex
	runs []*Run
}

// Run is what a [Tracker] was told about one run.
type Run struct {
	Info      criteria.RunInfo
	Params    map[string]string
	Tags      map[string]string
	Metrics   map[int]map[string]float64 // by step
	Artifacts map[string]string          // content by path
	Status    criteria.RunStatus         // "" while it runs
	Calls     []string                   // in order
	EndErr    error                      // of End's context, when End was called

	tracker *Tracker
	id      string
}

// Runs returns the runs that were started.
func (t *Tracker) Runs() []*Run {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.runs)
}

// Start implements [criteria.Tracker].
func (t *Tracker) Start(ctx context.Context, info criteria.RunInfo) (criteria.TrackedRun, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.before(ctx, "start"); err != nil {
		return nil, err
	}
	for _, r := range t.runs {
		if r.id == info.ResumeRunID {
			r.Status = ""
			r.Calls = append(r.Calls, "resume")
			return r, nil
		}
	}
	r := &Run{
		Info: info, Params: maps.Clone(info.Params), Tags: maps.Clone(info.Tags), Metrics: map[int]map[string]float64{},
		Artifacts: map[string]string{}, Calls: []string{"start"}, tracker: t, id: fmt.Sprintf("run%d", len(t.runs)+1),
	}
	t.runs = append(t.runs, r)
	return r, nil
}

func (t *Tracker) before(ctx context.Context, op string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if t.Before == nil {
		return nil
	}
	return t.Before(op)
}

func (r *Run) do(ctx context.Context, op string, f func() error) error {
	r.tracker.mu.Lock()
	defer r.tracker.mu.Unlock()
	if r.Status != "" {
		return errors.New("fakes: " + op + " after the end")
	}
	r.Calls = append(r.Calls, op)
	if err := r.tracker.before(ctx, op); err != nil {
		return err
	}
	return f()
}

// ID implements [criteria.TrackedRun].
func (r *Run) ID() string { return r.id }

// LogParams implements [criteria.TrackedRun].
func (r *Run) LogParams(ctx context.Context, params map[string]string) error {
	return r.do(ctx, "params", func() error { maps.Copy(r.Params, params); return nil })
}

// SetTags implements [criteria.TrackedRun].
func (r *Run) SetTags(ctx context.Context, tags map[string]string) error {
	return r.do(ctx, "tags", func() error { maps.Copy(r.Tags, tags); return nil })
}

// LogMetrics implements [criteria.TrackedRun].
func (r *Run) LogMetrics(ctx context.Context, step int, metrics map[string]float64) error {
	return r.do(ctx, fmt.Sprintf("metrics %d", step), func() error {
		if r.Metrics[step] == nil {
			r.Metrics[step] = map[string]float64{}
		}
		maps.Copy(r.Metrics[step], metrics)
		return nil
	})
}

// LogArtifact implements [criteria.TrackedRun].
func (r *Run) LogArtifact(ctx context.Context, path string, content io.Reader) error {
	return r.do(ctx, "artifact "+path, func() error {
		text, err := io.ReadAll(content)
		r.Artifacts[path] = string(text)
		return err
	})
}

// LogArtifacts implements [criteria.TrackedRun].
func (r *Run) LogArtifacts(ctx context.Context, dir, path string) error {
	return r.do(ctx, "artifacts "+path, func() error {
		return filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(file)
			name, _ := filepath.Rel(dir, file)
			r.Artifacts[path+"/"+filepath.ToSlash(name)] = string(text)
			return err
		})
	})
}

// End implements [criteria.TrackedRun].
func (r *Run) End(ctx context.Context, status criteria.RunStatus) error {
	r.EndErr = ctx.Err()
	return r.do(ctx, "end", func() error { r.Status = status; return nil })
}

// Clock is a clock that moves on by Tick with every look at it.
type Clock struct {
	Tick time.Duration
	mu   sync.Mutex
	now  time.Time
}

// Now returns the time, which begins in the year 2026.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now.IsZero() {
		c.now = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	c.now = c.now.Add(c.Tick)
	return c.now
}

// Dataset makes up a dataset that [Engine] can learn: posts of random words, a
// third of which hold the word "sign". Those show all of three criteria.
func Dataset(trainPosts, valPosts, testPosts int, seed uint64) *criteria.Dataset {
	random := rand.New(rand.NewPCG(seed, 0))
	post := 0
	split := func(posts int) []criteria.Example {
		var examples []criteria.Example
		for range posts {
			words := make([]string, 4+random.IntN(12))
			for i := range words {
				words[i] = fmt.Sprintf("word%d", random.IntN(200))
			}
			label := 0
			if post%3 == 0 {
				label = 1
				words[random.IntN(len(words))] = "sign"
			}
			post++
			for criterion := range 3 {
				examples = append(examples, criteria.Example{
					PostID: fmt.Sprintf("p%03d", post), CriterionID: fmt.Sprintf("c%d", criterion), Label: label,
					Pair: criteria.Pair{Post: strings.Join(words, " "), Criterion: fmt.Sprintf("criterion%d", criterion)},
				})
			}
		}
		return examples
	}
	return &criteria.Dataset{
		Name: "made up", Train: split(trainPosts), Val: split(valPosts), Test: split(testPosts),
		Hashes: map[string]string{"posts.csv": strings.Repeat("0", 64)},
	}
}
