package graph

import (
	"math"
	"testing"
)

func TestRounding(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, test := range []struct {
		x    float32
		half uint16
		b    uint16
	}{
		{0, 0, 0},
		{1, 0x3c00, 0x3f80},
		{-2, 0xc000, 0xc000},
		{65504, 0x7bff, 0x4780},
		{65519, 0x7bff, 0x4780},
		{65520, 0x7c00, 0x4780},
		{-1e30, 0xfc00, 0xf14a},
		{inf, 0x7c00, 0x7f80},
		{0x1p-14, 0x0400, 0x3880},
		{0x1p-24, 0x0001, 0x3380},
		{0x1p-25, 0x0000, 0x3300},       // a tie: to even
		{0x1.8p-24, 0x0002, 0x33c0},     // a tie: to even
		{1 + 0x1p-11, 0x3c00, 0x3f80},   // a tie: to even
		{1 + 0x1.8p-10, 0x3c02, 0x3f80}, // a tie: to even
		{2 - 0x1p-12, 0x4000, 0x4000},   // carries into the exponent
		{1 + 0x1.8p-7, 0x3c0c, 0x3f82},  // a tie of bfloat16
		{0.1, 0x2e66, 0x3dcd},
	} {
		if got := float16(test.x); got != test.half {
			t.Errorf("float16(%g) = %#04x, want %#04x", test.x, got, test.half)
		}
		if got := bfloat16(test.x); got != test.b {
			t.Errorf("bfloat16(%g) = %#04x, want %#04x", test.x, got, test.b)
		}
	}
	if nan := float32(math.NaN()); float16(nan)&0x7fff <= 0x7c00 || bfloat16(nan)&0x7fff <= 0x7f80 {
		t.Error("NaN became a number")
	}
}
