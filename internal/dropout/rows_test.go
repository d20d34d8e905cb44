package dropout

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Masks by rows are part of what makes a run repeatable, too.
func TestRowsAreFixed(t *testing.T) {
	mask := make([]byte, 2*32)
	FillTokens(mask, Key{42, 7, 3}, 2, 0.5, 1)
	if diff := cmp.Diff("1110011101111001111110001101100010111011110011101010110111101011", bits(mask)); diff != "" {
		t.Errorf("tokens (-want +got):\n%s", diff)
	}
	FillScores(mask, Key{42, 7, 3}, 2, 2, 4, 0.5, 1)
	if diff := cmp.Diff("1100111110010010001000001011111100100111001011111010101111011001", bits(mask)); diff != "" {
		t.Errorf("scores (-want +got):\n%s", diff)
	}
}

// What is kept of a row depends neither on the length that it is padded to, nor on
// the other rows, nor on the threads.
func TestRowsDoNotDependOnPadding(t *testing.T) {
	key := Key{1, 2, 3}
	tokens := func(rows, length, threads int) []byte {
		mask := make([]byte, rows*length*3)
		FillTokens(mask, key, rows, 0.3, threads)
		return mask
	}
	scores := func(rows, queries, keys, threads int) []byte {
		mask := make([]byte, 2*rows*queries*keys)
		FillScores(mask, key, 2, rows, queries, 0.3, threads)
		return mask
	}
	want, wide := tokens(2, 7, 1), tokens(5, 11, 3)
	for r := range 2 {
		if diff := cmp.Diff(want[r*21:(r+1)*21], wide[r*33:][:21]); diff != "" {
			t.Errorf("tokens of row %d (-short +long):\n%s", r, diff)
		}
	}
	want, wide = scores(2, 4, 7, 1), scores(5, 9, 13, 3)
	for part := range 2 * 2 {
		h, r := part/2, part%2
		for i := range 4 {
			short, long := want[((h*2+r)*4+i)*7:][:7], wide[((h*5+r)*9+i)*13:][:7]
			if diff := cmp.Diff(short, long); diff != "" {
				t.Errorf("head %d, row %d, query %d (-short +long):\n%s", h, r, i, diff)
			}
		}
	}
	few, all := make([]byte, 3*5), make([]byte, 9*5)
	FillTable(few, key, []int{2, 3, 7}, 0.3)
	FillTable(all, key, []int{0, 1, 2, 3, 4, 5, 6, 7, 8}, 0.3)
	for i, n := range []int{2, 3, 7} {
		if diff := cmp.Diff(all[n*5:][:5], few[i*5:][:5]); diff != "" {
			t.Errorf("row %d of a table (-all +few):\n%s", n, diff)
		}
	}
}

// Rows, heads, queries and sites have different masks.
func TestRowsDiffer(t *testing.T) {
	seen := map[string]string{}
	note := func(what string, mask []byte) {
		t.Helper()
		if other, ok := seen[bits(mask)]; ok {
			t.Errorf("%s has the mask of %s", what, other)
		}
		seen[bits(mask)] = what
	}
	for site := range uint64(3) {
		mask := make([]byte, 4*64)
		FillTokens(mask, Key{5, 6, site}, 4, 0.5, 1)
		for r := range 4 {
			note(fmt.Sprint("tokens of site and row ", site, r), mask[r*64:][:64])
		}
		mask = make([]byte, 3*2*5*64)
		FillScores(mask, Key{5, 6, site}, 3, 2, 5, 0.5, 1)
		for i := range 3 * 2 * 5 {
			note(fmt.Sprint("scores of site, head, row and query ", site, i/10, i/5%2, i%5), mask[i*64:][:64])
		}
	}
}
