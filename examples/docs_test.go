//go:build unix

package examples_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// elsewhere marks the commands of the documentation that need what a test does
// not have, with the reason.
var elsewhere = map[string]string{
	"device=cuda":   "a GPU",
	"postgresql://": "a database server, which other tests here have",
	"http://HOST":   "a server of MLflow, which the tests of internal/mlflow have",
}

var goRun = regexp.MustCompile(`(?m)^go run \./examples/(\w+).*$`)

// TestDocsCommandsRun runs every command line of the documentation that starts an
// example, as it stands there, on a tiny model and a few posts. What a run has
// left is what the later ones read, in place of outputs/DATE/TIME and RUN_ID.
func TestDocsCommandsRun(t *testing.T) {
	p := newPlace(t)
	if err := os.WriteFile(filepath.Join(p.dir, "pairs.jsonl"), []byte(`{"post": "I lie awake all night.", "criterion": "Sleeps badly."}`+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	conf, err := filepath.Abs("../conf")
	if err != nil {
		t.Fatal(err)
	}
	// Values win over groups wherever they stand: what is trained stays small.
	small := []string{"train.epochs=1", "train.early_stopping_patience=0"}
	for _, o := range p.small {
		if !strings.HasPrefix(o, "model=") && !strings.HasPrefix(o, "data=") {
			small = append(small, o)
		}
	}
	search := append([]string{"hpo.n_trials=2", "hpo.search_space.hidden_dim.high=128"}, small...)
	quoted := func(args []string) string { return " '" + strings.Join(args, "' '") + "'" }

	// The runs that later commands name.
	out := p.run(t, 0, "train", append([]string{"hydra.run.dir=trained"}, small...)...)
	id := regexp.MustCompile(`run_id=(\w+)`).FindStringSubmatch(out)
	if id == nil {
		t.Fatalf("no run_id in the output:\n%s", out)
	}
	p.run(t, 0, "hpo", append([]string{"hydra.run.dir=searched"}, search...)...)

	used := map[string]bool{}
	for page, lines := range docsCommands(t) {
		for _, line := range lines {
			t.Run(fmt.Sprintf("%s/%s", page, line), func(t *testing.T) {
				for mark := range elsewhere {
					if strings.Contains(line, mark) {
						used[mark] = true
						return // it is checked, not run: see internal/lint
					}
				}
				name := goRun.FindStringSubmatch(line)[1]
				done := "trained"
				if strings.Contains(line, "best_trial_config") {
					done = "searched"
				}
				command := strings.NewReplacer("go run ./examples/"+name, program(t, name), "outputs/DATE/TIME", done, "RUN_ID", id[1],
					"--config-path DIR", "--config-path "+conf).Replace(line)
				switch {
				case name == "train" && !strings.Contains(command, "--resume"):
					command += quoted(small)
				case name == "hpo":
					command += quoted(search)
					if err := os.Remove(filepath.Join(p.dir, "optuna.db")); err != nil { // nothing is left to do for a study that is done
						t.Fatal(err)
					}
				case name == "serve":
					args := append([]string{"-addr", "127.0.0.1:0"}, strings.Fields(command)[1:]...)
					server := p.start(t, name, args...)
					server.until(t, "listening")
					if err := server.Process.Signal(syscall.SIGTERM); err != nil {
						t.Fatal(err)
					}
					if out, err := server.end(); err != nil {
						t.Errorf("%s: %v\n%s", command, err, out)
					}
					return
				}
				cmd := exec.Command("sh", "-c", command)
				cmd.Dir = p.dir
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", command, err, out)
				}
			})
		}
	}
	for mark, reason := range elsewhere {
		if !used[mark] {
			t.Errorf("no command of the documentation contains %q, which stands for %s: take it out of the list", mark, reason)
		}
	}
}

// docsCommands lists the command lines that start an example, without comments,
// by page.
func docsCommands(t *testing.T) map[string][]string {
	t.Helper()
	names, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := map[string][]string{}
	for _, name := range append(names, "../README.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range goRun.FindAllString(string(text), -1) {
			line, _, _ = strings.Cut(line, " #")
			commands[filepath.Base(name)] = append(commands[filepath.Base(name)], strings.TrimSpace(line))
		}
	}
	if len(commands) < 2 {
		t.Fatalf("commands on %d pages only", len(commands))
	}
	return commands
}
