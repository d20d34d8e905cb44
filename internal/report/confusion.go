package report

import (
	"errors"
	"fmt"
	"image/color"
	"math"
	"strconv"

	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// ConfusionMatrix draws counts[true][predicted]. Each cell shows its count and
// its share of the row, which also is its shade: a good classifier has a dark
// diagonal however rare a class is.
func ConfusionMatrix(title string, counts [][]int, classes []string) ([]byte, error) {
	n := len(counts)
	if n == 0 || len(classes) != n {
		return nil, fmt.Errorf("report: a confusion matrix of %d rows and %d class names, want as many of both", n, len(classes))
	}
	totals := make([]int, n)
	for i, row := range counts {
		if len(row) != n {
			return nil, fmt.Errorf("report: row %d of the confusion matrix has %d cells, want %d", i, len(row), n)
		}
		for _, count := range row {
			if count < 0 {
				return nil, errors.New("report: a negative count in the confusion matrix")
			}
			totals[i] += count
		}
	}
	const (
		width, height = 8 * vg.Inch, 7.2 * vg.Inch
		left, right   = 1.75 * vg.Inch, 1.1 * vg.Inch
		top, bottom   = 0.95 * vg.Inch, 1.1 * vg.Inch
	)
	return png(width, height, func(c draw.Canvas) {
		fill(c, 0, 0, width, height, white)
		gridW, gridH := width-left-right, height-top-bottom
		cellW, cellH := gridW/vg.Length(n), gridH/vg.Length(n)
		// Large numbers in large cells, smaller ones where there are many.
		size := vg.Length(math.Min(26, float64(cellH)/4))

		c.FillText(style(16, ink, true), vg.Point{X: left + gridW/2, Y: height - top*0.42}, title)
		for i, row := range counts {
			y := height - top - cellH*vg.Length(i+1)
			for j, count := range row {
				share := 0.0
				if totals[i] > 0 {
					share = float64(count) / float64(totals[i])
				}
				x := left + cellW*vg.Length(j)
				fill(c, x+1, y+1, cellW-2, cellH-2, shade(share))
				textColor := ink
				if share > 0.5 {
					textColor = white
				}
				middle := vg.Point{X: x + cellW/2, Y: y + cellH/2}
				c.FillText(style(size, textColor, true), vg.Point{X: middle.X, Y: middle.Y + size*0.55}, strconv.Itoa(count))
				c.FillText(style(size*0.58, textColor, false), vg.Point{X: middle.X, Y: middle.Y - size*0.65}, fmt.Sprintf("%.1f %%", 100*share))
			}
			label := style(12, ink, false)
			label.XAlign = text.XRight
			c.FillText(label, vg.Point{X: left - 8, Y: y + cellH/2 + 7}, classes[i])
			label = style(10, faint, false)
			label.XAlign = text.XRight
			c.FillText(label, vg.Point{X: left - 8, Y: y + cellH/2 - 8}, fmt.Sprintf("%d pairs", totals[i]))
			c.FillText(style(12, ink, false), vg.Point{X: left + cellW*(vg.Length(i)+0.5), Y: bottom - 14}, classes[i])
		}
		c.FillText(style(13, ink, true), vg.Point{X: left + gridW/2, Y: bottom * 0.42}, "predicted")
		vertical := style(13, ink, true)
		vertical.Rotation = math.Pi / 2
		c.FillText(vertical, vg.Point{X: left * 0.17, Y: bottom + gridH/2}, "true")

		// The scale of shades.
		const steps = 100
		barX, barW := width-right+0.28*vg.Inch, 0.2*vg.Inch
		for k := range steps {
			fill(c, barX, bottom+gridH*vg.Length(k)/steps, barW, gridH/steps+0.5, shade(float64(k)/(steps-1)))
		}
		for _, percent := range []int{0, 25, 50, 75, 100} {
			tick := style(10, faint, false)
			tick.XAlign = text.XLeft
			c.FillText(tick, vg.Point{X: barX + barW + 5, Y: bottom + gridH*vg.Length(percent)/100}, strconv.Itoa(percent)+" %")
		}
		c.FillText(style(10, faint, false), vg.Point{X: barX + barW, Y: height - top + 12}, "of the row")
	})
}

// shade is the color of a share from 0 to 1.
func shade(share float64) color.NRGBA {
	return mix(color.NRGBA{R: 0xf2, G: 0xf6, B: 0xfb, A: 0xff}, blue, share)
}

func fill(c draw.Canvas, x, y, w, h vg.Length, shade color.NRGBA) {
	c.FillPolygon(shade, []vg.Point{{X: x, Y: y}, {X: x + w, Y: y}, {X: x + w, Y: y + h}, {X: x, Y: y + h}})
}
