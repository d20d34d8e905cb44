// Package report draws the pictures of a run, its confusion matrix and its curves
// of loss and scores over the epochs, and those of a search for hyperparameters:
// its history, the importances of the parameters, and what values they led to.
// All functions return PNG files of 1200 pixels width, the same bytes for the
// same numbers.
package report

import (
	"bytes"
	"fmt"
	"image/color"
	"math"

	xfont "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// dpi makes 8 inches 1200 pixels: sharp on a screen, small as a file.
const dpi = 150

var (
	ink   = color.NRGBA{R: 0x22, G: 0x2b, B: 0x36, A: 0xff}
	faint = color.NRGBA{R: 0x6b, G: 0x77, B: 0x85, A: 0xff}
	grid  = color.NRGBA{R: 0xe3, G: 0xe7, B: 0xec, A: 0xff}
	white = color.NRGBA{R: 0xff, G: 0xff, B: 0xff, A: 0xff}

	blue   = color.NRGBA{R: 0x1f, G: 0x5f, B: 0xa8, A: 0xff}
	orange = color.NRGBA{R: 0xd9, G: 0x6b, B: 0x1e, A: 0xff}
)

// png renders what paint draws on a white canvas.
func png(width, height vg.Length, paint func(draw.Canvas)) ([]byte, error) {
	img := vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(dpi))}
	paint(draw.New(img))
	var b bytes.Buffer
	if _, err := img.WriteTo(&b); err != nil {
		return nil, fmt.Errorf("report: encode PNG: %w", err)
	}
	return b.Bytes(), nil
}

// style is the text style of the pictures.
func style(size vg.Length, c color.Color, bold bool) text.Style {
	f := font.From(plot.DefaultFont, size)
	f.Variant = "Sans"
	if bold {
		f.Weight = xfont.WeightBold
	}
	return text.Style{Color: c, Font: f, XAlign: text.XCenter, YAlign: text.YCenter, Handler: plot.DefaultTextHandler}
}

// mix goes from a to b as t goes from 0 to 1.
func mix(a, b color.NRGBA, t float64) color.NRGBA {
	t = math.Min(1, math.Max(0, t))
	blend := func(x, y uint8) uint8 { return uint8(math.Round(float64(x) + t*(float64(y)-float64(x)))) }
	return color.NRGBA{R: blend(a.R, b.R), G: blend(a.G, b.G), B: blend(a.B, b.B), A: 0xff}
}
