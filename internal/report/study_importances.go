package report

import (
	"cmp"
	"fmt"
	"image/color"
	"math"
	"slices"

	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

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
