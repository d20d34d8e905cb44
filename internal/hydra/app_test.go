package hydra

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// smallConf is a config tree for the tests of this file.
func smallConf() fs.FS {
	files := map[string]string{
		"config.yaml":                 "defaults:\n  - model: mentalbert\n  - train: default\n  - _self_\n\nproject: redsm5\nrun_name: ${project}-${train.seed}\n",
		"model/deberta_v3_large.yaml": "name: large\n",
		"model/mentalbert.yaml":       "name: bert\n",
		"model/tiny.yaml":             "name: tiny\n",
		"model/head/linear.yaml":      "layers: 1\n",
		"train/default.yaml":          "seed: 42\nlearning_rate: 2e-5\nnote: null\n",
		"choose.yaml":                 "defaults:\n  - model: ???\n  - _self_\n",
		"noself.yaml":                 "defaults:\n  - train: default\nproject: x\n",
	}
	return mapFS(files)
}

// mapFS returns a file system with the given files.
func mapFS(files map[string]string) fs.FS {
	tree := fstest.MapFS{}
	for name, text := range files {
		tree[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return tree
}

// run is one run of a program in a folder of its own.
type run struct {
	app            App
	stdout, stderr bytes.Buffer
	jobs           []*Job
	fail           error // returned by the task
}

func newRun(t *testing.T) *run {
	t.Helper()
	t.Chdir(t.TempDir())
	r := &run{}
	r.app = App{
		Name:        "train",
		ConfigFS:    smallConf(),
		ConfigName:  "config",
		ConfigLabel: "file:///abs/conf",
		Stdout:      &r.stdout,
		Stderr:      &r.stderr,
		Now:         func() time.Time { return time.Date(2026, 11, 22, 15, 3, 37, 601e6, time.Local) },
		LookupEnv:   func(string) (string, bool) { return "", false },
	}
	return r
}

func (r *run) task(_ context.Context, job *Job) error {
	r.jobs = append(r.jobs, job)
	return r.fail
}

// start runs the program and checks its exit code.
func (r *run) start(t *testing.T, wantExit int, args ...string) {
	t.Helper()
	if exit := r.app.Run(t.Context(), args, r.task); exit != wantExit {
		t.Fatalf("%q exits with %d, want %d; stderr:\n%s", args, exit, wantExit, r.stderr.String())
	}
}

const searchPath = "\nConfig search path:\n\tprovider=hydra, path=pkg://hydra.conf\n\tprovider=main, path=file:///abs/conf\n\tprovider=schema, path=structured://"

// TestCommonErrors pins the exact text of the errors that users meet most.
func TestCommonErrors(t *testing.T) {
	const see = "\nSee https://hydra.cc/docs/1.2/advanced/override_grammar/basic for details"
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"unknown key", []string{"train.foo=1"},
			"Could not override 'train.foo'.\nTo append to your config use +train.foo=1\nKey 'foo' is not in struct\n    full_key: train.foo\n    object_type=dict"},
		{"unknown option", []string{"model=large"},
			"In 'config': Could not find 'model/large'\n\nAvailable options in 'model':\n\tdeberta_v3_large\n\tmentalbert\n\ttiny" + searchPath},
		{"group not in the defaults list", []string{"model/head=linear"},
			"Could not override 'model/head'. No match in the defaults list.\nTo append to your default list use +model/head=linear"},
		{"append to what is there", []string{"+train.seed=1"},
			"Could not append to config. An item is already at 'train.seed'.\nEither remove + prefix: 'train.seed=1'\n" +
				"Or add a second + to add or override 'train.seed': '++train.seed=1'\n"},
		{"delete what is not there", []string{"~train.nope"},
			"Could not delete from config. 'train.nope' does not exist."},
		{"list without brackets", []string{"train.seed=1,2"},
			"Ambiguous value for argument 'train.seed=1,2'\n1. To use it as a list, use key=[value1,value2]\n" +
				"2. To use it as string, quote the value: key=\\'value1,value2\\'\n3. To sweep over it, add --multirun to your command line"},
		{"sweep without multirun", []string{"train.seed=choice(1,2)"},
			"Sweep parameters 'train.seed=choice(1,2)' requires --multirun"},
		{"character to be quoted", []string{"train.seed=~"},
			"LexerNoViableAltException: train.seed=~\n                                      ^" + see},
		{"unclosed list", []string{"train.seed=[1,2"},
			"no viable alternative at input '[1,2'" + see},
		{"no equal sign", []string{"a"},
			"Error parsing override 'a'\nmissing EQUAL at '<EOF>'" + see},
		{"two equal signs", []string{"train.seed=a=b=c"},
			"mismatched input '=' expecting <EOF>" + see},
		{"unknown primary config", []string{"-cn", "nope_config"},
			"Cannot find primary config 'nope_config'. Check that it's in your config search path.\n" + searchPath},
		{"option to be chosen", []string{"--config-name=choose"},
			"You must specify 'model', e.g, model=<OPTION>\nAvailable options:\n\tdeberta_v3_large\n\tmentalbert\n\ttiny"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRun(t)
			r.start(t, exitFailed, test.args...)
			if diff := cmp.Diff(test.want+hintLines, r.stderr.String()); diff != "" {
				t.Errorf("stderr (-want +got):\n%s", diff)
			}
			if len(r.jobs) > 0 || r.stdout.Len() > 0 {
				t.Errorf("%d jobs ran, stdout %q", len(r.jobs), r.stdout.String())
			}
		})
	}
}

// TestTypedErrors pins the text of the two common errors of typed nodes.
func TestTypedErrors(t *testing.T) {
	for line, want := range map[string]string{
		"train.foo=1": "Could not override 'train.foo'.\nTo append to your config use +train.foo=1\n" +
			"Key 'foo' not in 'Train'\n    full_key: train.foo\n    reference_type=Train\n    object_type=Train",
		"train.seed=abc": "Error merging override train.seed=abc\n" +
			"Value 'abc' of type 'str' could not be converted to Integer\n    full_key: train.seed\n    reference_type=Train\n    object_type=Train",
	} {
		root, err := newTyped(goldenSchema())
		if err != nil {
			t.Fatal(err)
		}
		o, err := parseOverride(line)
		if err != nil {
			t.Fatal(err)
		}
		got := applyOverride(root, o, &environment{})
		if got == nil || got.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", line, got, want)
		}
	}
}

func TestRunWritesRecords(t *testing.T) {
	r := newRun(t)
	r.start(t, exitOK, "train.seed=7", "+extra=[1,a]", "hydra.job.name=zz", "model=tiny")
	if len(r.jobs) != 1 {
		t.Fatalf("%d jobs ran, want 1", len(r.jobs))
	}
	job := r.jobs[0]
	dir := filepath.FromSlash("outputs/2026-11-22/15-03-37")
	if job.OutputDir != dir || job.LogFile != filepath.Join(dir, "zz.log") || job.Name != "zz" {
		t.Errorf("job %q in %q logs to %q", job.Name, job.OutputDir, job.LogFile)
	}
	if diff := cmp.Diff([]string{"train.seed=7", "+extra=[1,a]", "model=tiny"}, job.Overrides); diff != "" {
		t.Errorf("overrides (-want +got):\n%s", diff)
	}
	for name, want := range map[string]string{
		"config.yaml": "model:\n  name: tiny\ntrain:\n  seed: 7\n  learning_rate: 2.0e-05\n  note: null\n" +
			"project: redsm5\nrun_name: ${project}-${train.seed}\nextra:\n- 1\n- a\n",
		"config_resolved.yaml": "model:\n  name: tiny\ntrain:\n  seed: 7\n  learning_rate: 2.0e-05\n  note: null\n" +
			"project: redsm5\nrun_name: redsm5-7\nextra:\n- 1\n- a\n",
		"overrides.yaml": "- train.seed=7\n- +extra=[1,a]\n- model=tiny\n",
	} {
		got, err := os.ReadFile(filepath.Join(dir, ".hydra", name))
		if err != nil {
			t.Error(err)
			continue
		}
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if entries, err := os.ReadDir(filepath.Join(dir, ".hydra")); err != nil || len(entries) != 4 {
		t.Errorf(".hydra holds %v (%v), want four files", entries, err)
	}
	if value, err := job.Hydra.Get("job.override_dirname"); err != nil || value != "+extra=[1,a],model=tiny,train.seed=7" {
		t.Errorf("hydra.job.override_dirname is %v (%v)", value, err)
	}
}

func TestRunReportsTaskError(t *testing.T) {
	r := newRun(t)
	r.fail = fmt.Errorf("train: %w", errors.New("no data"))
	r.start(t, exitFailed, "train.seed=7")
	want := "Error executing job with overrides: ['train.seed=7']\ntrain: no data" + hintLines
	if diff := cmp.Diff(want, r.stderr.String()); diff != "" {
		t.Errorf("stderr (-want +got):\n%s", diff)
	}

	r = newRun(t)
	r.fail = fmt.Errorf("train: %w", errors.New("no data"))
	r.app.LookupEnv = func(name string) (string, bool) { return "1", name == fullErrorVariable }
	r.start(t, exitFailed)
	want = "Error executing job with overrides: []\ntrain: no data\ncaused by: *errors.errorString: no data\n"
	if diff := cmp.Diff(want, r.stderr.String()); diff != "" {
		t.Errorf("stderr with HYDRA_FULL_ERROR=1 (-want +got):\n%s", diff)
	}
}

func TestRunReportsUnresolvedValue(t *testing.T) {
	r := newRun(t)
	r.start(t, exitFailed, "project=${nope}")
	want := "Error executing job with overrides: ['project=${nope}']\n" +
		"omegaconf.errors.InterpolationKeyError: Interpolation key 'nope' not found\n    full_key: project\n    object_type=dict" + hintLines
	if diff := cmp.Diff(want, r.stderr.String()); diff != "" {
		t.Errorf("stderr (-want +got):\n%s", diff)
	}
	if len(r.jobs) > 0 {
		t.Error("the task ran with a configuration that cannot be resolved")
	}
	if _, err := os.Stat("outputs/2026-11-22/15-03-37/.hydra/config.yaml"); err != nil {
		t.Errorf("config.yaml must be written all the same: %v", err)
	}
}

func TestRunSweep(t *testing.T) {
	r := newRun(t)
	r.start(t, exitOK, "-m", "train.seed=1,2", "model=glob(*,exclude=d*)", "hydra.sweep.subdir=${hydra.job.num}_${model.name}")
	var got []string
	for _, job := range r.jobs {
		got = append(got, fmt.Sprintf("%d %s %v", job.Num, filepath.ToSlash(job.OutputDir), job.Overrides))
	}
	want := []string{
		"0 multirun/2026-11-22/15-03-37/0_bert [train.seed=1 model=mentalbert]",
		"1 multirun/2026-11-22/15-03-37/1_tiny [train.seed=1 model=tiny]",
		"2 multirun/2026-11-22/15-03-37/2_bert [train.seed=2 model=mentalbert]",
		"3 multirun/2026-11-22/15-03-37/3_tiny [train.seed=2 model=tiny]",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("jobs (-want +got):\n%s", diff)
	}
	const stamp = "[2026-11-22 15:03:37,601][HYDRA] "
	wantOut := stamp + "Launching 4 jobs locally\n" + stamp + "\t#0 : train.seed=1 model=mentalbert\n"
	if !strings.HasPrefix(r.stdout.String(), wantOut) {
		t.Errorf("stdout is\n%swant it to start with\n%s", r.stdout.String(), wantOut)
	}
	if _, err := os.Stat("multirun/2026-11-22/15-03-37/multirun.yaml"); err != nil {
		t.Error(err)
	}
}

func TestSweepRunsAllJobsAfterAFailure(t *testing.T) {
	r := newRun(t)
	r.fail = errors.New("boom")
	r.start(t, exitFailed, "-m", "train.seed=1,2")
	if len(r.jobs) != 2 {
		t.Errorf("%d jobs ran, want 2", len(r.jobs))
	}
	if want := "Error executing job with overrides: ['train.seed=1']\nboom" + hintLines; r.stderr.String() != want {
		t.Errorf("stderr is %q, want %q", r.stderr.String(), want)
	}
}

func TestSweepChecksAllJobsFirst(t *testing.T) {
	r := newRun(t)
	r.start(t, exitFailed, "-m", "model=tiny,nope")
	if len(r.jobs) > 0 {
		t.Errorf("%d jobs ran before the mistake in the last one showed", len(r.jobs))
	}
}

func TestSweepStopsWhenCancelled(t *testing.T) {
	r := newRun(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	exit := r.app.Run(ctx, []string{"-m", "train.seed=1,2,3"}, func(ctx context.Context, job *Job) error {
		cancel(errors.New("interrupted"))
		return r.task(ctx, job)
	})
	if exit != exitFailed || len(r.jobs) != 1 || !strings.Contains(r.stderr.String(), "interrupted") {
		t.Errorf("exit %d after %d jobs, stderr %q", exit, len(r.jobs), r.stderr.String())
	}
}

func TestSweeperConfiguration(t *testing.T) {
	r := newRun(t)
	r.start(t, exitOK, "hydra.mode=MULTIRUN", "hydra.sweeper.max_batch_size=2", "+hydra.sweeper.params={train.seed:'1,2,3'}")
	if len(r.jobs) != 3 {
		t.Errorf("%d jobs ran, want 3; stdout:\n%s", len(r.jobs), r.stdout.String())
	}
	if n := strings.Count(r.stdout.String(), "Launching"); n != 2 {
		t.Errorf("launched %d batches, want 2:\n%s", n, r.stdout.String())
	}
}

// TestLeftOut checks that what the package leaves out is answered by one line.
func TestLeftOut(t *testing.T) {
	for _, args := range [][]string{
		{"hydra.job.chdir=true"},
		{"+hydra.callbacks={a:{_target_:x}}"},
		{"+hydra.job.env_set={A:b}"},
		{"hydra.launcher._target_=hydra_plugins.joblib"},
		{"-m", "hydra.sweeper._target_=hydra_plugins.optuna", "train.seed=1,2"},
		{"-sc", "install=bash"},
		{"--experimental-rerun", "config.pickle"},
		{"--info", "plugins"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			r := newRun(t)
			r.start(t, exitFailed, args...)
			if !isOneLine(r.stderr.String()) || len(r.jobs) > 0 {
				t.Errorf("%d jobs ran, stderr is %q, want one line", len(r.jobs), r.stderr.String())
			}
			if entries, err := os.ReadDir("."); err != nil || len(entries) > 0 {
				t.Errorf("left %v behind (%v)", entries, err)
			}
		})
	}
}

func TestHelpShowsText(t *testing.T) {
	r := newRun(t)
	r.app.Help = "== Keys ==\ntrain.seed: where randomness starts from\n"
	r.start(t, exitOK, "--help", "train.seed=3")
	for _, want := range []string{"train is powered by Hydra.", "model: deberta_v3_large, mentalbert, tiny\nmodel/head: linear\n",
		"\ntrain.seed: where randomness starts from\n\n== Config ==\n", "  seed: 3\n", "run_name: ${project}-${train.seed}"} {
		if !strings.Contains(r.stdout.String(), want) {
			t.Errorf("help lacks %q:\n%s", want, r.stdout.String())
		}
	}
	r = newRun(t)
	r.start(t, exitOK, "--help", "--resolve")
	if want := "run_name: redsm5-42"; !strings.Contains(r.stdout.String(), want) {
		t.Errorf("help lacks %q:\n%s", want, r.stdout.String())
	}
}

func TestConfigFolders(t *testing.T) {
	r := newRun(t)
	for name, text := range map[string]string{
		"mine/train/mine.yaml":   "seed: 1\n",
		"other/config.yaml":      "a: 1\n",
		"extra/model/local.yaml": "name: local\n",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	r.start(t, exitOK, "--config-dir", "mine", "train=mine", "--cfg", "job", "-p", "train")
	r.start(t, exitOK, "-cp=other", "-cjob")
	r.start(t, exitOK, "hydra.searchpath=[file://extra]", "model=local", "-c", "job", "-p", "model.name")
	if want := "# @package train\nseed: 1\na: 1\nlocal\n"; r.stdout.String() != want {
		t.Errorf("stdout is %q, want %q; stderr %q", r.stdout.String(), want, r.stderr.String())
	}
}

func TestUsageErrors(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--foo", "a=1", "-x"}, "unrecognized arguments: --foo -x"},
		{[]string{"--conf", "x"}, "ambiguous option: --conf could match --config-path, --config-name, --config-dir"},
		{[]string{"--cfg"}, "argument --cfg/-c: expected one argument"},
		{[]string{"-cfg", "job"}, "argument --cfg/-c: invalid choice: 'fg' (choose from 'job', 'hydra', 'all')"},
		{[]string{"--run=1"}, "argument --run/-r: ignored explicit argument '1'"},
	} {
		r := newRun(t)
		r.start(t, exitUsage, test.args...)
		if want := "train: error: " + test.want + "\n"; !strings.HasSuffix(r.stderr.String(), want) || !strings.HasPrefix(r.stderr.String(), "usage: train [--help]") {
			t.Errorf("%q: stderr is\n%swant it to end in %q", test.args, r.stderr.String(), want)
		}
	}
}

func TestFlags(t *testing.T) {
	for _, test := range []struct {
		args []string
		want flags
	}{
		{[]string{"a=1", "--multi", "b=2", "~c"}, flags{multirun: true, overrides: []string{"a=1", "b=2", "~c"}}},
		{[]string{"-rm"}, flags{run: true, multirun: true}},
		{[]string{"-cjob", "-ptrain", "--res"}, flags{cfg: "job", pkg: "train", hasPkg: true, resolve: true}},
		{[]string{"-i", "--", "-p"}, flags{info: "all", overrides: []string{"-p"}}},
		{[]string{"--info", "defaults"}, flags{info: "defaults"}},
		{[]string{"-5", "-.5", "-"}, flags{overrides: []string{"-5", "-.5", "-"}}},
		{[]string{"--version", "--nope"}, flags{version: true}},
	} {
		got, err := parseFlags(test.args)
		if err != nil {
			t.Errorf("%q: %v", test.args, err)
			continue
		}
		if diff := cmp.Diff(&test.want, got, cmp.AllowUnexported(flags{})); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.args, diff)
		}
	}
}

func TestWarning(t *testing.T) {
	r := newRun(t)
	r.start(t, exitOK, "--config-name", "noself")
	want := "UserWarning: In 'noself': Defaults list is missing `_self_`. " +
		"See https://hydra.cc/docs/1.2/upgrades/1.0_to_1.1/default_composition_order for more information\n"
	if r.stderr.String() != want {
		t.Errorf("stderr is %q, want %q", r.stderr.String(), want)
	}
}

func TestCompose(t *testing.T) {
	app := App{Name: "train", ConfigFS: smallConf(), ConfigName: "config"}
	config, err := app.Compose("model=tiny", "train.note='???'", "+list=[{a:1},2]")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]any{
		"model.name": "tiny", "run_name": "redsm5-42", "train.learning_rate": 2e-5, "list.0.a": int64(1), "list": []any{Map{{"a", int64(1)}}, int64(2)},
	} {
		got, err := config.Get(path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	for path, kind := range map[string]Kind{"train.nope": KindAttribute, "train.note": KindMissingValue, "train.seed.x": KindAttribute} {
		if _, err := config.Get(path); err == nil || asError(err).Kind != kind {
			t.Errorf("%s: error is %v, want kind %s", path, err, kind)
		}
	}
	if diff := cmp.Diff([]string{"train.note"}, config.MissingKeys()); diff != "" {
		t.Errorf("missing keys (-want +got):\n%s", diff)
	}
	if _, err := app.Compose("train.seed=1,2"); err == nil || strings.Contains(err.Error(), `\'`) {
		t.Errorf("error is %v, want one without the quoting of a shell", err)
	}
}

func TestMarshalYAML(t *testing.T) {
	type name string
	got, err := MarshalYAML(Map{
		{"ints", []int{1, 2}}, {"f32", float32(0.1)}, {"f", 1.0}, {"u", uint64(1 << 63)}, {"name", name("on")},
		{"map", map[string]any{"b": nil, "a": []string{}}}, {"deep", []any{[]any{1, Map{{"k", true}}}}}, {"bytes", []byte("hi")},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "ints:\n- 1\n- 2\nf32: 0.1\nf: 1.0\nu: 9223372036854775808\nname: 'on'\nmap:\n  a: []\n  b: null\n" +
		"deep:\n- - 1\n  - k: true\nbytes: !!binary |\n  aGk=\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := MarshalYAML(Map{{"c", make(chan int)}}); err == nil {
		t.Error("a channel was written")
	}
}

// Runs that begin in the same second have a directory each, and so have sweeps.
func TestFreeOutputDir(t *testing.T) {
	r := newRun(t)
	for range 3 {
		r.start(t, exitOK)
	}
	var got []string
	for _, job := range r.jobs {
		got = append(got, filepath.ToSlash(job.OutputDir))
		if dir, err := job.Hydra.Get("run.dir"); err != nil || job.Num != 0 {
			t.Errorf("hydra.run.dir %v, error %v", dir, err)
		}
	}
	const first = "outputs/2026-11-22/15-03-37"
	if diff := cmp.Diff([]string{first, first + "_1", first + "_2"}, got); diff != "" {
		t.Errorf("directories (-want +got):\n%s", diff)
	}
	if said := r.stderr.String(); !strings.Contains(said, filepath.FromSlash(first+"_1")) {
		t.Errorf("nothing was said of the other name: %s", said)
	}
	r.jobs = nil
	for range 2 {
		r.start(t, exitOK, "-m", "train.seed=1,2")
	}
	got = nil
	for _, job := range r.jobs {
		got = append(got, filepath.ToSlash(job.OutputDir))
	}
	const sweep = "multirun/2026-11-22/15-03-37"
	if diff := cmp.Diff([]string{sweep + "/0", sweep + "/1", sweep + "_1/0", sweep + "_1/1"}, got); diff != "" {
		t.Errorf("directories of sweeps (-want +got):\n%s", diff)
	}
	// What the user chose is taken as it is.
	r.jobs = nil
	for range 2 {
		r.start(t, exitOK, "hydra.run.dir=mine")
	}
	if r.jobs[0].OutputDir != "mine" || r.jobs[1].OutputDir != "mine" {
		t.Errorf("directories %q and %q, want mine", r.jobs[0].OutputDir, r.jobs[1].OutputDir)
	}
}

// No run writes to the directory of one that is at work.
func TestOutputDirInUse(t *testing.T) {
	r := newRun(t)
	unlock, err := lockDir("mine")
	if err != nil {
		t.Fatal(err)
	}
	r.start(t, exitFailed, "hydra.run.dir=mine")
	if entries, err := os.ReadDir("mine"); err != nil || len(entries) != 0 || len(r.jobs) != 0 {
		t.Errorf("%v, error %v, %d jobs; want nothing", entries, err, len(r.jobs))
	}
	if said := r.stderr.String(); !strings.Contains(said, "mine is in use by another run") {
		t.Error(said)
	}
	unlock()
	r.start(t, exitOK, "hydra.run.dir=mine")
}
