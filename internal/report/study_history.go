package report

import (
	"fmt"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// OptimizationHistory draws the values of the trials over their numbers, and the
// best of the complete ones so far as a step line.
func OptimizationHistory(s Search) ([]byte, error) {
	trials := s.sorted()
	var complete, pruned, steps plotter.XYs
	var best Trial
	var failed []float64
	for _, t := range trials {
		point := plotter.XY{X: float64(t.Number), Y: t.Value}
		switch {
		case t.State == Failed:
			failed = append(failed, point.X)
		case t.State == Pruned && finite(t.Value):
			pruned = append(pruned, point)
		case t.State == Complete && finite(t.Value):
			if len(complete) == 0 || s.better(t.Value, best.Value) {
				best = t
				if n := len(steps); n > 0 { // the corner of the step
					steps = append(steps, plotter.XY{X: point.X, Y: steps[n-1].Y})
				}
				steps = append(steps, point)
			}
			complete = append(complete, point)
		}
	}
	const height, head = 4.4 * vg.Inch, 0.95 * vg.Inch
	if len(complete)+len(pruned) == 0 {
		return note(s.Title, "no trial has a value yet", height)
	}
	p := axes("trial", s.Objective)
	p.Y.Label.Padding = vg.Points(4)
	p.X.Tick.Marker = wholeTicks{from: 0}
	p.X.Min, p.X.Max = float64(trials[0].Number), float64(trials[len(trials)-1].Number)
	if p.X.Min == p.X.Max {
		p.X.Min, p.X.Max = p.X.Min-1, p.X.Max+1
	}
	values := newScale(slices.Concat(ys(complete), ys(pruned)))
	values.pad(0.08)
	p.Y.Min, p.Y.Max = values.lo, values.hi
	p.Y.Tick.Marker = plot.ConstantTicks(values.plotTicks(5, false))

	if n := len(steps); n > 0 {
		steps = append(steps, plotter.XY{X: p.X.Max, Y: steps[n-1].Y})
		line, err := plotter.NewLine(steps)
		if err != nil {
			return nil, fmt.Errorf("report: best so far: %w", err)
		}
		line.Color, line.Width = orange, vg.Points(2)
		p.Add(line)
	}
	bottom := make(plotter.XYs, len(failed))
	for i, x := range failed {
		bottom[i] = plotter.XY{X: x, Y: p.Y.Min}
	}
	legend := []entry{}
	for _, group := range []struct {
		name   string
		points plotter.XYs
		glyph  draw.GlyphStyle
	}{
		{"complete", complete, completeGlyph(blue)},
		{"pruned", pruned, prunedGlyph},
		{"failed", bottom, draw.GlyphStyle{Color: faint, Radius: vg.Points(3), Shape: draw.CrossGlyph{}}},
		{"best", plotter.XYs{{X: float64(best.Number), Y: best.Value}}, draw.GlyphStyle{Color: orange, Radius: vg.Points(6.5), Shape: ring{}}},
	} {
		if len(group.points) == 0 || group.name == "best" && len(complete) == 0 {
			continue
		}
		scatter, err := plotter.NewScatter(group.points)
		if err != nil {
			return nil, fmt.Errorf("report: %s trials: %w", group.name, err)
		}
		scatter.GlyphStyle = group.glyph
		p.Add(scatter)
		if group.name == "best" {
			legend = append(legend, entry{name: "best so far", line: orange})
			legend = append(legend, entry{name: bestLabel(best), glyph: group.glyph})
			continue
		}
		legend = append(legend, entry{name: group.name, glyph: group.glyph})
	}
	return png(searchWidth, height, func(c draw.Canvas) {
		fill(c, 0, 0, searchWidth, height, white)
		heading(c, s.Title, height)
		drawLegend(c, legend, height-0.72*vg.Inch)
		margin := vg.Points(10)
		p.Draw(draw.Crop(c, margin, -margin*1.5, margin, -head))
	})
}
