package main

import (
	"strings"
	"testing"
)

// TestSoak is a short soak; a long one is "make soak".
func TestSoak(t *testing.T) {
	t.Chdir("../../..")
	var out strings.Builder
	err := run(t.Context(), []string{"soak", "-duration", "12s"}, &out)
	t.Log(out.String())
	if err != nil {
		t.Error(err)
	}
}

// The comparison runs; what it says is not judged here.
func TestBench(t *testing.T) {
	t.Chdir("../../..")
	var out strings.Builder
	if err := run(t.Context(), []string{"bench", "-clients", "1,4", "-duration", "200ms", "-rounds", "1"}, &out); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(out.String(), "| examples/serve |"); got != 2 {
		t.Errorf("%d lines; want 2:\n%s", got, out.String())
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"race"}, {"bench", "-clients", "none"}, {"soak", "-shape", "huge"}, {"bench", "-nonsense"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Chdir("../../..")
			args := append([]string(nil), args...)
			if len(args) > 1 {
				args = append(args, "-server", "none")
			}
			if err := run(t.Context(), args, &strings.Builder{}); err == nil {
				t.Error("no error")
			}
		})
	}
}
