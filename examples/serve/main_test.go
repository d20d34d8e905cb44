package main

import (
	"io"
	"strings"
	"testing"
)

// That it serves is tested by internal/cmd/loadtest, which torments the program.
func TestUsage(t *testing.T) {
	for _, tc := range []struct {
		args string
		want string
	}{
		{"", "want one argument"},
		{"a b", "want one argument"},
		{"-nonsense a", "not defined"},
		{"-max-queue 0 a", "WithMaxQueue"},
		{"-tracking-uri file:///nowhere runs:/0", "runs:/0"},
		{"nowhere", "nowhere"},
	} {
		err := run(t.Context(), append([]string{"-addr", "localhost:0"}, strings.Fields(tc.args)...), io.Discard)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("serve %s: error %v; want %q", tc.args, err, tc.want)
		}
	}
}
