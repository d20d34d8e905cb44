//go:build unix

package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// tool is a program that providing a part needs.
type tool struct {
	name    string
	purpose string
	install string                 // what to do on a machine that lacks it
	find    func() (string, error) // path of the program
}

var (
	cargo = tool{"cargo", "builds the tokenizers library", "install Rust 1.78 or newer, see https://rustup.rs",
		func() (string, error) { return exec.LookPath("cargo") }}
	cc = tool{"cc", "compiles C", "apt-get install gcc, dnf install gcc, or xcode-select --install",
		func() (string, error) { return lookEnv("CC", "cc", "gcc", "clang") }}
	cxx = tool{"c++", "compiles and links C++", "apt-get install g++, dnf install gcc-c++, or xcode-select --install",
		func() (string, error) { return lookEnv("CXX", "c++", "g++", "clang++") }}
	python = tool{"python3", "runs Python's own clients against what this project writes", "install Python 3.10 or newer: apt-get install python3, dnf install python3, or brew install python", findPython}
	venv   = tool{"python3 -m venv", "makes Python environments", "apt-get install python3-venv",
		func() (string, error) {
			py, err := findPython()
			if err != nil {
				return "", err
			}
			return py, exec.Command(py, "-c", "import venv, ensurepip").Run()
		}}
)

// checkTools reports all missing tools in one error.
func checkTools(tools []tool) error {
	var missing []string
	seen := map[string]bool{}
	for _, t := range tools {
		if seen[t.name] {
			continue
		}
		seen[t.name] = true
		if _, err := t.find(); err != nil {
			missing = append(missing, fmt.Sprintf("  %-16s %s: %s", t.name, t.purpose, t.install))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	return fmt.Errorf("missing on this machine:\n%s\nthen run the same command again", strings.Join(missing, "\n"))
}

func findPython() (string, error) { return lookEnv("PYTHON", "python3", "python") }

// lookEnv finds the program that the environment names, else the first of the
// usual ones.
func lookEnv(variable string, names ...string) (string, error) {
	if words := strings.Fields(os.Getenv(variable)); len(words) > 0 {
		names = words[:1]
	}
	var err error
	for _, name := range names {
		var path string
		if path, err = exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", err
}
