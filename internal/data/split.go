package data

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Ratios are the shares of the splits.
type Ratios struct{ Train, Val, Test float64 }

// Validate tells whether the ratios are positive and sum to 1.
func (r Ratios) Validate() error {
	sum := r.Train + r.Val + r.Test
	if r.Train > 0 && r.Val > 0 && r.Test > 0 && math.Abs(sum-1) <= 1e-6 {
		return nil
	}
	return &Error{Field: "data.train_ratio, data.val_ratio, data.test_ratio",
		Found:  fmt.Sprintf("%v + %v + %v = %v", r.Train, r.Val, r.Test, sum),
		Want:   "three positive numbers that sum to 1",
		Remedy: "for instance 0.8, 0.1 and 0.1"}
}

// Split divides the posts at random, so that all pairs of a post are in one
// split and every criterion is positive about equally often in each. A split
// that the files bring is returned as it is. The result depends on the
// content, the ratios and the seed alone.
//
// It is the iterative stratification of Sechidis, Tsoumakas and Vlahavas (On
// the stratification of multi-label data, 2011), with the sizes of the splits
// fixed: the posts of the rarest criterion are dealt out first, each to the
// split that lacks most of its share.
func (d *Dataset) Split(r Ratios, seed uint64) (Splits, error) {
	if d.Given != nil {
		return *d.Given, nil
	}
	if err := r.Validate(); err != nil {
		return Splits{}, err
	}

	// The examples are sorted: those of a post lie together.
	groups := make(map[string]*group)
	var order []*group
	for _, e := range d.Examples {
		g := groups[e.PostID]
		if g == nil {
			g = &group{id: e.PostID, key: shuffleKey(seed, e.PostID)}
			groups[e.PostID] = g
			order = append(order, g)
		}
		g.examples = append(g.examples, e)
		if e.Label == 1 {
			g.labels = append(g.labels, e.CriterionID)
		}
	}
	slices.SortFunc(order, func(a, b *group) int {
		return cmp.Or(cmp.Compare(a.key, b.key), strings.Compare(a.id, b.id))
	})

	shares := [3]float64{r.Train, r.Val, r.Test}
	room := apportion(len(order), shares)
	lacking := make(map[string][3]float64) // by criterion: positives that a split should still get
	left := make(map[string]int)           // by criterion: positives not yet dealt out
	for _, g := range order {
		for _, l := range g.labels {
			want := lacking[l]
			for s := range want {
				want[s] += shares[s]
			}
			lacking[l] = want
			left[l]++
		}
	}
	deal := func(g *group, criterion string) {
		best := -1
		for s := range room {
			if room[s] > 0 && (best < 0 || cmp.Or(cmp.Compare(lacking[criterion][s], lacking[criterion][best]), cmp.Compare(room[s], room[best])) > 0) {
				best = s
			}
		}
		g.split, g.dealt = best, true
		room[best]--
		for _, l := range g.labels {
			want := lacking[l]
			want[best]--
			lacking[l] = want
			left[l]--
		}
	}
	for {
		rarest := ""
		for _, l := range sortedKeys(left) {
			if left[l] > 0 && (rarest == "" || left[l] < left[rarest]) {
				rarest = l
			}
		}
		if rarest == "" {
			break
		}
		for _, g := range order {
			if !g.dealt && slices.Contains(g.labels, rarest) {
				deal(g, rarest)
			}
		}
	}
	for _, g := range order { // those without any positive
		if !g.dealt {
			deal(g, "")
		}
	}

	var parts [3][]Example
	for _, g := range order {
		parts[g.split] = append(parts[g.split], g.examples...)
	}
	for _, p := range parts {
		sortExamples(p)
	}
	s := Splits{Train: parts[0], Val: parts[1], Test: parts[2]}
	if err := checkClasses(&s, ""); err != nil {
		return Splits{}, err
	}
	return s, nil
}

// group is a post with all its pairs.
type group struct {
	id       string
	key      uint64
	examples []Example
	labels   []string // criteria that are positive
	dealt    bool
	split    int
}

// shuffleKey gives a post its place in the random order of a seed. It is a
// function of the two alone, so that neither files nor other posts matter.
func shuffleKey(seed uint64, id string) uint64 {
	sum := sha256.Sum256(append(binary.LittleEndian.AppendUint64(nil, seed), id...))
	return binary.LittleEndian.Uint64(sum[:])
}

// apportion divides n by the largest-remainder method, so that the parts sum
// to n.
func apportion(n int, shares [3]float64) [3]int {
	var parts [3]int
	var rest [3]float64
	given := 0
	for s, share := range shares {
		exact := share * float64(n)
		parts[s] = int(exact)
		rest[s] = exact - float64(parts[s])
		given += parts[s]
	}
	for ; given < n; given++ {
		most := 0
		for s := range rest {
			if rest[s] > rest[most] {
				most = s
			}
		}
		parts[most]++
		rest[most] = -1
	}
	return parts
}

// checkClasses tells whether every split has examples of both classes.
func checkClasses(s *Splits, dir string) error {
	for _, part := range []struct {
		name     string
		examples []Example
	}{{"train", s.Train}, {"val", s.Val}, {"test", s.Test}} {
		n := ClassCounts(part.examples)
		if n[0] > 0 && n[1] > 0 {
			continue
		}
		return &Error{File: dir, Field: "status",
			Found:  fmt.Sprintf("%d negative and %d positive pairs in the %s split of %d posts", n[0], n[1], part.name, Posts(part.examples)),
			Want:   "both classes in every split",
			Remedy: "use more posts, a larger share for that split or another train.seed"}
	}
	return nil
}
