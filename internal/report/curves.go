package report

import (
	"errors"
	"fmt"
	"image/color"
	"math"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Epoch is one point of the curves.
type Epoch struct {
	Number             int // from 1
	TrainLoss, ValLoss float64
	TrainF1, ValF1     float64 // macro
}

// TrainingCurves draws the losses and, beside them, the macro-F1 of training
// and validation over the epochs, with a mark at the best epoch.
func TrainingCurves(title string, epochs []Epoch, best int) ([]byte, error) {
	if len(epochs) == 0 {
		return nil, errors.New("report: no epochs to draw curves of")
	}
	pick := func(value func(Epoch) float64) plotter.XYs {
		points := make(plotter.XYs, len(epochs))
		for i, e := range epochs {
			points[i] = plotter.XY{X: float64(e.Number), Y: value(e)}
		}
		return points
	}
	loss, err := curves("loss (cross-entropy)",
		pick(func(e Epoch) float64 { return e.TrainLoss }), pick(func(e Epoch) float64 { return e.ValLoss }), best)
	if err != nil {
		return nil, err
	}
	loss.Y.Min, loss.Y.Max = 0, loss.Y.Max*1.15 // room for the legend
	f1, err := curves("macro-F1",
		pick(func(e Epoch) float64 { return e.TrainF1 }), pick(func(e Epoch) float64 { return e.ValF1 }), best)
	if err != nil {
		return nil, err
	}
	f1.Y.Min, f1.Y.Max = math.Max(0, f1.Y.Min-0.15), 1
	f1.Legend.Top = false

	const width, height, head = 8 * vg.Inch, 4 * vg.Inch, 0.5 * vg.Inch
	return png(width, height, func(c draw.Canvas) {
		fill(c, 0, 0, width, height, white)
		c.FillText(style(14, ink, true), vg.Point{X: width / 2, Y: height - head*0.55}, title)
		margin := vg.Points(10)
		loss.Draw(draw.Crop(c, margin, -width/2-margin/2, margin, -head))
		f1.Draw(draw.Crop(c, width/2+margin/2, -margin, margin, -head))
	})
}

func curves(name string, train, val plotter.XYs, best int) (*plot.Plot, error) {
	p := axes("epoch", name)
	p.X.Tick.Marker = wholeTicks{from: 1}
	for _, s := range []struct {
		name   string
		points plotter.XYs
		color  color.Color
		dashes []vg.Length
	}{
		{"train", train, orange, []vg.Length{vg.Points(5), vg.Points(3)}},
		{"validation", val, blue, nil},
	} {
		line, dots, err := plotter.NewLinePoints(s.points)
		if err != nil {
			return nil, fmt.Errorf("report: %s: %w", name, err)
		}
		line.Color, line.Width, line.Dashes = s.color, vg.Points(2), s.dashes
		dots.GlyphStyle = draw.GlyphStyle{Color: s.color, Radius: vg.Points(2.5), Shape: draw.CircleGlyph{}}
		p.Add(line, dots)
		p.Legend.Add(s.name, line)
	}
	for _, point := range val {
		if int(point.X) != best {
			continue
		}
		mark, err := plotter.NewScatter(plotter.XYs{point})
		if err != nil {
			return nil, fmt.Errorf("report: %s: %w", name, err)
		}
		mark.GlyphStyle = draw.GlyphStyle{Color: blue, Radius: vg.Points(6), Shape: draw.RingGlyph{}}
		p.Add(mark)
		p.Legend.Add("best epoch", mark)
	}
	p.Legend.Top = true
	p.Legend.TextStyle.Font.Variant, p.Legend.TextStyle.Font.Size, p.Legend.TextStyle.Color = "Sans", 10, ink
	p.Legend.Padding = vg.Points(2)
	if p.X.Min == p.X.Max { // one epoch
		p.X.Min, p.X.Max = p.X.Min-1, p.X.Max+1
	}
	if p.Y.Min == p.Y.Max {
		p.Y.Min, p.Y.Max = p.Y.Min-0.1, p.Y.Max+0.1
	}
	return p, nil
}

// axes returns an empty plot in the look of all pictures.
func axes(x, y string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	p.X.Label.Text, p.Y.Label.Text = x, y
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Label.TextStyle.Color, axis.Label.TextStyle.Font.Variant, axis.Label.TextStyle.Font.Size = ink, "Sans", 11
		axis.Tick.Label.Color, axis.Tick.Label.Font.Variant, axis.Tick.Label.Font.Size = faint, "Sans", 9
		axis.LineStyle.Color, axis.Tick.LineStyle.Color = faint, faint
	}
	lines := plotter.NewGrid()
	lines.Vertical.Color, lines.Horizontal.Color = nil, grid
	p.Add(lines)
	return p
}

// wholeTicks marks whole numbers only, from a least one on: there is no epoch
// 1.5.
type wholeTicks struct{ from float64 }

func (w wholeTicks) Ticks(min, max float64) []plot.Tick {
	step := wholeStep((max - min) / 8)
	var ticks []plot.Tick
	for x := math.Ceil(min/step) * step; x <= max; x += step {
		if x >= w.from {
			ticks = append(ticks, plot.Tick{Value: x, Label: strconv.Itoa(int(x))})
		}
	}
	return ticks
}
