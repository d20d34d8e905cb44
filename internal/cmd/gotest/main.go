// Command gotest runs go test with the given arguments, prints what go test
// prints, and closes with one line that counts every test that ran:
//
//	1234 passed, 0 failed
//
// Usage:
//
//	gotest [-v] [-some] [-tally FILE] [-- go test arguments]
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

func main() {
	verbose := flag.Bool("v", false, "print the output of passing tests, too")
	some := flag.Bool("some", false, "fail if no test ran")
	tallyFile := flag.String("tally", os.Getenv("CRITERIA_TEST_TALLY"), "append the counts to this `file`, to be added up over several runs (default $CRITERIA_TEST_TALLY)")
	flag.Parse()
	t, err := run(flag.Args(), os.Stdout, *verbose)
	if *tallyFile != "" {
		err = errors.Join(err, t.appendTo(*tallyFile))
	}
	if err == nil && *some && t.passed+t.failed == 0 {
		err = errors.New("no test ran")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	}
}

// run runs go test and copies its output to w.
func run(args []string, w io.Writer, verbose bool) (tally, error) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return tally{}, err
	}
	if err := cmd.Start(); err != nil {
		return tally{}, err
	}
	t, readErr := report(events, w, verbose)
	err = cmd.Wait()
	if err != nil {
		err = fmt.Errorf("go test %s: %w", strings.Join(args, " "), err)
	} else if t.failed > 0 {
		err = fmt.Errorf("%d failed", t.failed)
	}
	return t, errors.Join(readErr, err)
}

// tally counts tests and subtests. A package that fails without a failed test
// (it does not build, or dies) counts as one failure.
type tally struct{ passed, failed, skipped int }

func (t tally) String() string {
	s := fmt.Sprintf("%d passed, %d failed", t.passed, t.failed)
	if t.skipped > 0 {
		s += fmt.Sprintf(", %d skipped", t.skipped)
	}
	return s
}

func (t tally) appendTo(file string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, t.passed, t.failed, t.skipped)
	return errors.Join(err, f.Close())
}

// event is one line of go test -json, see go doc test2json.
type event struct {
	Action, Package, Test, Output string
}

// line is output that waits for its test's verdict.
type line struct{ test, text string }

// report reads events and writes what go test would have printed: always the
// lines of packages and failed tests, with verbose everything.
func report(events io.Reader, w io.Writer, verbose bool) (tally, error) {
	var t tally
	waiting := map[string][]line{}         // by package and top-level test
	failed := map[string]map[string]bool{} // tests by package
	failures := func(e event) map[string]bool {
		if failed[e.Package] == nil {
			failed[e.Package] = map[string]bool{}
		}
		return failed[e.Package]
	}
	r := bufio.NewReader(events)
	for {
		raw, err := r.ReadBytes('\n')
		if len(raw) > 0 {
			var e event
			if json.Unmarshal(raw, &e) != nil {
				w.Write(raw) // not from a test: the go command's own words
				continue
			}
			top, _, _ := strings.Cut(e.Test, "/")
			key := e.Package + " " + top
			switch e.Action {
			case "output", "build-output":
				switch {
				case verbose, e.Test == "" && e.Output != "PASS\n":
					io.WriteString(w, e.Output)
				case e.Test != "" && !strings.HasPrefix(e.Output, "=== "):
					waiting[key] = append(waiting[key], line{e.Test, e.Output})
				}
			case "pass", "skip", "fail":
				switch {
				case e.Test == "" && e.Action == "fail" && len(failures(e)) == 0:
					t.failed++
				case e.Test == "":
				case e.Action == "pass":
					t.passed++
				case e.Action == "skip":
					t.skipped++
				default:
					t.failed++
					failures(e)[e.Test] = true
				}
				if e.Test == "" && e.Action == "fail" {
					// Tests without a verdict: the process died under them.
					for key, lines := range waiting {
						if strings.HasPrefix(key, e.Package+" ") {
							for _, l := range lines {
								io.WriteString(w, l.text)
							}
							delete(waiting, key)
						}
					}
				}
				if e.Test == top && top != "" {
					for _, l := range waiting[key] {
						if e.Action == "fail" && failures(e)[l.test] {
							io.WriteString(w, l.text)
						}
					}
					delete(waiting, key)
				}
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return t, err
		}
	}
	_, err := fmt.Fprintln(w, t)
	return t, err
}
