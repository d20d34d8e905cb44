package hydra

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria/internal/golden"
)

// goldenDir is the folder of Hydra's golden cases as an absolute path, since the
// tests change the working directory.
func goldenDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join(golden.Dir(t), "hydra"))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// glob lists the files of dir that match pattern; there must be some.
func glob(t *testing.T, dir, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("nothing matches %s in %s (%v)", pattern, dir, err)
	}
	return files
}

// goldenApp is the program of the golden cases in dir: it logs two lines.
func goldenApp(dir string, env map[string]string) (app App, stdout, stderr *bytes.Buffer) {
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	return App{
		Name:        "train",
		ConfigFS:    os.DirFS(filepath.Join(dir, "conf")),
		ConfigName:  "config",
		ConfigLabel: "file://<APP>/conf",
		Stdout:      stdout,
		Stderr:      stderr,
		Now:         func() time.Time { return time.Date(2026, 11, 22, 15, 3, 37, 601e6, time.Local) },
		LookupEnv:   func(name string) (string, bool) { v, ok := env[name]; return v, ok },
	}, stdout, stderr
}

func goldenTask(stdout *bytes.Buffer) func(context.Context, *Job) error {
	return func(context.Context, *Job) error {
		fmt.Fprintln(stdout, "[2026-11-22 15:03:37,601][__main__][INFO] - hello from app")
		fmt.Fprintln(stdout, "[2026-11-22 15:03:37,602][__main__][WARNING] - careful")
		return nil
	}
}

// TestGoldenHydraStderr runs every override case as a command line and compares
// what it prints.
func TestGoldenHydraStderr(t *testing.T) {
	dir := goldenDir(t)
	for _, c := range goldenCases(t, "overrides.jsonl") {
		t.Run(c.Name, func(t *testing.T) {
			work := t.TempDir()
			t.Chdir(work)
			app, stdout, stderr := goldenApp(dir, c.Env)
			app.ConfigLabel = "file://<CONF>"
			var args []string
			for _, line := range c.Overrides {
				args = append(args, workFolder.ReplaceAllString(line, work))
			}
			if c.OK {
				args = append(args, "hydra.output_subdir=null") // nothing to compare there
			}
			if c.ConfigName != "" {
				args = append([]string{"--config-name", c.ConfigName}, args...)
			}
			if len(args) > 0 && strings.HasPrefix(args[0], "-") && c.ConfigName == "" {
				args = append([]string{"--"}, args...)
			}
			exit := app.Run(t.Context(), args, goldenTask(stdout))
			want := exitOK
			if c.CLIExit != nil {
				want = *c.CLIExit
			} else if !c.OK {
				want = exitFailed
			}
			if c.OK && exit == exitFailed && isOneLine(stderr.String()) && strings.Contains(stderr.String(), "not supported") {
				return
			}
			if exit != want {
				t.Fatalf("exit code is %d, want %d; stderr:\n%s", exit, want, stderr)
			}
			if c.OK || c.CLIStderr == "" {
				return
			}
			if entries, err := os.ReadDir(work); err != nil || len(entries) > 0 && c.Phase == "compose" && !movesOutput(c) {
				t.Errorf("a composition that fails must not leave anything behind, found %v (%v)", entries, err)
			}
			wantErr, got := c.CLIStderr, stderr.String()
			kind := kindOf(c.ErrorType)
			switch {
			case wordingIsOurs(kind) && !strings.HasPrefix(wantErr, "LexerNoViableAltException"):
				if kind == KindOverrideParse && !strings.HasSuffix(got, hintLines) {
					t.Errorf("stderr does not end in the hint:\n%s", got)
				}
			case c.Phase == "resolve":
				for _, line := range strings.Split(strings.TrimSpace(wantErr), "\n")[1:] {
					if !strings.Contains(got, line) {
						t.Errorf("stderr lacks the line %q:\n%s", line, got)
					}
				}
			case strings.HasPrefix(wantErr, "<traceback>\n"):
				if !strings.Contains(got, strings.TrimSpace(strings.TrimPrefix(wantErr, "<traceback>\n"))) {
					t.Errorf("stderr is %q, wantErr the end of %q", got, wantErr)
				}
			default:
				if diff := cmp.Diff(wantErr, got); diff != "" {
					t.Errorf("stderr (-wantErr +got):\n%s", diff)
				}
			}
		})
	}
}

func isOneLine(s string) bool { return strings.Count(s, "\n") == 1 && strings.HasSuffix(s, "\n") }

const hintLines = "\n\nSet the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.\n"

// movesOutput tells cases whose output folder is not in the working directory.
func movesOutput(c goldenCase) bool {
	return strings.Contains(strings.Join(c.Overrides, " "), "hydra.run.dir")
}

var (
	timestamp  = regexp.MustCompile(`\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\]`)
	workFolder = regexp.MustCompile(`/tmp/\w+`)
	runFolder  = regexp.MustCompile(`(\d{4}-\d\d-\d\d)/(\d\d-\d\d-\d\d)`)
)

// TestGoldenHydraCommands runs the command lines of examples/cli.
func TestGoldenHydraCommands(t *testing.T) {
	dir := goldenDir(t)
	for _, file := range glob(t, dir, "examples/cli/*.cmd") {
		name := strings.TrimSuffix(filepath.Base(file), ".cmd")
		t.Run(name, func(t *testing.T) {
			read := func(ext string) string {
				data, err := os.ReadFile(strings.TrimSuffix(file, ".cmd") + ext)
				if err != nil {
					t.Fatal(err)
				}
				return string(data)
			}
			line, code, ok := strings.Cut(strings.TrimSpace(read(".cmd")), " -> exit ")
			wantExit, err := strconv.Atoi(code)
			if !ok || err != nil {
				t.Fatalf("cannot parse the command %q", line)
			}
			args := strings.Fields(strings.ReplaceAll(line, "<APP>", dir))[1:]
			t.Chdir(t.TempDir())
			work, err := os.Getwd()
			if err != nil {
				t.Fatal(err)
			}
			app, stdout, stderr := goldenApp(dir, nil)
			exit := app.Run(t.Context(), args, goldenTask(stdout))

			if isLeftOut(args) {
				if exit != exitFailed || !isOneLine(stderr.String()) || stdout.Len() > 0 {
					t.Errorf("exit %d, stdout %q, stderr %q; want one line that says it is not supported", exit, stdout, stderr)
				}
				return
			}
			if exit != wantExit {
				t.Fatalf("exit code is %d, want %d; stderr:\n%s", exit, wantExit, stderr)
			}
			ours := strings.NewReplacer(work, "<DIR>", "<APP>", "<DIR>", dir, "<DIR>")
			normal := func(s string) string {
				s = workFolder.ReplaceAllString(s, "<DIR>")
				s = strings.ReplaceAll(s, "<APP>", "<DIR>")
				return timestamp.ReplaceAllString(s, "[TIME]")
			}
			gotOut, wantOut := normal(ours.Replace(stdout.String())), normal(read(".out"))
			gotErr, wantErr := normal(ours.Replace(stderr.String())), normal(read(".err"))
			switch {
			case strings.HasPrefix(wantErr, "Traceback"):
				lines := strings.Split(strings.TrimSpace(wantErr), "\n")
				wantErr = lines[len(lines)-1] + "\n"
			case strings.HasPrefix(wantErr, "usage:"):
				// The name of the program decides where the usage is folded.
				gotErr = strings.Join(strings.Fields(gotErr), " ")
				wantErr = strings.Join(strings.Fields(strings.ReplaceAll(wantErr, "train.py", "train")), " ")
			}
			switch {
			case slices.Contains(args, "--hydra-help"):
				gotOut, wantOut = hydraHelpCore(gotOut), hydraHelpCore(wantOut)
			case slices.Contains(args, "--info"):
				gotOut, wantOut = withoutTableWidths(gotOut), withoutTableWidths(withoutPlugins(wantOut))
			}
			if diff := cmp.Diff(wantOut, gotOut); diff != "" {
				t.Errorf("stdout (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(wantErr, gotErr); diff != "" {
				t.Errorf("stderr (-want +got):\n%s", diff)
			}
		})
	}
}

// isLeftOut tells the commands that this package answers with one line.
func isLeftOut(args []string) bool {
	return slices.Contains(args, "-sc") || slices.Contains(args, "--shell-completion") ||
		slices.Contains(args, "--experimental-rerun") || slices.Contains(args, "plugins")
}

// hydraHelpCore drops the flags, whose help speaks of Python and of what is left
// out here.
func hydraHelpCore(s string) string {
	before, rest, _ := strings.Cut(s, "== Flags ==")
	_, after, _ := strings.Cut(rest, "== Configuration groups ==")
	return before + after
}

// withoutPlugins drops the list of plugins.
func withoutPlugins(s string) string {
	before, rest, ok := strings.Cut(s, "Installed Hydra Plugins\n")
	if !ok {
		return s
	}
	_, after, _ := strings.Cut(rest, "\n\n")
	return before + "\n" + after
}

// withoutTableWidths makes tables comparable whose columns held other paths.
func withoutTableWidths(s string) string {
	return regexp.MustCompile(`(?m) +\|| *$|-{20,}`).ReplaceAllString(s, "|")
}

// TestGoldenHydraRuns repeats the runs of examples/ and compares their .hydra
// folders.
func TestGoldenHydraRuns(t *testing.T) {
	dir := goldenDir(t)
	for _, recorded := range glob(t, dir, "examples/run_*/.hydra") {
		example := filepath.Dir(recorded)
		t.Run(filepath.Base(example), func(t *testing.T) {
			want := recordedHydra(t, filepath.Join(recorded, "hydra.yaml"))
			runExample(t, dir, want, nil, func(t *testing.T, job *Job, restore func(string) string) {
				compareFolder(t, recorded, filepath.Join(job.OutputDir, ".hydra"), restore)
			})
		})
	}
	for _, recorded := range glob(t, dir, "examples/*/multirun.yaml") {
		example := filepath.Dir(recorded)
		t.Run(filepath.Base(example), func(t *testing.T) {
			want := recordedHydra(t, recorded)
			runExample(t, dir, want, []string{"--multirun"}, func(t *testing.T, job *Job, restore func(string) string) {
				compareFolder(t, filepath.Join(example, strconv.Itoa(job.Num), ".hydra"), filepath.Join(job.OutputDir, ".hydra"), restore)
				compareFile(t, recorded, filepath.Join(filepath.Dir(job.OutputDir), "multirun.yaml"), restore)
			})
		})
	}
}

// recording is what a recorded hydra.yaml says about its run.
type recording struct {
	overrides []string
	text      string
}

func recordedHydra(t *testing.T, file string) recording {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	value, err := readConfig(file, data)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := newTree(value)
	if err != nil {
		t.Fatal(err)
	}
	r := recording{text: string(data)}
	for _, list := range []string{"overrides.hydra", "overrides.task"} {
		for _, line := range plainList(tree.child("hydra"), list) {
			if !strings.HasPrefix(line.(string), "hydra.mode=") {
				r.overrides = append(r.overrides, line.(string))
			}
		}
	}
	return r
}

// runExample runs the program with recorded overrides, at the recorded time, in
// a working directory of its own, and calls check for every job.
func runExample(t *testing.T, dir string, r recording, args []string, check func(*testing.T, *Job, func(string) string)) {
	t.Helper()
	t.Chdir(t.TempDir())
	work, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range r.overrides {
		args = append(args, workFolder.ReplaceAllString(line, work))
	}
	app, _, stderr := goldenApp(dir, nil)
	if at := runFolder.FindStringSubmatch(r.text); at != nil {
		now, err := time.ParseInLocation("2006-01-02 15-04-05", at[1]+" "+at[2], time.Local)
		if err != nil {
			t.Fatal(err)
		}
		app.Now = func() time.Time { return now }
	}
	jobs := 0
	exit := app.Run(t.Context(), args, func(_ context.Context, job *Job) error {
		jobs++
		check(t, job, func(s string) string {
			s = workFolder.ReplaceAllString(strings.ReplaceAll(s, work, "<APP>"), "<APP>")
			return runFolder.ReplaceAllString(s, "DATE/TIME")
		})
		return nil
	})
	if exit != exitOK || jobs == 0 {
		t.Fatalf("exit code %d after %d jobs; stderr:\n%s", exit, jobs, stderr)
	}
}

func compareFolder(t *testing.T, want, got string, restore func(string) string) {
	t.Helper()
	entries, err := os.ReadDir(want)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		compareFile(t, filepath.Join(want, entry.Name()), filepath.Join(got, entry.Name()), restore)
	}
}

func compareFile(t *testing.T, want, got string, restore func(string) string) {
	t.Helper()
	wantData, err := os.ReadFile(want)
	if err != nil {
		t.Fatal(err)
	}
	gotData, err := os.ReadFile(got)
	if err != nil {
		t.Error(err)
		return
	}
	if diff := cmp.Diff(restore(string(wantData)), restore(string(gotData))); diff != "" {
		t.Errorf("%s (-want +got):\n%s", filepath.Base(want), diff)
	}
}
