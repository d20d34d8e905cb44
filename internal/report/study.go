package report

import (
	"cmp"
	"errors"
	"fmt"
	"image/color"
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
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

// ParamImportances draws a bar for every parameter, the most important one on
// top. The evaluator, fANOVA for one, is named in the picture: two of them
// seldom agree. Without importances the picture says why there are none.
func ParamImportances(title, objective, evaluator string, importances []Importance) ([]byte, error) {
	for _, i := range importances {
		if !(0 <= i.Share && i.Share <= 1+1e-9) {
			return nil, fmt.Errorf("report: importance %v of %s, want a share from 0 to 1", i.Share, i.Name)
		}
	}
	if len(importances) == 0 {
		return note(title, evaluator+" needs at least two complete trials of different values", 3*vg.Inch)
	}
	list := slices.Clone(importances)
	slices.SortStableFunc(list, func(a, b Importance) int {
		return cmp.Or(cmp.Compare(b.Share, a.Share), cmp.Compare(a.Name, b.Name))
	})
	var left vg.Length
	label := style(11, ink, false)
	label.XAlign = text.XRight
	for _, i := range list {
		left = max(left, label.Width(i.Name))
	}
	left = min(left+vg.Points(26), searchWidth/2)
	const (
		row   = 0.34 * vg.Inch
		right = 0.8 * vg.Inch
		top   = 0.95 * vg.Inch
		base  = 0.72 * vg.Inch
	)
	height := max(2.6*vg.Inch, top+base+row*vg.Length(len(list)))
	return png(searchWidth, height, func(c draw.Canvas) {
		fill(c, 0, 0, searchWidth, height, white)
		heading(c, title, height)
		c.FillText(style(11, faint, false), vg.Point{X: searchWidth / 2, Y: height - 0.70*vg.Inch}, "evaluator: "+evaluator)
		// To the next tenth, so that small importances are bars, too.
		end := math.Min(1, math.Ceil(list[0].Share*10+1e-9)/10)
		end = math.Max(end, 0.1)
		width, chart := searchWidth-left-right, height-top-base
		step := 0.1
		switch {
		case end <= 0.2:
			step = 0.05
		case end > 0.5:
			step = 0.2
		}
		for k := 0; float64(k)*step <= end+1e-9; k++ {
			x := left + width*vg.Length(float64(k)*step/end)
			stroke(c, grid, 0.75, vg.Point{X: x, Y: base}, vg.Point{X: x, Y: base + chart})
			c.FillText(style(9, faint, false), vg.Point{X: x, Y: base - 11}, number(float64(k)*step, 2))
		}
		pitch := chart / vg.Length(len(list))
		for k, i := range list {
			y := base + chart - pitch*(vg.Length(k)+0.5)
			bar := max(vg.Points(1), width*vg.Length(i.Share/end))
			fill(c, left, y-pitch*0.33, bar, pitch*0.66, mix(color.NRGBA{R: 0x9d, G: 0xbb, B: 0xdc, A: 0xff}, blue, i.Share/math.Max(list[0].Share, 1e-9)))
			name := []rune(i.Name)
			for cut := len(name); label.Width(i.Name) > left-vg.Points(18) && cut > 0; cut-- {
				i.Name = string(name[:cut]) + "…"
			}
			c.FillText(label, vg.Point{X: left - 9, Y: y}, i.Name)
			value := style(11, ink, true)
			value.XAlign = text.XLeft
			share := fmt.Sprintf("%.2f", i.Share)
			if i.Share < 0.01 {
				share = "< 0.01"
			}
			c.FillText(value, vg.Point{X: left + bar + 6, Y: y}, share)
		}
		c.FillText(style(11, ink, false), vg.Point{X: left + width/2, Y: base - 32}, "importance for "+objective)
	})
}

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

// scale places values between 0 and 1.
type scale struct {
	lo, hi float64
	log    bool
	whole  bool     // nothing is between 1 and 2
	labels []string // of choices, evenly spaced; lo and hi are then unused
}

// newScale spans some finite values.
func newScale(values []float64) scale {
	return scale{lo: slices.Min(values), hi: slices.Max(values)}
}

// paramScale is the scale of a parameter's axis.
func paramScale(p Param, trials []Trial) (scale, error) {
	s := scale{lo: p.Low, hi: p.High, log: p.Log}
	if len(p.Choices) > 0 {
		for _, c := range p.Choices {
			s.labels = append(s.labels, choice(c))
		}
		for _, t := range trials {
			if v, ok := t.Params[p.Name]; ok && !slices.Contains(s.labels, choice(v)) {
				s.labels = append(s.labels, choice(v)) // the choices have changed since
			}
		}
		return s, nil
	}
	var values []float64
	for _, t := range trials {
		v, ok := t.Params[p.Name]
		if !ok {
			continue
		}
		x, ok := toFloat(v)
		switch {
		case !ok:
			return s, fmt.Errorf("report: parameter %s of trial %d is %v, want a number", p.Name, t.Number, v)
		case p.Log && x <= 0:
			return s, fmt.Errorf("report: parameter %s of trial %d is %v, want a positive number for a logarithmic axis", p.Name, t.Number, v)
		case finite(x):
			values = append(values, x)
		}
	}
	if p.Low < p.High {
		values = append(values, p.Low, p.High) // a trial may come from before the range was narrowed
	}
	if len(values) == 0 {
		values = []float64{p.Low}
	}
	s.lo, s.hi = slices.Min(values), slices.Max(values)
	s.whole = !slices.ContainsFunc(values, func(x float64) bool { return x != math.Trunc(x) })
	if s.log && s.lo <= 0 {
		return s, fmt.Errorf("report: parameter %s has a logarithmic axis from %v, want a positive bound", p.Name, s.lo)
	}
	return s, nil
}

// pad widens a linear scale on both sides by a share of its span.
func (s *scale) pad(share float64) {
	margin := (s.hi - s.lo) * share
	if margin == 0 {
		margin = math.Max(math.Abs(s.lo)*0.05, 0.01)
	}
	s.lo, s.hi = s.lo-margin, s.hi+margin
}

// at returns where a value is. It is nowhere if there is none.
func (s scale) at(v any) (float64, bool) {
	if len(s.labels) > 0 {
		i := slices.Index(s.labels, choice(v))
		if i < 0 {
			return 0, false
		}
		return s.position(i), true
	}
	x, ok := toFloat(v)
	if !ok || !finite(x) {
		return 0, false
	}
	return s.place(x), true
}

func (s scale) position(i int) float64 {
	if len(s.labels) == 1 {
		return 0.5
	}
	return float64(i) / float64(len(s.labels)-1)
}

func (s scale) place(x float64) float64 {
	if s.lo == s.hi {
		return 0.5
	}
	if s.log {
		return math.Log(x/s.lo) / math.Log(s.hi/s.lo)
	}
	return (x - s.lo) / (s.hi - s.lo)
}

// mark is a tick of a scale.
type mark struct {
	value, at float64
	label     string
}

// ticks returns at most about n marks at round numbers, or all choices.
func (s scale) ticks(n int) []mark {
	var marks []mark
	for i, label := range s.labels {
		marks = append(marks, mark{value: float64(i), at: s.position(i), label: label})
	}
	if marks != nil {
		return marks
	}
	add := func(x float64) {
		marks = append(marks, mark{value: x, at: s.place(x), label: number(x, 4)})
	}
	switch {
	case s.lo == s.hi:
		add(s.lo)
	case s.log:
		// As many numbers that begin with one of these digits as there is room for.
		first, last := math.Floor(math.Log10(s.lo)), math.Ceil(math.Log10(s.hi))
		for _, leads := range [][]int{{1, 2, 5}, {1, 3}, {1}} {
			marks = nil
			every := 1.0
			if len(leads) == 1 {
				every = math.Max(1, math.Ceil((last-first)/float64(n)))
			}
			for e := first; e <= last; e += every {
				for _, lead := range leads {
					if x, err := strconv.ParseFloat(fmt.Sprintf("%de%.0f", lead, e), 64); err == nil && x >= s.lo*(1-1e-9) && x <= s.hi*(1+1e-9) {
						add(x)
					}
				}
			}
			if len(marks) <= n {
				break
			}
		}
		if len(marks) < 2 { // less than from one round number to the next
			marks = nil
			add(s.lo)
			add(s.hi)
		}
	default:
		step := roundStep((s.hi - s.lo) / float64(n))
		if s.whole {
			step = wholeStep((s.hi - s.lo) / float64(n))
		}
		decimals := max(0, int(math.Ceil(-math.Log10(step)-1e-9)))
		if lead := step * math.Pow(10, float64(decimals)); lead > 2.4 && lead < 2.6 {
			decimals++ // 0.025
		}
		for k := math.Ceil(s.lo/step - 1e-9); k*step <= s.hi+step*1e-9; k++ {
			x := k * step
			if math.Abs(x) < step*1e-9 {
				x = 0
			}
			add(x)
			if decimals <= 4 && math.Abs(x) < 1e5 {
				marks[len(marks)-1].label = strconv.FormatFloat(x, 'f', decimals, 64) // 0.90 beside 0.85
			}
		}
	}
	return marks
}

// plotTicks are the ticks for an axis of gonum, at their positions or values.
func (s scale) plotTicks(n int, positions bool) []plot.Tick {
	var ticks []plot.Tick
	for _, m := range s.ticks(n) {
		at := m.value
		if positions {
			at = m.at
		}
		ticks = append(ticks, plot.Tick{Value: at, Label: m.label})
	}
	return ticks
}

// roundStep is the smallest of 1, 2, 2.5 and 5 times a power of ten that is not
// below x.
func roundStep(x float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(x)))
	for _, lead := range []float64{1, 2, 2.5, 5} {
		if lead*power >= x*(1-1e-9) {
			return lead * power
		}
	}
	return 10 * power
}

// wholeStep is the smallest of 1, 2 and 5 times a power of ten, and a whole
// number, that is not below x.
func wholeStep(x float64) float64 {
	for power := 1.0; ; power *= 10 {
		for _, lead := range []float64{1, 2, 5} {
			if lead*power >= x*(1-1e-9) {
				return lead * power
			}
		}
	}
}

// number prints a number with few digits, the same in all pictures.
func number(x float64, digits int) string {
	if a := math.Abs(x); a != 0 && (a < 1e-3 || a >= 1e6) {
		return trimExponent(strconv.FormatFloat(x, 'e', -1, 64), x, digits)
	}
	return strconv.FormatFloat(round(x, digits), 'g', -1, 64)
}

// trimExponent writes 1e-6 for 1e-06, with at most some digits.
func trimExponent(s string, x float64, digits int) string {
	if len(s) > digits+4 {
		s = strconv.FormatFloat(x, 'e', digits-2, 64)
	}
	mantissa, exponent := s[:len(s)-4], s[len(s)-4:] // e-06; three digits stay as they are
	if exponent[0] == 'e' && exponent[2] == '0' {
		return mantissa + exponent[:2] + exponent[3:]
	}
	return s
}

// round keeps significant digits of the fraction; whole parts stay whole.
func round(x float64, digits int) float64 {
	y, err := strconv.ParseFloat(strconv.FormatFloat(x, 'f', digits, 64), 64)
	if err != nil {
		return x
	}
	return y
}

// choice is how a choice is written on an axis: 16 and 16.0 are one.
func choice(v any) string {
	if x, ok := toFloat(v); ok {
		return strconv.FormatFloat(x, 'g', -1, 64)
	}
	if v == nil {
		return "none"
	}
	return fmt.Sprint(v)
}

func toFloat(v any) (float64, bool) {
	switch x := v.(type) {
	case float64:
		return x, true
	case float32:
		return float64(x), true
	case int:
		return float64(x), true
	case int64:
		return float64(x), true
	}
	return 0, false
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

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
