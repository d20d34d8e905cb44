package criteria

import (
	"context"
	"io"
)

// untracked is a run that nothing records.
type untracked struct{}

func (untracked) ID() string                                                { return "" }
func (untracked) LogParams(context.Context, map[string]string) error        { return nil }
func (untracked) SetTags(context.Context, map[string]string) error          { return nil }
func (untracked) LogMetrics(context.Context, int, map[string]float64) error { return nil }
func (untracked) LogArtifact(context.Context, string, io.Reader) error      { return nil }
func (untracked) LogArtifacts(context.Context, string, string) error        { return nil }
func (untracked) End(context.Context, RunStatus) error                      { return nil }
