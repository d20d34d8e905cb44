// Command configdoc writes docs/configuration.md, the reference of all
// configuration keys, from the code: keys and types from [criteria.Config],
// defaults from [criteria.DefaultConfig], ranges from what
// [criteria.Config.Validate] asks for, explanations from the comments in conf/
// and, where there are none, from those of the fields.
//
// Usage: configdoc [-w] in the root of the repository; without -w it prints.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
)

const target = "docs/configuration.md"

func main() {
	write := flag.Bool("w", false, "write "+target+" instead of printing it")
	flag.Parse()
	if err := run(*write); err != nil {
		fmt.Fprintln(os.Stderr, "configdoc:", err)
		os.Exit(1)
	}
}

func run(write bool) error {
	text, err := Generate(os.DirFS("."))
	if err != nil {
		return err
	}
	if !write {
		_, err := os.Stdout.Write(text)
		return err
	}
	if old, err := os.ReadFile(target); err == nil && bytes.Equal(old, text) {
		return nil
	}
	return os.WriteFile(target, text, 0o644)
}

// Generate returns the reference for the repository root.
func Generate(root fs.FS) ([]byte, error) {
	sources, err := readSources(root)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString(introduction)
	if err := sources.groups(&b); err != nil {
		return nil, err
	}
	sources.keys(&b)
	return b.Bytes(), nil
}
