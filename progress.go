package criteria

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// ProgressBar returns hooks that show how far a run has come: on a terminal a
// bar with pairs per second and the remaining time, which vanishes when its
// phase is over; elsewhere, so that it does not fill a log file with control
// characters, a plain line every 10 s.
func ProgressBar(w io.Writer) Hooks {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return bars(w)
	}
	p := &lineProgress{w: w, every: 10 * time.Second}
	return Hooks{Step: p.step, Download: p.download}
}

func bars(w io.Writer) Hooks {
	p := &barProgress{w: w}
	return Hooks{Step: p.step, Download: p.download, End: func(EndEvent) { p.clear() }, Trial: func(TrialEvent) { p.clear() }}
}

// stretch names a piece of work that has a bar of its own.
func stretch(e StepEvent) string {
	if e.Phase == PhaseTest {
		return "test"
	}
	return fmt.Sprintf("epoch %d/%d %s", e.Epoch, e.Epochs, e.Phase)
}

// barProgress shows a bar, one at a time. What a terminal answers to being
// written to is ignored: it must not end a training.
type barProgress struct {
	w       io.Writer
	stretch string
	bar     *progressbar.ProgressBar
}

func (p *barProgress) step(e StepEvent) {
	p.show(stretch(e), int64(e.Total), int64(e.Pairs),
		progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("pairs"))
}

func (p *barProgress) download(e DownloadEvent) {
	p.show("download "+e.File, e.Total, e.Done, progressbar.OptionShowBytes(true))
}

func (p *barProgress) show(stretch string, total, done int64, opts ...progressbar.Option) {
	if p.bar == nil || stretch != p.stretch {
		p.stretch = stretch
		p.bar = progressbar.NewOptions64(total, append(opts,
			progressbar.OptionSetWriter(p.w),
			progressbar.OptionSetDescription(stretch),
			progressbar.OptionSetTheme(progressbar.Theme{Saucer: "█", SaucerPadding: "░"}),
			progressbar.OptionSetWidth(30),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionSetRenderBlankState(true),
			progressbar.OptionClearOnFinish(),
		)...)
	}
	_ = p.bar.Set64(done)
	if done == total {
		_ = p.bar.Finish()
	}
}

// clear removes the bar of a run that stopped in the middle of it.
func (p *barProgress) clear() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}

// lineProgress writes a line from time to time.
type lineProgress struct {
	w     io.Writer
	every time.Duration

	stretch string
	began   time.Time // when the first batch of the stretch was done
	first   int       // pairs at that time
	last    time.Time // of the last line
}

func (p *lineProgress) step(e StepEvent) {
	if s := stretch(e); s != p.stretch {
		p.stretch, p.began, p.first, p.last = s, e.Time, e.Pairs, e.Time
		return
	}
	if e.Time.Sub(p.last) < p.every || e.Pairs == e.Total || e.Pairs == p.first {
		return
	}
	p.last = e.Time
	speed := float64(e.Pairs-p.first) / e.Time.Sub(p.began).Seconds()
	left := time.Duration(float64(e.Total-e.Pairs) / speed * float64(time.Second))
	_, _ = fmt.Fprintf(p.w, "%s: %d/%d pairs, %.1f pairs/s, %s left\n", p.stretch, e.Pairs, e.Total, speed, left.Round(time.Second))
}

func (p *lineProgress) download(e DownloadEvent) {
	if s := "download " + e.File; s != p.stretch {
		p.stretch = s
		_, _ = fmt.Fprintf(p.w, "%s: %.1f MB\n", s, float64(max(0, e.Total))/1e6)
	}
}
