package report

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Slice draws, for every parameter, the values of the trials over it. Darker
// points are later trials.
func Slice(s Search) ([]byte, error) {
	trials := s.sorted()
	trials = slices.DeleteFunc(trials, func(t Trial) bool {
		return t.State != Complete && t.State != Pruned || !finite(t.Value)
	})
	if len(trials) == 0 || len(s.Params) == 0 {
		return note(s.Title, "no trial has a value and parameters yet", 3*vg.Inch)
	}
	var all []float64
	for _, t := range trials {
		all = append(all, t.Value)
	}
	values := newScale(all)
	values.pad(0.08)

	// Of 3 to 5 columns those that leave the fewest places empty.
	empty := func(columns int) int { return (columns - len(s.Params)%columns) % columns }
	columns := min(5, len(s.Params))
	for fewer := columns - 1; fewer >= 3; fewer-- {
		if empty(fewer) < empty(columns) {
			columns = fewer
		}
	}
	rows := (len(s.Params) + columns - 1) / columns
	const head, margin = 0.95 * vg.Inch, 8
	tile := max(2*vg.Inch, min(2.8*vg.Inch, searchWidth/vg.Length(columns)*0.9))
	height := head + tile*vg.Length(rows) + margin
	plots := make([]*plot.Plot, len(s.Params))
	for i, param := range s.Params {
		scale, err := paramScale(param, trials)
		if err != nil {
			return nil, err
		}
		p := axes(param.Name, "")
		yTicks := values.plotTicks(4, false)
		if i%columns == 0 {
			p.Y.Label.Text = s.Objective
		} else { // the same axis as to the left
			for k := range yTicks {
				yTicks[k].Label = " " // without any text there is no line across
			}
		}
		p.X.Label.TextStyle.Font.Size, p.Y.Label.TextStyle.Font.Size = 10, 10
		p.X.Tick.Label.Font.Size, p.Y.Tick.Label.Font.Size = 8, 8
		// Positions from 0 to 1: gonum's own logarithmic axis cannot be padded.
		p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = -0.06, 1.06, values.lo, values.hi
		xTicks := scale.plotTicks(3, true)
		p.X.Tick.Marker, p.Y.Tick.Marker = plot.ConstantTicks(xTicks), plot.ConstantTicks(yTicks)
		var names vg.Length
		for _, tick := range xTicks {
			names += p.X.Tick.Label.Width(tick.Label) + 4
		}
		if names > searchWidth/vg.Length(columns)-40 { // too many for a row: slanted
			p.X.Tick.Label.Rotation, p.X.Tick.Label.XAlign, p.X.Tick.Label.YAlign = math.Pi/6, text.XRight, text.YCenter
		}
		for k, t := range trials {
			x, ok := scale.at(t.Params[param.Name])
			if !ok {
				continue
			}
			if n := len(scale.labels); n > 1 { // spread, so that equal choices do not hide one another
				_, fraction := math.Modf(float64(t.Number) * math.Phi)
				x += (fraction - 0.5) * 0.36 / float64(n-1)
			}
			dot, err := plotter.NewScatter(plotter.XYs{{X: x, Y: t.Value}})
			if err != nil {
				return nil, fmt.Errorf("report: %s: %w", param.Name, err)
			}
			dot.GlyphStyle = prunedGlyph
			if t.State == Complete {
				dot.GlyphStyle = completeGlyph(late(k, len(trials)))
			}
			dot.GlyphStyle.Radius *= 0.85
			p.Add(dot)
		}
		plots[i] = p
	}
	legend := []entry{{name: "early trial", glyph: completeGlyph(late(0, 2))}, {name: "late trial", glyph: completeGlyph(late(1, 2))}}
	if slices.ContainsFunc(trials, func(t Trial) bool { return t.State == Pruned }) {
		legend = append(legend, entry{name: "pruned", glyph: prunedGlyph})
	}
	return png(searchWidth, height, func(c draw.Canvas) {
		fill(c, 0, 0, searchWidth, height, white)
		heading(c, s.Title, height)
		drawLegend(c, legend, height-0.72*vg.Inch)
		// Align gives all plots of a row or column the same frame.
		grid := make([][]*plot.Plot, rows)
		for r := range grid {
			grid[r] = make([]*plot.Plot, columns)
			copy(grid[r], plots[r*columns:min((r+1)*columns, len(plots))])
		}
		tiles := draw.Tiles{Rows: rows, Cols: columns, PadX: 14, PadY: 14, PadTop: head, PadBottom: margin, PadLeft: margin, PadRight: margin + 6}
		for r, row := range plot.Align(grid, tiles, c) {
			for k, canvas := range row {
				if grid[r][k] != nil {
					grid[r][k].Draw(canvas)
				}
			}
		}
	})
}
