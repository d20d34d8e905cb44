package mlflow

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestTrusted: the credentials of the environment are for the server that it
// names, whatever a journal says.
func TestTrusted(t *testing.T) {
	token := []string{"MLFLOW_TRACKING_TOKEN", "secret"}
	for _, c := range []struct {
		from string
		env  []string
		want string // "" is an error
	}{
		{"sqlite:///x.db", token, "sqlite:///x.db"},
		{"./mlruns", token, "./mlruns"},
		{"http://a:5000", nil, "http://a:5000"},
		{"http://a:5000", token, ""},
		{"HTTP://a:5000", token, ""},
		{"http://a:5000", []string{"MLFLOW_TRACKING_USERNAME", "ann", "MLFLOW_TRACKING_PASSWORD", "x"}, ""},
		{"http://a:5000", []string{"MLFLOW_TRACKING_CLIENT_CERT_PATH", "x.pem"}, ""},
		{"http://a:5000", append([]string{"MLFLOW_TRACKING_URI", "http://ann:x@a:5000/"}, token...), "http://ann:x@a:5000/"},
		{"http://A", append([]string{"MLFLOW_TRACKING_URI", "http://a:80"}, token...), "http://a:80"},
		{"http://a:5000/p", append([]string{"MLFLOW_TRACKING_URI", "http://a:5000"}, token...), "http://a:5000/p"},
		{"http://a:5000", append([]string{"MLFLOW_TRACKING_URI", "https://a:5000"}, token...), ""},
		{"http://a:5001", append([]string{"MLFLOW_TRACKING_URI", "http://a:5000"}, token...), ""},
		{"http://a.b:5000", append([]string{"MLFLOW_TRACKING_URI", "http://b:5000"}, token...), ""},
		{"http://b:5000@a:5000", append([]string{"MLFLOW_TRACKING_URI", "http://b:5000"}, token...), ""},
	} {
		got, err := Trusted(c.from, quick(c.env...))
		var origin *OriginError
		if got != c.want || (err != nil) != (c.want == "") || err != nil && !errors.As(err, &origin) {
			t.Errorf("%s with %v: got %q, %v; want %q", c.from, c.env, got, err, c.want)
		}
		if err != nil && (strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "--tracking_uri")) {
			t.Errorf("%s: %v", c.from, err)
		}
	}
}

// TestServersFolder: a server cannot make its clients read or write a folder of
// theirs that was not agreed on.
func TestServersFolder(t *testing.T) {
	allowed, other := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "f"), []byte("private"), 0o600); err != nil {
		t.Fatal(err)
	}
	uri := newFakeServer(t).start(t)
	for _, c := range []struct {
		root, location string
		ok             bool
	}{
		{"", other, false}, {"", "file://" + filepath.ToSlash(other), false}, {"", "mlruns/0", false},
		{allowed, other, false}, {allowed, filepath.Join(allowed, "..", filepath.Base(other)), false},
		{allowed, allowed + "x", false}, {allowed, filepath.Join(allowed, "1", "x"), true},
		{"file://" + filepath.ToSlash(allowed), allowed, true},
	} {
		s := mustOpen(t, uri, Options{Getenv: quick("MLFLOW_DEFAULT_ARTIFACT_ROOT", c.root)})
		run := Run{ID: "x", ArtifactURI: c.location}
		putErr := s.PutArtifact(t.Context(), run, "g", section("x"))
		f, getErr := s.OpenArtifact(t.Context(), run, "g")
		if getErr == nil {
			f.Close()
		}
		if (putErr == nil) != c.ok || (getErr == nil) != c.ok || (s.(*restStore).checkArtifactURI(run) == nil) != c.ok {
			t.Errorf("%s below %q: %v, %v", c.location, c.root, putErr, getErr)
		}
		if !c.ok && (!errors.Is(putErr, ErrRejected) || !strings.Contains(putErr.Error(), "MLFLOW_DEFAULT_ARTIFACT_ROOT")) {
			t.Errorf("%s: %v", c.location, putErr)
		}
	}
	if _, err := os.Stat(filepath.Join(other, "g")); err == nil {
		t.Error("the server wrote a file of ours")
	}
}

// TestDatabricks: what MLflow takes for the name of a service is no folder.
func TestDatabricks(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, uri := range []string{"databricks", "databricks://profile", "databricks-uc", "databricks-uc://profile", "uc:http://host"} {
		if _, err := Open(t.Context(), uri, Options{}); err == nil || !strings.Contains(err.Error(), "Databricks") {
			t.Errorf("%s: %v", uri, err)
		}
	}
	if entries, err := os.ReadDir("."); err != nil || len(entries) > 0 {
		t.Errorf("there are %v, %v", entries, err)
	}
	mustOpen(t, "./databricks", Options{})
}

// TestSecretsInErrors: no error of Open has a part of the password in it.
func TestSecretsInErrors(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, uri := range []string{
		"http://ann:hunter/zwo@track:5000", "http://ann:hunter@zwo@127.0.0.1:1", "http://ann:hunterzwo@127.0.0.1:1",
		"http://127.0.0.1:1/?password=hunter%20zwo", "postgresql://ann:hunterzwo@db/mlflow", "ann:hunterzwo@track:5000",
		"file://ann:hunterzwo@track/x", "sqlite://ann:hunterzwo@track/x.db", "mysql+pymysql://ann:hunter/zwo@db/mlflow",
	} {
		_, err := Open(t.Context(), uri, Options{Getenv: quick(), MaxRetries: -1})
		if err == nil || strings.Contains(err.Error(), "hunter") || strings.Contains(err.Error(), "zwo") {
			t.Errorf("%s: %v", uri, err)
		}
	}
}

// TestStrangersJournal: a link among the artifacts that wait leads to nothing,
// and a line without an end is not kept in memory.
func TestStrangersJournal(t *testing.T) {
	dir := t.TempDir()
	j, err := createJournal(dir, runRecord{URI: "sqlite:///x.db", Spec: RunSpec{ExperimentID: "0", Start: time.Now()}})
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	outside := filepath.Join(dir, "private")
	if err := errors.Join(os.WriteFile(outside, []byte("x"), 0o600), os.MkdirAll(j.files(), 0o700),
		os.Symlink(outside, filepath.Join(j.files(), "f"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f", "../../private"} {
		if f, err := j.openFile(name); err == nil {
			f.Close()
			t.Errorf("%s was opened", name)
		}
	}
	lines := newLineReader(bytes.NewReader(append(bytes.Repeat([]byte("x"), 3*maxRecord), "\n{\"end\":{}}\n"...)))
	if rec, size, err := lines.next(); err != nil || size != 3*maxRecord+1 || rec.End != nil {
		t.Errorf("got %v of %d bytes, %v", rec, size, err)
	}
	if rec, _, err := lines.next(); err != nil || rec.End == nil {
		t.Errorf("then %v, %v", rec, err)
	}
}
