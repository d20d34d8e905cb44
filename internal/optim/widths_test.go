package optim_test

import (
	"bytes"
	"os"
	"testing"
)

// TestWidths: the choice among vector widths is written once, and copied to where the go
// command builds a package anew when it changes.
func TestWidths(t *testing.T) {
	ours, err := os.ReadFile("widths.h")
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile("../ort/widths.h")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ours, other) {
		t.Error("widths.h differs from internal/ort/widths.h: copy the one that you changed")
	}
}
