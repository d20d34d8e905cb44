// Package mlflowtest lets tests ask the real MLflow, the Python package: its
// client as a judge of runs and as a writer of them, and its server.
package mlflowtest

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// EnvPython names the environment variable that points to a Python interpreter
// with mlflow[auth] installed.
const EnvPython = "CRITERIA_MLFLOW_PYTHON"

var (
	//go:embed judge.py
	judgePy string
	//go:embed write.py
	writePy string
	//go:embed training.py
	trainingPy string
	//go:embed serve.py
	servePy string
)

// Python returns the interpreter that CRITERIA_MLFLOW_PYTHON names. Without
// one the test is skipped, or fails where CI is true.
func Python(t testing.TB) string {
	t.Helper()
	python := os.Getenv(EnvPython)
	if python == "" {
		const message = EnvPython + " is not set: the real MLflow was not asked (make test provides it)"
		if os.Getenv("CI") == "true" {
			t.Fatal(message)
		}
		t.Skip(message)
	}
	return python
}

func command(t testing.TB, script string, env []string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(Python(t), append([]string{"-c", script}, args...)...)
	cmd.Env = append(os.Environ(), "MLFLOW_DISABLE_TELEMETRY=true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "PYTHONUTF8=1")
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// Check is one run to be judged.
type Check struct {
	URI    string `json:"uri"`
	Run    string `json:"run"`
	Kind   string `json:"kind"` // train, hpo or reproduce
	Epochs int    `json:"epochs"`
	Trials int    `json:"trials"`
}

// Judge asks MLflow's client about runs: each answer that is wrong is an error
// of the test. env holds variables for the client, such as credentials.
func Judge(t testing.TB, env []string, checks ...Check) {
	t.Helper()
	in, err := json.Marshal(checks)
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(t, judgePy, env)
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	passed, failed := 0, 0
	for line := range strings.Lines(string(out)) {
		switch {
		case strings.HasPrefix(line, "PASS "):
			passed++
		case strings.HasPrefix(line, "FAIL "):
			failed++
			t.Error(strings.TrimSpace(line))
		}
	}
	if err != nil || !strings.HasSuffix(string(out), "END\n") || passed+failed < 10*len(checks) {
		t.Errorf("the judge answered %d questions about %d runs: %v\n%s", passed+failed, len(checks), err, tail(stderr.Bytes()))
	}
	t.Logf("MLflow's client: %d passed, %d failed, %d runs", passed, failed, len(checks))
}

// Target is a store that [Write] writes to.
type Target struct {
	URI       string `json:"uri"`
	Artifacts string `json:"artifacts,omitempty"` // location of the experiment; default: MLflow's choice
}

// Written is what MLflow's client wrote to a store.
type Written struct {
	URI        string
	Run        string
	Child      string // a nested run
	Experiment string
	Params     map[string]string
	Tags       map[string]string
	History    map[string][][3]*float64 // value (nil: NaN), milliseconds, step
	Files      map[string]string        // artifacts
	Start, End int64                    // milliseconds
}

// Write lets MLflow's client write a run to each of the stores.
func Write(t testing.TB, env []string, targets ...Target) []Written {
	t.Helper()
	in, err := json.Marshal(targets)
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(t, writePy, env)
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("MLflow's client could not write: %v\n%s", err, tail(stderr.Bytes()))
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var written []Written
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &written); err != nil {
		t.Fatalf("MLflow's client: %v\n%s", err, tail(out))
	}
	return written
}

// Training is what [WriteTraining] records.
type Training struct {
	Target
	Experiment string               `json:"experiment"`
	Config     string               `json:"config"`  // file
	Model      string               `json:"model"`   // folder
	Data       []string             `json:"data"`    // files
	History    []map[string]float64 `json:"history"` // of each epoch
	Test       map[string]float64   `json:"test"`
}

// WriteTraining lets MLflow's client record a training, as a Python program
// would do that did the same as ours, and returns the ID of the run.
func WriteTraining(t testing.TB, training Training) (runID string) {
	t.Helper()
	in, err := json.Marshal(training)
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(t, trainingPy, nil)
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("MLflow's client could not write: %v\n%s", err, tail(stderr.Bytes()))
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// ServerOptions says how a [Server] is started.
type ServerOptions struct {
	Dir      string // working directory: database mlflow.db and artifacts lie there
	Prefix   string // path prefix, e.g. /team/ml
	User     string // with Password: the server asks for Basic authentication
	Password string
}

// Server is a real `mlflow server` on loopback.
type Server struct {
	URL string

	opts  ServerOptions
	port  string
	cmd   *exec.Cmd
	stdin io.Closer
	log   string // file
}

// StartServer starts a server and stops it when the test ends. It does not
// wait until the server answers; Wait does.
func StartServer(t testing.TB, opts ServerOptions) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s := &Server{URL: "http://127.0.0.1:" + port + opts.Prefix, opts: opts, port: port, log: opts.Dir + "/server.log"}
	s.Start(t)
	t.Cleanup(func() { s.Kill(t) })
	return s
}

// Start starts a server again that was killed, at the same address.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	args := []string{"--host", "127.0.0.1", "--port", s.port, "--workers", "1", "--backend-store-uri", "sqlite:///mlflow.db"}
	if s.opts.Prefix != "" {
		args = append(args, "--static-prefix", s.opts.Prefix)
	}
	var env []string
	if s.opts.User != "" {
		args = append(args, "--app-name", "basic-auth")
		config := s.opts.Dir + "/auth.ini"
		ini := fmt.Sprintf("[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///auth.db\nadmin_username = %s\nadmin_password = %s\n"+
			"authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"+
			"auth_cache_ttl_seconds = 60\n", // checking a password is slow on purpose
			s.opts.User, s.opts.Password)
		if err := os.WriteFile(config, []byte(ini), 0o600); err != nil {
			t.Fatal(err)
		}
		env = append(env, "MLFLOW_AUTH_CONFIG_PATH="+config, "MLFLOW_FLASK_SERVER_SECRET_KEY=only for this test")
	}
	s.cmd = command(t, servePy, env, args...)
	s.cmd.Dir = s.opts.Dir
	log, err := os.OpenFile(s.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

// Wait waits until the server answers.
func (s *Server) Wait(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		resp, err := http.Get(s.URL + "/health")
		if err == nil {
			resp.Body.Close()
			// With authentication, an answer at all is enough.
			if resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusUnauthorized {
				return
			}
		}
		if time.Now().After(deadline) {
			b, _ := os.ReadFile(s.log)
			t.Fatalf("mlflow server did not come up: %v\n%s", err, tail(b))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// Kill kills the server as kill -9 does.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if s.cmd == nil {
		return
	}
	if err := s.stdin.Close(); err != nil {
		t.Error(err)
	}
	_ = s.cmd.Wait() // it was killed
	s.cmd = nil
}

func tail(b []byte) []byte { return b[max(0, len(b)-4000):] }
