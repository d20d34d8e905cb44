package hydra

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/criteria-go/criteria/internal/redact"
)

// App is a program that is configured and run the Hydra way.
type App struct {
	// Name is the name of the job, as in "train". It names the log file and is
	// hydra.job.name unless that is overridden.
	Name string
	// ConfigFS is the program's own tree of configs, usually embedded. It may be
	// replaced with --config-path and added to with --config-dir.
	ConfigFS fs.FS
	// ConfigName is the primary config, as in "config".
	ConfigName string
	// ConfigLabel is what the tree is called in messages and by --info, as in
	// "conf/"; a label with a scheme ("file:///etc/app") is taken as it is.
	ConfigLabel string
	// Help is text for --help, above the configuration; may be empty.
	Help string

	// Stdout and Stderr default to those of the process.
	Stdout, Stderr io.Writer
	// Now is asked once per run for ${now:…} and the folder names, and for every
	// line about the jobs of a sweep. The default is time.Now.
	Now func() time.Time
	// LookupEnv is what ${oc.env:…} reads. The default is os.LookupEnv.
	LookupEnv func(string) (string, bool)
}

// Job is one run of the program's task.
type Job struct {
	// Name is hydra.job.name.
	Name string
	// Num is the number of the job in a sweep; 0 if there is no sweep.
	Num int
	// OutputDir is the folder for everything that the job writes, as Hydra
	// resolves it: relative to the working directory, unless it is configured to
	// be absolute. It exists, and so does its folder .hydra.
	OutputDir string
	// LogFile is OutputDir/<Name>.log. It is for the task to create.
	LogFile string
	// Verbose is hydra.verbose: whether to log at level DEBUG.
	Verbose bool
	// Overrides are the overrides of the job, without those of hydra.*.
	Overrides []string
	// Config is the composed configuration.
	Config *Config
	// Hydra is Hydra's own configuration, as written to .hydra/hydra.yaml.
	Hydra *Config
}

// The exit codes of a program.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // as argparse has it
)

// fullErrorVariable asks for the whole chain of errors.
const fullErrorVariable = "HYDRA_FULL_ERROR"

// Run parses the command line args (without the program name), composes the
// configuration and calls task: once, or with --multirun once for every job in
// order. Or it does what a flag asks for instead, such as --help or --cfg.
//
// It returns the exit code of the program: 0 for success, 1 for any failure and
// 2 for a command line that cannot be parsed. Errors have then been written to
// Stderr as Hydra would write them, those of task after a line with the
// overrides of its job. All jobs of a sweep are run even if one fails. A
// cancelled ctx ends the sweep before its next job.
func (a App) Run(ctx context.Context, args []string, task func(ctx context.Context, job *Job) error) int {
	r := &runner{app: a.withDefaults(), task: task, warned: make(map[string]bool)}
	flags, usage := parseFlags(args)
	if usage != nil {
		r.usageError(usage)
		return exitUsage
	}
	if err := r.dispatch(ctx, flags); err != nil {
		r.report(err)
		return exitFailed
	}
	return exitOK
}

// Compose returns the configuration of the program for some overrides without
// running it. Relative folders and the flags of the command line do not matter.
func (a App) Compose(overrides ...string) (*Config, error) {
	r := &runner{app: a.withDefaults(), warned: make(map[string]bool)}
	c, err := r.composer(&flags{})
	if err != nil {
		return nil, err
	}
	c.fromShell = false
	composed, err := c.compose(request{config: r.app.ConfigName, overrides: overrides, mode: modeRun})
	if err != nil {
		return nil, err
	}
	return composed.job(), nil
}

func (a App) withDefaults() App {
	if a.Stdout == nil {
		a.Stdout = os.Stdout
	}
	if a.Stderr == nil {
		a.Stderr = os.Stderr
	}
	if a.Now == nil {
		a.Now = time.Now
	}
	if a.LookupEnv == nil {
		a.LookupEnv = os.LookupEnv
	}
	return a
}

// runner is one call of Run.
type runner struct {
	app  App
	task func(ctx context.Context, job *Job) error

	warnings sync.Mutex // a task may read its configuration from several goroutines
	warned   map[string]bool
}

// warn writes a warning, once.
func (r *runner) warn(msg string) {
	r.warnings.Lock()
	defer r.warnings.Unlock()
	if !r.warned[msg] {
		r.warned[msg] = true
		r.errorln("UserWarning: " + msg)
	}
}

// errorln writes a line to Stderr, without the passwords in it. There is nobody
// left to tell if that fails.
func (r *runner) errorln(line string) { _, _ = fmt.Fprintln(r.app.Stderr, redact.Text(line)) }

func (r *runner) usageError(err *usageError) {
	_ = writeUsage(r.app.Stderr, r.app.Name)
	r.errorln(r.app.Name + ": error: " + err.msg)
}

// dispatch does what the flags ask for.
func (r *runner) dispatch(ctx context.Context, f *flags) error {
	if f.version {
		_, err := fmt.Fprintf(r.app.Stdout, "Hydra %s\n", hydraVersion)
		return err
	}
	if f.shellCompletion {
		return errorf(KindUnsupported, "Shell completion is not supported by this program.")
	}
	if f.rerun != "" {
		return errorf(KindUnsupported, "--experimental-rerun is not supported by this program.")
	}
	c, err := r.composer(f)
	if err != nil {
		return err
	}
	config := r.app.ConfigName
	if f.hasConfigName {
		config = f.configName
	}
	if f.help {
		return r.showHelp(c, request{config: config, overrides: f.overrides, mode: modeRun}, f.resolve)
	}
	if f.resolve && f.cfg == "" {
		return errorf(KindValue, "The --resolve flag can only be used in conjunction with --cfg or --help")
	}
	if f.hydraHelp {
		return r.showHydraHelp(c, request{overrides: f.overrides, mode: modeRun})
	}
	commands := 0
	for _, given := range []bool{f.run, f.multirun, f.cfg != "", f.info != ""} {
		if given {
			commands++
		}
	}
	if commands > 1 {
		return errorf(KindValue, "Only one of --run, --multirun, --cfg, --info and --shell_completion can be specified")
	}
	req := request{config: config, overrides: f.overrides, mode: modeRun}
	switch {
	case f.cfg != "":
		return r.showConfig(c, req, f)
	case f.info != "":
		return r.showInfo(c, req, f.info)
	}
	return r.run(ctx, c, req, f.multirun)
}

// composer returns the composer for the search path that the flags ask for.
func (r *runner) composer(f *flags) (*composer, error) {
	main := source{provider: "main", scheme: "embed", path: r.app.ConfigLabel, tree: r.app.ConfigFS}
	if scheme, path, ok := strings.Cut(r.app.ConfigLabel, "://"); ok {
		main.scheme, main.path = scheme, path
	}
	if f.hasConfigPath {
		if ext := filepath.Ext(f.configPath); ext == ".yaml" || ext == ".yml" {
			return nil, errorf(KindValue, "Using config_path to specify the config name is not supported, specify the config name via config_name.\n"+
				"See https://hydra.cc/docs/1.2/upgrades/0.11_to_1.0/config_path_changes")
		}
		dir, err := absolute(f.configPath)
		if err != nil {
			return nil, err
		}
		main = dirSource("main", dir)
	}
	sources := []source{hydraSource(), main}
	if f.hasConfigDir {
		dir, err := absolute(f.configDir)
		if err != nil {
			return nil, err
		}
		extra := dirSource("command-line", dir)
		if !extra.isGroup(".") {
			return nil, errorf(KindSearchPath, "Additional config directory '%s' not found", dir)
		}
		sources = append(sources, extra)
	}
	return &composer{
		jobName:   r.app.Name,
		sources:   append(sources, schemaSource()),
		env:       environment{lookupEnv: r.app.LookupEnv, now: r.app.Now(), warn: r.warn},
		fromShell: true,
		warn:      r.warn,
	}, nil
}

// run runs the job or the jobs.
func (r *runner) run(ctx context.Context, c *composer, req request, multirun bool) error {
	mode := r.configuredMode(c, req)
	switch {
	case mode == "" && !multirun:
		mode = modeRun
		req.overrides = slices.Concat(req.overrides, []string{"hydra.mode=RUN"})
	case mode == "" || multirun && mode == modeRun:
		if mode == modeRun {
			r.warn("\n\tRunning Hydra app with --multirun, overriding with `hydra.mode=MULTIRUN`.")
		}
		mode = modeMultirun
		req.overrides = slices.Concat(req.overrides, []string{"hydra.mode=MULTIRUN"})
	}
	req.mode = mode
	composed, err := c.compose(req)
	if err != nil {
		return err
	}
	if err := checkSupported(composed); err != nil {
		return err
	}
	if mode == modeMultirun {
		return r.sweep(ctx, c, req, composed)
	}
	hydra := &Config{root: composed.root, env: composed.env}
	dirValue, err := hydra.Get("hydra.run.dir")
	if err != nil {
		return err
	}
	dir, err := r.freeDir(composed, "run", pyStr(dirValue))
	if err != nil {
		return err
	}
	return r.runJob(ctx, composed, dir, 0)
}

// configuredMode returns hydra.mode if the configuration sets it.
func (r *runner) configuredMode(c *composer, req request) runMode {
	req.mode, req.anySweep = modeMultirun, true
	composed, err := c.compose(req)
	if err != nil {
		return "" // reported by the composition that counts
	}
	mode, _ := composed.hydra().child("mode").plain().(enumValue)
	return runMode(mode.name)
}

// checkSupported refuses what the configuration asks of Hydra and this package
// leaves out.
func checkSupported(c *composition) error {
	h := c.hydra()
	if chdir := h.child("job").child("chdir"); chdir.scalar == true {
		return errorf(KindUnsupported, "hydra.job.chdir=true is not supported: the working directory is never changed.")
	}
	if callbacks := h.child("callbacks"); len(callbacks.children()) > 0 {
		return errorf(KindUnsupported, "hydra.callbacks is not supported by this program.")
	}
	if env := h.child("job").child("env_set"); len(env.children()) > 0 {
		return errorf(KindUnsupported, "hydra.job.env_set is not supported: set the environment variables before the program starts.")
	}
	for _, plugin := range []string{"launcher", "sweeper"} {
		target := ""
		if n := h.child(plugin); n.kind == mappingNode && n.child("_target_") != nil {
			target = pyStr(n.child("_target_").plain())
		}
		if !strings.HasPrefix(target, "hydra._internal.core_plugins.basic_"+plugin+".") {
			return errorf(KindUnsupported, "hydra/%s: only 'basic' is supported by this program, got '%s'.", plugin, target)
		}
	}
	return nil
}

// jobError is the failure of a job, after the configuration was composed.
type jobError struct {
	overrides []string
	err       error
}

func (e *jobError) Error() string { return e.err.Error() }
func (e *jobError) Unwrap() error { return e.err }

// runJob writes the files of a job and calls the task. dir is the output folder.
func (r *runner) runJob(ctx context.Context, composed *composition, dir string, num int) error {
	h := composed.hydra()
	abs, err := absolute(dir)
	if err != nil {
		return err
	}
	if err := h.withClosed(false, func() error { return h.child("runtime").set("output_dir", abs) }); err != nil {
		return err
	}
	job := &Job{
		Num:       num,
		OutputDir: dir,
		Overrides: []string{},
		Config:    composed.job(),
		Hydra:     &Config{root: h, env: composed.env},
	}
	for _, line := range plainList(h, "overrides.task") {
		job.Overrides = append(job.Overrides, pyStr(line))
	}
	name, err := job.Hydra.Get("job.name")
	if err != nil {
		return err
	}
	job.Name = pyStr(name)
	job.LogFile = filepath.Join(dir, job.Name+".log")
	verbose, err := job.Hydra.Get("verbose")
	if err != nil {
		return err
	}
	job.Verbose = verbose == true
	unlock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer unlock()
	subdir, err := job.Hydra.Get("output_subdir")
	if err != nil {
		return err
	}
	if subdir != nil {
		if err := writeRecords(filepath.Join(dir, pyStr(subdir)), job, h); err != nil {
			return &jobError{job.Overrides, err}
		}
	}
	if err := r.task(ctx, job); err != nil {
		return &jobError{job.Overrides, err}
	}
	return nil
}

// writeRecords writes what the job was configured with: config.yaml,
// overrides.yaml and hydra.yaml as Hydra does, and config_resolved.yaml, which
// says what every interpolation came to.
func writeRecords(dir string, job *Job, h *node) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return errorf(KindOS, "cannot create the output directory: %v", err)
	}
	config, err := job.Config.YAML()
	if err != nil {
		return err
	}
	overrides := make([]any, len(job.Overrides))
	for i, line := range job.Overrides {
		overrides[i] = line
	}
	for _, file := range []struct {
		name string
		data []byte
	}{
		{"config.yaml", config},
		{"overrides.yaml", dump(overrides)},
		{"hydra.yaml", dump(Map{{"hydra", h.plain()}})},
	} {
		if err := writeFile(filepath.Join(dir, file.name), file.data); err != nil {
			return err
		}
	}
	// A value that cannot be resolved is an error, but not one that should hide
	// the files above.
	resolved, err := job.Config.ResolvedYAML()
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "config_resolved.yaml"), resolved)
}

// writeFile writes a file that is either complete or not there.
func writeFile(name string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return errorf(KindOS, "cannot write %s: %v", name, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(errorf(KindOS, "cannot write %s: %v", name, err), os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o600) // as given: with the passwords that are in it
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// report writes an error as Hydra does: its own in short, those of a job after
// the overrides that it ran with.
func (r *runner) report(err error) {
	if full, ok := r.app.LookupEnv(fullErrorVariable); ok && full == "1" {
		r.reportChain(err)
		return
	}
	const hint = "\nSet the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace."
	if job, ok := errors.AsType[*jobError](err); ok {
		r.overridesln(job.overrides)
		r.errorln(describe(job.err))
		r.errorln(hint)
		return
	}
	e, ok := errors.AsType[*Error](err)
	if !ok || !e.Kind.isHydra() {
		r.errorln(describe(err))
		return
	}
	r.errorln(e.Msg)
	if cause, ok := errors.AsType[*Error](e.Cause); ok && cause.Kind.isOmegaConf() {
		r.errorln(cause.Error())
	}
	r.errorln(hint)
}

// reportChain writes an error and all errors that it wraps.
func (r *runner) reportChain(err error) {
	if job, ok := errors.AsType[*jobError](err); ok {
		r.overridesln(job.overrides)
		err = job.err
	}
	r.errorln(describe(err))
	for cause := errors.Unwrap(err); cause != nil; cause = errors.Unwrap(cause) {
		r.errorln(fmt.Sprintf("caused by: %T: %v", cause, cause))
	}
}

// describe returns the text of an error, with its class if it is one of the
// configuration.
func describe(err error) string {
	e, ok := err.(*Error)
	switch {
	case !ok || e.Kind == KindUnsupported || e.Kind == KindYAML:
		return err.Error()
	case e.Kind.isOmegaConf():
		return "omegaconf.errors." + string(e.Kind) + ": " + e.Error()
	case e.Kind.isHydra():
		return "hydra.errors." + string(e.Kind) + ": " + e.Error()
	}
	return string(e.Kind) + ": " + e.Error()
}

// overridesln writes what a job that failed ran with, each override without the
// passwords in it.
func (r *runner) overridesln(lines []string) {
	items := make([]any, len(lines))
	for i, line := range lines {
		items[i] = redact.Setting(line)
	}
	_, _ = fmt.Fprintln(r.app.Stderr, "Error executing job with overrides: "+pyRepr(items))
}
