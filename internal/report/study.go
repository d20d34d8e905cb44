package report

import (
	"cmp"
	"errors"
	"fmt"
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Search is what the pictures of a search for hyperparameters show.
type Search struct {
	Title     string // above the picture
	Objective string // name of the trials' values
	Maximize  bool   // whether the best value is the largest one
	Params    []Param
	Trials    []Trial // in any order
}

// Param is the axis of a hyperparameter.
type Param struct {
	Name string
	// Choices are the values of a categorical parameter, in the order of the
	// axis. Without any the parameter is a number.
	Choices []any
	// Low and High bound a number's axis. If they are equal, the values of the
	// trials do.
	Low, High float64
	// Log makes the axis logarithmic. All its values must be positive.
	Log bool
}

// Trial is one point of a search.
type Trial struct {
	Number int
	State  TrialState
	// Value is the objective; of a pruned trial the last one that it reported.
	// NaN and infinities are not drawn.
	Value float64
	// Params has the parameters by name: choices, or numbers of any type. A
	// trial may lack some.
	Params map[string]any
}

// TrialState says how a trial ended.
type TrialState int

// The states of a trial. Unfinished ones are not drawn.
const (
	Unfinished TrialState = iota
	Complete
	Pruned
	Failed
)

// Importance is the share of a parameter in what all of them explain together.
type Importance struct {
	Name  string
	Share float64 // from 0 to 1
}

// searchWidth is the width of all pictures of a search.
const searchWidth = 8 * vg.Inch

// sorted returns the trials by number.
func (s Search) sorted() []Trial {
	trials := slices.Clone(s.Trials)
	slices.SortStableFunc(trials, func(a, b Trial) int { return cmp.Compare(a.Number, b.Number) })
	return slices.DeleteFunc(trials, func(t Trial) bool { return t.State == Unfinished })
}

func bestLabel(t Trial) string {
	return fmt.Sprintf("best: trial %d, %s", t.Number, number(t.Value, 4))
}

func (s Search) better(a, b float64) bool {
	if s.Maximize {
		return a > b
	}
	return a < b
}

func ys(points plotter.XYs) []float64 {
	values := make([]float64, len(points))
	for i, p := range points {
		values[i] = p.Y
	}
	return values
}

// rank is the color of a trial from the worst, 0, to the best, 1.
func rank(t float64, alpha uint8) color.NRGBA {
	c := mix(color.NRGBA{R: 0xd5, G: 0xe1, B: 0xef, A: 0xff}, blue, t*t)
	c.A = alpha
	return c
}

// late is the color of the k-th of n trials.
func late(k, n int) color.NRGBA {
	return mix(color.NRGBA{R: 0xbb, G: 0xd0, B: 0xe8, A: 0xff}, blue, float64(k)/math.Max(1, float64(n-1)))
}

func completeGlyph(c color.Color) draw.GlyphStyle {
	return draw.GlyphStyle{Color: c, Radius: vg.Points(3.4), Shape: draw.CircleGlyph{}}
}

var prunedGlyph = draw.GlyphStyle{Color: faint, Radius: vg.Points(3), Shape: ring{}}

// ring is a circle of a line that can be seen.
type ring struct{}

// DrawGlyph implements draw.GlyphDrawer.
func (ring) DrawGlyph(c *draw.Canvas, g draw.GlyphStyle, at vg.Point) {
	c.SetLineStyle(draw.LineStyle{Color: g.Color, Width: vg.Points(1.3)})
	var p vg.Path
	p.Move(vg.Point{X: at.X + g.Radius, Y: at.Y})
	p.Arc(at, g.Radius, 0, 2*math.Pi)
	p.Close()
	c.Stroke(p)
}

// entry is a line of a legend: a glyph, or a piece of a line.
type entry struct {
	name  string
	glyph draw.GlyphStyle
	line  color.Color
}

// drawLegend puts the entries into one row in the middle.
func drawLegend(c draw.Canvas, entries []entry, y vg.Length) {
	const symbol, gap = 20, 20
	label := style(10.5, ink, false)
	label.XAlign = text.XLeft
	var width vg.Length
	for _, e := range entries {
		width += symbol + label.Width(e.name) + gap
	}
	x := (searchWidth - width + gap) / 2
	for _, e := range entries {
		if e.line != nil {
			stroke(c, e.line, 2, vg.Point{X: x, Y: y}, vg.Point{X: x + symbol - 5, Y: y})
		} else {
			c.DrawGlyph(e.glyph, vg.Point{X: x + symbol/2, Y: y})
		}
		c.FillText(label, vg.Point{X: x + symbol, Y: y}, e.name)
		x += symbol + label.Width(e.name) + gap
	}
}

// heading writes the title of a picture.
func heading(c draw.Canvas, title string, height vg.Length) {
	c.FillText(style(14, ink, true), vg.Point{X: searchWidth / 2, Y: height - 0.36*vg.Inch}, title)
}

// note is a picture that says why there is none.
func note(title, why string, height vg.Length) ([]byte, error) {
	if why == "" {
		return nil, errors.New("report: a picture without a reason")
	}
	return png(searchWidth, height, func(c draw.Canvas) {
		fill(c, 0, 0, searchWidth, height, white)
		heading(c, title, height)
		c.FillText(style(12, faint, false), vg.Point{X: searchWidth / 2, Y: height/2 - 0.2*vg.Inch}, why)
	})
}

func stroke(c draw.Canvas, shade color.Color, width vg.Length, points ...vg.Point) {
	c.StrokeLines(draw.LineStyle{Color: shade, Width: width}, points)
}

// halo writes on a light ground, so that lines below do not cross the text.
func halo(c draw.Canvas, s text.Style, at vg.Point, txt string) {
	w, h := s.Width(txt), s.Font.Size
	x := at.X
	if s.XAlign == text.XCenter {
		x -= w / 2
	}
	fill(c, x-1, at.Y-h*0.5, w+2, h, color.NRGBA{R: 0xff, G: 0xff, B: 0xff, A: 0xd0})
	c.FillText(s, at, txt)
}
