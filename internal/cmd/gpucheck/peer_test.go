//go:build peer

package main

import (
	"os"
	"testing"
)

// TestPeerRehearsal: with PyTorch on the CPU in the place of a GPU, all is right.
func TestPeerRehearsal(t *testing.T) {
	python := os.Getenv("CRITERIA_PEER_PYTHON")
	if python == "" {
		t.Fatal("CRITERIA_PEER_PYTHON is not set: run make peers")
	}
	if code, _ := checked(t, "-device", "host", "-python", python, "-time", "30m"); code != 0 {
		t.Errorf("status %d, want 0", code)
	}
}
