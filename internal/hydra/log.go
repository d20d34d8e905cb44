package hydra

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
)

// OpenLog returns a logger that writes the lines of Hydra's default logging
// configuration,
//
//	[2026-11-22 15:03:37,601][train][INFO] - message
//
// to the job's log file and to console. Attributes follow the message as
// key=value. Messages of level DEBUG are left out unless hydra.verbose asks for
// them. Those of level ERROR go to the file alone: the error that a task returns
// is shown by [App.Run]. The log file must be closed.
func (j *Job) OpenLog(console io.Writer) (*slog.Logger, io.Closer, error) {
	file, err := os.OpenFile(j.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, nil, err
	}
	h := &logHandler{sink: &logSink{console: console, file: file}, name: j.Name, level: slog.LevelInfo}
	if j.Verbose {
		h.level = slog.LevelDebug
	}
	return slog.New(h), file, nil
}

// logSink is what handlers that come from one another share.
type logSink struct {
	mu            sync.Mutex
	console, file io.Writer
}

type logHandler struct {
	sink   *logSink
	name   string
	level  slog.Level
	prefix string // groups, each with its dot
	attrs  string // formatted
}

func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString("[" + r.Time.Format("2006-01-02 15:04:05,000") + "][" + h.name + "][" + levelName(r.Level) + "] - " + r.Message)
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		writeAttr(&b, h.prefix, a)
		return true
	})
	b.WriteString("\n")
	h.sink.mu.Lock()
	defer h.sink.mu.Unlock()
	_, err := io.WriteString(h.sink.file, b.String())
	if r.Level < slog.LevelError {
		_, consoleErr := io.WriteString(h.sink.console, b.String())
		err = errors.Join(err, consoleErr)
	}
	return err
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b strings.Builder
	for _, a := range attrs {
		writeAttr(&b, h.prefix, a)
	}
	with := *h
	with.attrs += b.String()
	return &with
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	with := *h
	if name != "" {
		with.prefix += name + "."
	}
	return &with
}

// levelName is Python's name for a level.
func levelName(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "ERROR"
	case l >= slog.LevelWarn:
		return "WARNING"
	case l >= slog.LevelInfo:
		return "INFO"
	}
	return "DEBUG"
}

func writeAttr(b *strings.Builder, prefix string, a slog.Attr) {
	value := a.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, member := range value.Group() {
			writeAttr(b, prefix, member)
		}
		return
	}
	if a.Equal(slog.Attr{}) {
		return
	}
	text := value.String()
	if text == "" || strings.ContainsAny(text, " \t\r\n\"=") {
		text = strconv.Quote(text)
	}
	b.WriteString(" " + prefix + a.Key + "=" + text)
}
