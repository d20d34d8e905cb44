//go:build linux

package criteria_test

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/criteria-go/criteria"
	"github.com/criteria-go/criteria/internal/fakes"
	"github.com/criteria-go/criteria/internal/mlflow"
	"github.com/criteria-go/criteria/internal/sumfile"
)

// inNamespace, in the environment, says that the test runs in a process that
// may mount disks of its own.
const inNamespace = "CRITERIA_TEST_NAMESPACE"

// inOwnNamespace runs the calling test in a process that has a view of the file
// system of its own, and reports whether it is in it. No privileges are needed
// where the system lets users have namespaces, and for root nothing else is.
func inOwnNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inNamespace) == t.Name() {
		return true
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	for _, attributes := range []*syscall.SysProcAttr{
		{Cloneflags: syscall.CLONE_NEWNS},
		{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		},
	} {
		cmd := exec.CommandContext(t.Context(), program, "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), inNamespace+"="+t.Name())
		cmd.SysProcAttr = attributes
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		switch {
		case err == nil && !strings.Contains(string(out), "--- PASS: "+t.Name()):
			t.Fatalf("the test did not run:\n%s", out)
		case err == nil:
			t.Logf("%s", out)
			return false
		case errors.As(err, &exit):
			t.Fatalf("%v\n%s", err, out)
		}
		failed = errors.Join(failed, err)
	}
	t.Fatalf("this system lets nobody have a mount namespace: %v\nrun the tests as root, or allow user namespaces (sysctl user.max_user_namespaces)", failed)
	return false
}

// disk mounts a small disk at dir until the test ends.
func disk(t *testing.T, dir string, kilobytes int) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// Nothing of it must be seen outside.
	if err := syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dk", kilobytes)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// intact fails the test if something half-written is in the output directory.
func intact(t *testing.T, dir string) {
	t.Helper()
	for _, pattern := range []string{"best_model", "checkpoints/step-*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, folder := range found {
			if _, err := sumfile.Verify(folder); err != nil {
				t.Errorf("%s: %v", folder, err)
			}
		}
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if name := d.Name(); strings.HasSuffix(name, ".tmp") || strings.HasSuffix(name, ".old") || strings.HasSuffix(name, ".new") {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Whenever the disk of the output directory is full, the run ends with one
// error that says where and what to do, what was written before is whole, and
// with more room the run comes out as if nothing had happened.
func TestDiskFull(t *testing.T) {
	if !inOwnNamespace(t) {
		return
	}
	base := t.TempDir()
	t.Chdir(base) // the artifacts of MLflow are elsewhere
	uri := "sqlite:///" + filepath.Join(base, "mlflow.db")
	store, err := mlflow.Open(t.Context(), uri, mlflow.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	options := func() []criteria.TrainerOption {
		tracker, err := criteria.NewMLflowTracker(criteria.WithTrackingURI(uri), criteria.WithExperiment("test"), criteria.WithSystemMetrics(0), criteria.WithLogger(slog.New(slog.NewTextHandler(t.Output(), nil))))
		if err != nil {
			t.Fatal(err)
		}
		return []criteria.TrainerOption{criteria.WithTracker(tracker)}
	}
	whole := smallBench(t)
	whole.config.MLflow.RunName = "test"
	wholeResult := whole.run(t, options()...)
	want := trackedRun(t, store, wholeResult.RunID)

	const step = 16 // kB
	seen := make(map[string]bool)
	for size := step; ; size += step {
		b := whole.again(t)
		b.dir = filepath.Join(base, fmt.Sprint("disk", size), "out")
		disk(t, filepath.Dir(b.dir), size)
		result, err := b.trainer(t, append(options(), criteria.WithOutputDir(b.dir))...).Run(t.Context())
		if err == nil {
			if len(seen) < 4 {
				t.Errorf("the disk was full in these places only: %v", seen)
			}
			t.Logf("the disk is large enough with %d kB", size)
			break
		}
		if !errors.Is(err, syscall.ENOSPC) || result != nil {
			t.Fatalf("%d kB: %v, %v; want that the disk is full", size, result, err)
		}
		text := err.Error()
		if strings.Contains(text, "\n") || !strings.Contains(text, b.dir) || !strings.Contains(text, "make room on the disk") {
			t.Errorf("%d kB: error %q; want one line with the path and the remedy", size, text)
		}
		what, _, _ := strings.Cut(strings.TrimPrefix(text, "criteria: "), ":")
		what, _, _ = strings.Cut(what, " "+base)
		seen[what] = true
		intact(t, b.dir)

		if err := syscall.Mount("tmpfs", filepath.Dir(b.dir), "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
			t.Fatal(err)
		}
		opts := append(options(), criteria.WithOutputDir(b.dir))
		if found, _ := filepath.Glob(filepath.Join(b.dir, "checkpoints", "step-*")); len(found) > 0 {
			opts = append(opts, criteria.WithResume(b.dir))
		}
		result = b.run(t, opts...)
		intact(t, b.dir)
		if diff := cmp.Diff(wholeResult.History, result.History); diff != "" {
			t.Errorf("%d kB: scores (-with room +without):\n%s", size, diff)
		}
		if diff := cmp.Diff(want, trackedRun(t, store, result.RunID)); diff != "" {
			t.Errorf("%d kB: run in MLflow (-with room +without):\n%s", size, diff)
		}
	}
	t.Logf("the disk was full in %d places: %v", len(seen), seen)
	run, err := store.Run(t.Context(), wholeResult.RunID)
	if err != nil {
		t.Fatal(err)
	}
	runs, err := store.SearchRuns(t.Context(), run.ExperimentID, mlflow.Tag{Key: "stage", Value: "train"})
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range runs {
		if run.Status == mlflow.Running {
			t.Errorf("run %s is still RUNNING", run.ID)
		}
	}
}

// An output directory that cannot be written to is one error, at once.
func TestReadOnlyOutputDir(t *testing.T) {
	if !inOwnNamespace(t) {
		return
	}
	b := newBench(t)
	top := filepath.Join(t.TempDir(), "disk")
	disk(t, top, 1024)
	if err := os.Mkdir(filepath.Join(top, "there"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", top, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	b.engine = &fakes.Engine{Before: func(op string) error { t.Errorf("the engine was asked to %s", op); return nil }}
	for _, name := range []string{"there", "new"} {
		b.dir = filepath.Join(top, name)
		_, err := b.fail(t.Context(), t)
		if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), b.dir) || !strings.Contains(err.Error(), "give an output directory that can be written to") {
			t.Errorf("error %v; want that %s is on a read-only disk, and the remedy", err, b.dir)
		}
	}
}
