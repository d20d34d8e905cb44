package report_test

import (
	"bytes"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"github.com/criteria-go/criteria/internal/report"
)

// decode reads a picture and checks what every picture must have: the width
// that is promised, and something on it.
func decode(t *testing.T, name string, content []byte) (width, height int) {
	t.Helper()
	if dir := os.Getenv("CRITERIA_PICTURES"); dir != "" { // to look at them
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	img, err := png.Decode(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if img.Bounds().Dx() != 1200 {
		t.Errorf("width %d, want 1200", img.Bounds().Dx())
	}
	colors := make(map[color.Color]bool)
	for x := 0; x < img.Bounds().Dx(); x += 3 {
		for y := 0; y < img.Bounds().Dy(); y += 3 {
			colors[img.At(x, y)] = true
		}
	}
	if len(colors) < 20 {
		t.Errorf("%d colors: the picture is empty", len(colors))
	}
	return img.Bounds().Dx(), img.Bounds().Dy()
}

func TestConfusionMatrix(t *testing.T) {
	for name, tc := range map[string]struct {
		counts  [][]int
		classes []string
	}{
		"sample":  {[][]int{{297, 11}, {4, 48}}, []string{"absent (0)", "present (1)"}},
		"large":   {[][]int{{1234567, 98765}, {4321, 765432}}, []string{"absent (0)", "present (1)"}},
		"empty":   {[][]int{{0, 0}, {0, 12}}, []string{"absent (0)", "present (1)"}},
		"classes": {[][]int{{5, 1, 0, 2}, {0, 9, 1, 1}, {3, 0, 7, 0}, {0, 0, 0, 4}}, []string{"a", "b", "c", "d"}},
	} {
		t.Run(name, func(t *testing.T) {
			first, err := report.ConfusionMatrix("Test split: macro-F1 0.926", tc.counts, tc.classes)
			if err != nil {
				t.Fatal(err)
			}
			decode(t, "confusion_"+name+".png", first)
			again, err := report.ConfusionMatrix("Test split: macro-F1 0.926", tc.counts, tc.classes)
			if err != nil || !bytes.Equal(first, again) {
				t.Errorf("the same numbers gave two different pictures (%v)", err)
			}
		})
	}
}

func TestConfusionMatrixRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		counts  [][]int
		classes []string
	}{
		"nothing":  {nil, nil},
		"names":    {[][]int{{1, 2}, {3, 4}}, []string{"a"}},
		"ragged":   {[][]int{{1, 2}, {3}}, []string{"a", "b"}},
		"negative": {[][]int{{1, -2}, {3, 4}}, []string{"a", "b"}},
	} {
		if _, err := report.ConfusionMatrix("", tc.counts, tc.classes); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestTrainingCurves(t *testing.T) {
	many := []report.Epoch{
		{1, 0.71, 0.69, 0.48, 0.51}, {2, 0.62, 0.55, 0.61, 0.72}, {3, 0.41, 0.38, 0.83, 0.88}, {4, 0.22, 0.31, 0.93, 0.927},
		{5, 0.13, 0.33, 0.97, 0.921}, {6, 0.08, 0.36, 0.985, 0.919}, {7, 0.06, 0.39, 0.99, 0.92},
	}
	for name, epochs := range map[string][]report.Epoch{"many": many, "one": many[:1], "flat": {{1, 0.5, 0.5, 1, 1}, {2, 0.5, 0.5, 1, 1}}} {
		t.Run(name, func(t *testing.T) {
			content, err := report.TrainingCurves("Training of microsoft/deberta-v3-base", epochs, min(4, len(epochs)))
			if err != nil {
				t.Fatal(err)
			}
			decode(t, "curves_"+name+".png", content)
		})
	}
	if _, err := report.TrainingCurves("", nil, 0); err == nil {
		t.Error("no epochs: no error")
	}
}
