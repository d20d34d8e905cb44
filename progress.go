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
		return Hooks{Step: new(barProgress{w: w}).step}
	}
	return Hooks{Step: new(lineProgress{w: w, every: 10 * time.Second}).step}
}

// phaseKey tells the stretches of work apart that have a bar of their own.
type phaseKey struct {
	phase Phase
	epoch int
}

func title(e StepEvent) string {
	if e.Phase == PhaseTest {
		return "test"
	}
	return fmt.Sprintf("epoch %d/%d %s", e.Epoch, e.Epochs, e.Phase)
}

type barProgress struct {
	w   io.Writer
	key phaseKey
	bar *progressbar.ProgressBar
}

func (p *barProgress) step(e StepEvent) {
	if key := (phaseKey{e.Phase, e.Epoch}); p.bar == nil || key != p.key {
		p.key = key
		p.bar = progressbar.NewOptions(e.Total,
			progressbar.OptionSetWriter(p.w),
			progressbar.OptionSetDescription(title(e)),
			progressbar.OptionShowCount(),
			progressbar.OptionShowIts(),
			progressbar.OptionSetItsString("pairs"),
			progressbar.OptionFullWidth(),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(),
		)
	}
	// A terminal that cannot be written to must not end a training.
	_ = p.bar.Set(e.Pairs)
}

type lineProgress struct {
	w     io.Writer
	every time.Duration

	key   phaseKey
	began time.Time // of the phase, after its first batch
	done  int       // pairs at that time
	last  time.Time // of the last line
}

func (p *lineProgress) step(e StepEvent) {
	if key := (phaseKey{e.Phase, e.Epoch}); key != p.key {
		p.key, p.began, p.done, p.last = key, e.Time, e.Pairs, e.Time
		return
	}
	seconds := e.Time.Sub(p.began).Seconds()
	if e.Time.Sub(p.last) < p.every || seconds <= 0 || e.Pairs == e.Total {
		return
	}
	p.last = e.Time
	speed := float64(e.Pairs-p.done) / seconds
	left := time.Duration(float64(e.Total-e.Pairs) / speed * float64(time.Second))
	fmt.Fprintf(p.w, "%s: %d/%d pairs, %.1f pairs/s, %s left\n",
		title(e), e.Pairs, e.Total, speed, left.Round(time.Second))
}
