package criteria

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/criteria-go/criteria/internal/mlflow"
	"github.com/criteria-go/criteria/internal/modelstore"
	"github.com/criteria-go/criteria/internal/readfile"
	"github.com/criteria-go/criteria/internal/sumfile"
)

type loadOption func(*settings) error

func (f loadOption) applyLoad(s *settings) error { return f(s) }

// serving is what only a classifier has options for.
type serving struct {
	queue      int
	delay      time.Duration
	warm       bool
	threshold  float64
	tuned      bool
	calibrated bool
	cache      string
	unverified bool
}

const defaultQueue = 4096

// WithMaxDelay lets a pair wait up to d for others to be computed with, while
// nothing else is being computed. Default 0: only pairs that come while another
// batch is being computed wait, and then they are computed together. A few
// milliseconds make larger batches of calls that come one after the other.
func WithMaxDelay(d time.Duration) LoadOption {
	return loadOption(func(s *settings) error {
		s.serving.delay = d
		if d < 0 || d > time.Minute {
			return &OptionError{Option: "WithMaxDelay", Value: d, Reason: "want a time from 0 to 1m"}
		}
		return nil
	})
}

// WithMaxQueue sets how many pairs may wait: a call of [Classifier.Predict] that
// finds n or more pairs of other calls waiting is refused with an
// [*OverloadError]. A service wants as many as are computed in the time that its
// callers are willing to wait. Default 4096.
func WithMaxQueue(n int) LoadOption {
	return loadOption(func(s *settings) error {
		s.serving.queue = n
		if n < 1 {
			return &OptionError{Option: "WithMaxQueue", Value: n, Reason: "want a number from 1"}
		}
		return nil
	})
}

// WithWarmup calls [Classifier.Warmup] before the classifier is returned.
func WithWarmup() LoadOption {
	return loadOption(func(s *settings) error { s.serving.warm = true; return nil })
}

// WithThreshold sets the probability above which a pair is labelled true.
// Default 0.5: the more probable answer.
func WithThreshold(p float64) LoadOption {
	return loadOption(func(s *settings) error {
		s.serving.threshold, s.serving.tuned = p, false
		if !(p > 0 && p < 1) {
			return &OptionError{Option: "WithThreshold", Value: p, Reason: "want a number between 0 and 1"}
		}
		return nil
	})
}

// WithTunedThreshold takes the threshold with which macro-F1 was highest on the
// validation split; it is stored with the model.
func WithTunedThreshold() LoadOption {
	return loadOption(func(s *settings) error { s.serving.tuned = true; return nil })
}

// WithCalibration divides the logits by the temperature that made the
// probabilities fit the validation split best; it is stored with the model. A
// fine-tuned model is too sure of itself as a rule; after calibration about 80 %
// of the pairs with probability 0.8 show their criterion, if the pairs are like
// those of the validation split. No label changes by it, unless [WithThreshold]
// sets another threshold than 0.5, which is one of calibrated probabilities.
func WithCalibration() LoadOption {
	return loadOption(func(s *settings) error { s.serving.calibrated = true; return nil })
}

// WithModelCache sets the folder in which models from MLflow are kept. Default:
// criteria/models in the user's cache folder.
func WithModelCache(dir string) LoadOption {
	return loadOption(func(s *settings) error { s.serving.cache = dir; return nil })
}

// WithoutVerification does not compare the files of a model with the checksums
// beside them, SHA256SUMS. By default they are compared while the model is read,
// if there are any, and what differs is a [*DataError]: weights with a flipped bit
// would answer all the same.
func WithoutVerification() LoadOption {
	return loadOption(func(s *settings) error { s.serving.unverified = true; return nil })
}

// WithEvaluator replaces the engine of a classifier by something smaller: open
// returns what computes the logits of the model in spec.Dir. The classifier closes
// it.
func WithEvaluator(open func(ctx context.Context, spec ModelSpec) (Evaluator, error)) LoadOption {
	return loadOption(func(s *settings) error {
		s.evaluator = open
		return notNil("WithEvaluator", open == nil)
	})
}

// Load opens a model. location is one of
//
//	outputs/DATE/TIME/best_model     the best_model folder of a training
//	runs:/RUN_ID/model               the model that a run stored in MLflow
//
// A model from MLflow is downloaded into a cache folder, once, and checked
// against the checksums that were stored with it; see [WithTrackingURI] and
// [WithModelCache]. Close the classifier when it is no longer needed.
func Load(ctx context.Context, location string, opts ...LoadOption) (*Classifier, error) {
	s, err := loadSettings(opts)
	if err != nil {
		return nil, err
	}
	dir := location
	if strings.HasPrefix(location, runsScheme) {
		if dir, err = fetchModel(ctx, location, s); err != nil {
			return nil, fmt.Errorf("criteria: load %s: %w", location, withCause(ctx, damage(err)))
		}
		s.serving.unverified = true // it has been compared just now
	}
	return open(ctx, dir, s, nil)
}

// LoadFS opens the model at the top of fsys, for example one that the program
// embeds. Its files are copied to a temporary folder, which Close removes:
// weights are read by native code, which wants real files.
func LoadFS(ctx context.Context, fsys fs.FS, opts ...LoadOption) (*Classifier, error) {
	s, err := loadSettings(opts)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "criteria-model-")
	if err != nil {
		return nil, fmt.Errorf("criteria: load: %w", err)
	}
	if err := stage(ctx, fsys, dir); err != nil {
		return nil, errors.Join(withCause(ctx, fmt.Errorf("criteria: load: %w", err)), os.RemoveAll(dir))
	}
	return open(ctx, dir, s, func() error { return os.RemoveAll(dir) })
}

// stage copies the files at the top of fsys. What lies in folders is for
// training only: the state of the optimizer.
func stage(ctx context.Context, fsys fs.FS, dir string) error {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		info, err := fs.Stat(fsys, e.Name())
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			continue
		}
		// A file system may list whatever it likes.
		if name := e.Name(); !fs.ValidPath(name) || strings.ContainsAny(name, `/\`) || !filepath.IsLocal(name) {
			return fmt.Errorf("copy %q: it is not the name of a file at the top of a folder", name)
		}
		if err := copyFile(fsys, e.Name(), filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("copy %s: %w", e.Name(), err)
		}
	}
	return nil
}

func copyFile(fsys fs.FS, name, to string) (err error) {
	from, err := fsys.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}

func loadSettings(opts []LoadOption) (*settings, error) {
	s := newSettings()
	return s, applyAll(s, opts, LoadOption.applyLoad)
}

// open opens the model in dir. cleanup, if it is not nil, is called when the
// classifier is closed, or at once if it cannot be opened.
func open(ctx context.Context, dir string, s *settings, cleanup func() error) (_ *Classifier, err error) {
	verified := s.verify(dir)
	defer func() { err = withCause(ctx, err) }()
	c := &Classifier{tokenizer: s.tokenizer, batchSize: s.batchSize}
	if cleanup != nil {
		c.closers.add(cleanup)
	}
	defer func() {
		if err != nil {
			if damage := verified(); damage != nil {
				err = damage // what else went wrong is due to it
			}
			err = errors.Join(err, c.closers.close())
		}
	}()
	if c.config, err = readTokenizerConfig(dir); err != nil {
		return nil, err
	}
	if c.rule, err = s.serving.rule(dir); err != nil {
		return nil, err
	}
	if c.tokenizer == nil {
		if c.tokenizer, err = openTokenizer(dir, c.config, 0); err != nil {
			return nil, err
		}
		c.closers.add(c.tokenizer.Close)
	}
	if c.session, err = s.openEvaluator(ctx, ModelSpec{Dir: dir, Threads: s.threads, Device: s.device}); err != nil {
		return nil, openError(dir, err)
	}
	c.closers.add(c.session.Close)
	if err := verified(); err != nil {
		return nil, err
	}
	c.batcher = newBatcher(c.session, s.batchSize, s.serving.queue, s.serving.delay)
	if s.serving.warm {
		started := s.now()
		if err := c.Warmup(ctx); err != nil {
			return nil, err
		}
		s.log.Info("model warmed up", "seconds", s.now().Sub(started).Seconds())
	}
	s.log.Info("model loaded", "dir", dir, "device", describe(c.session).Device, "tokenizer", implementation(c.tokenizer))
	return c, nil
}

// verify compares the files at the top of a model's folder with their checksums,
// if it has any, beside everything else that is done to open the model.
// The returned function waits for the outcome.
func (s *settings) verify(dir string) func() error {
	if s.serving.unverified {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() { done <- verifyModel(dir) }()
	return sync.OnceValue(func() error { return <-done })
}

func verifyModel(dir string) error {
	sums, err := sumfile.Read(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		files := sums.Top()
		delete(files, cardFile) // is for people, who may go on writing it
		err = files.Check(dir)
	}
	var differs *sumfile.Error
	switch {
	case errors.As(err, &differs):
		return &DataError{File: filepath.Join(dir, differs.File),
			Err: fmt.Errorf("%w: the model was changed since it was written (WithoutVerification loads it as it is)", err)}
	case err != nil:
		return fmt.Errorf("criteria: load %s: %w", dir, err)
	}
	return nil
}

// openEvaluator opens what computes for a classifier.
func (s *settings) openEvaluator(ctx context.Context, spec ModelSpec) (Evaluator, error) {
	if s.evaluator != nil {
		return s.evaluator(ctx, spec)
	}
	if s.engine != nil {
		return s.engine.Open(ctx, spec)
	}
	return ONNXRuntime("").Open(ctx, spec)
}

// readTokenizerConfig finds out how the texts were cut in training. A folder
// that another program made has no record of it; then the defaults hold.
func readTokenizerConfig(dir string) (TokenizerConfig, error) {
	c := DefaultConfig()
	path := filepath.Join(dir, configFile)
	text, err := readfile.All(context.Background(), path, readfile.YAML)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(dir); err != nil {
			return TokenizerConfig{}, fmt.Errorf("criteria: load: %w; give the best_model folder of a training", err)
		}
		return c.Model.Tokenizer, nil
	case err != nil:
		return TokenizerConfig{}, fmt.Errorf("criteria: load: %w", err)
	}
	// Not ParseConfig: keys that a newer version added do not matter here.
	if err := yaml.Unmarshal(text, &c); err != nil {
		return TokenizerConfig{}, fmt.Errorf("criteria: load %s: %w", path, err)
	}
	if err := c.Validate(); err != nil {
		return TokenizerConfig{}, fmt.Errorf("criteria: load %s: %w", path, err)
	}
	return c.Model.Tokenizer, nil
}

// runsScheme begins the address of an artifact of a run in MLflow.
const runsScheme = "runs:"

var runID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,255}$`)

// parseRunsURI splits runs:/ID/path.
func parseRunsURI(uri string) (id, artifact string, err error) {
	rest, ok := strings.CutPrefix(uri, runsScheme+"/")
	id, artifact, _ = strings.Cut(rest, "/")
	artifact = cmp.Or(strings.TrimSuffix(artifact, "/"), modelArtifact)
	if !ok || !runID.MatchString(id) || !fs.ValidPath(artifact) || artifact == "." {
		return "", "", fmt.Errorf("want runs:/RUN_ID/%s", modelArtifact)
	}
	return id, artifact, nil
}

// fetchModel brings a model from MLflow into the cache, unless the cache has it,
// and returns its folder.
func fetchModel(ctx context.Context, uri string, s *settings) (dir string, err error) {
	id, artifact, err := parseRunsURI(uri)
	if err != nil {
		return "", err
	}
	cache := s.serving.cache
	if cache == "" {
		if cache, err = os.UserCacheDir(); err != nil {
			return "", fmt.Errorf("%w; give a folder by WithModelCache", err)
		}
		cache = filepath.Join(cache, "criteria", "models")
	}
	tracker, err := NewMLflowTracker(WithTrackingURI(s.store.uri), WithLogger(s.log), WithSystemMetrics(0))
	if err != nil {
		return "", err
	}
	store, err := mlflow.Open(ctx, tracker.uri, mlflow.Options{Getenv: tracker.getenv, Logger: s.log})
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	run, err := store.Run(ctx, id)
	if err != nil {
		return "", err
	}
	return modelstore.Stored{Store: store, Run: run, Path: artifact}.Fetch(ctx, cache, s.log)
}

// damage turns the error about a file of a model that is not what was stored into a
// [*DataError].
func damage(err error) error {
	if fault, ok := errors.AsType[*modelstore.DamagedError](err); ok {
		return &DataError{File: fault.File, Err: err}
	}
	return err
}
