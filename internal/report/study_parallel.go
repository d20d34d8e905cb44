package report

import (
	"cmp"
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// ParallelCoordinate draws every complete trial as a line through its value and
// its parameters, the darker the better, and the best one apart.
func ParallelCoordinate(s Search) ([]byte, error) {
	trials := slices.DeleteFunc(s.sorted(), func(t Trial) bool { return t.State != Complete || !finite(t.Value) })
	const (
		height      = 5.4 * vg.Inch
		left, right = 0.75 * vg.Inch, 0.75 * vg.Inch
		top, bottom = 1.5 * vg.Inch, 0.55 * vg.Inch
		chart       = height - top - bottom
	)
	if len(trials) == 0 || len(s.Params) == 0 {
		return note(s.Title, "no trial is complete yet", 3*vg.Inch)
	}
	var all []float64
	for _, t := range trials {
		all = append(all, t.Value)
	}
	type axis struct {
		name    string
		scale   scale
		partial bool // some trials lack the parameter
		x       vg.Length
	}
	list := []axis{{name: s.Objective, scale: newScale(all)}}
	for _, param := range s.Params {
		scale, err := paramScale(param, trials)
		if err != nil {
			return nil, err
		}
		partial := slices.ContainsFunc(trials, func(t Trial) bool {
			_, ok := scale.at(t.Params[param.Name])
			return !ok
		})
		list = append(list, axis{name: param.Name, scale: scale, partial: partial})
	}
	for i := range list {
		list[i].x = left + (searchWidth-left-right)*vg.Length(i)/vg.Length(len(list)-1)
	}
	// The best ones are drawn last, above the others.
	slices.SortStableFunc(trials, func(a, b Trial) int {
		if s.Maximize {
			return cmp.Compare(a.Value, b.Value)
		}
		return cmp.Compare(b.Value, a.Value)
	})
	unset := vg.Length(bottom - 16)
	return png(searchWidth, height, func(c draw.Canvas) {
		fill(c, 0, 0, searchWidth, height, white)
		heading(c, s.Title, height)
		best := trials[len(trials)-1]
		// Of equal ones the first is the best.
		for _, t := range trials {
			if t.Value == best.Value && t.Number < best.Number {
				best = t
			}
		}
		drawLegend(c, []entry{
			{name: "worse", line: rank(0, 0xff)},
			{name: "better", line: rank(1, 0xff)},
			{name: bestLabel(best), line: orange},
		}, height-0.72*vg.Inch)

		drawTrial := func(t Trial, shade color.NRGBA, width vg.Length) {
			var path vg.Path
			var from vg.Point
			for i, a := range list {
				var v any = t.Value
				if i > 0 {
					v = t.Params[a.name]
				}
				to := vg.Point{X: a.x, Y: unset}
				if at, ok := a.scale.at(v); ok {
					to.Y = bottom + chart*vg.Length(at)
				}
				if i == 0 {
					path.Move(to)
				} else {
					bend := (to.X - from.X) * 0.4
					path.CubeTo(vg.Point{X: from.X + bend, Y: from.Y}, vg.Point{X: to.X - bend, Y: to.Y}, to)
				}
				from = to
			}
			c.SetLineStyle(draw.LineStyle{Color: shade, Width: width})
			c.Stroke(path)
		}
		alpha := uint8(math.Max(90, 230-float64(len(trials))))
		for k, t := range trials {
			if t.Number != best.Number {
				drawTrial(t, rank(float64(k)/math.Max(1, float64(len(trials)-1)), alpha), vg.Points(1.4))
			}
		}
		drawTrial(best, orange, vg.Points(2.4))

		for i, a := range list {
			stroke(c, faint, 1, vg.Point{X: a.x, Y: bottom}, vg.Point{X: a.x, Y: bottom + chart})
			tick := style(8.5, ink, false)
			tick.XAlign = text.XLeft
			for _, mark := range a.scale.ticks(6) {
				y := bottom + chart*vg.Length(mark.at)
				stroke(c, faint, 1, vg.Point{X: a.x - 3, Y: y}, vg.Point{X: a.x, Y: y})
				halo(c, tick, vg.Point{X: a.x + 4, Y: y}, mark.label)
			}
			if a.partial {
				halo(c, style(8.5, faint, false), vg.Point{X: a.x, Y: unset - 10}, "unset")
			}
			// Names in two rows, or they would run into each other.
			y := vg.Length(height - top + 16)
			if i%2 == 1 {
				y += 17
			}
			c.FillText(style(10.5, ink, i == 0), vg.Point{X: a.x, Y: y}, a.name)
		}
	})
}
