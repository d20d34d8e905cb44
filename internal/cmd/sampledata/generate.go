package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"unicode"
	"unicode/utf8"
)

// sentence is one sentence of a post and what an annotator says about it.
type sentence struct {
	text string
	// label is the symptom it speaks about, "" for everyday sentences.
	label string
	// status is 1 if the writer has that symptom.
	status int
	// explanation is the annotator's remark.
	explanation string
}

// post is one generated post.
type post struct {
	id        string
	sentences []sentence
}

// text joins the sentences as they stand in redsm5_posts.csv.
func (p post) text() string {
	parts := make([]string, len(p.sentences))
	for i, s := range p.sentences {
		parts[i] = s.text
	}
	return strings.Join(parts, " ")
}

// generator writes posts. The same seed gives the same posts.
type generator struct{ rng *rand.Rand }

func newGenerator(seed uint64) *generator {
	return &generator{rng: rand.New(rand.NewPCG(seed, 0x5a3e))}
}

// posts writes n posts.
func (g *generator) posts(n int) []post {
	posts := make([]post, n)
	for i := range posts {
		posts[i] = post{id: postID(i), sentences: g.sentences()}
	}
	return posts
}

func postID(i int) string { return fmt.Sprintf("sample-%04d", i+1) }

// sentences writes the one to eight sentences of one post: symptoms that the
// writer has (one in eight posts has none), at most two that are denied, and
// everyday sentences between them.
func (g *generator) sentences() []sentence {
	order := g.rng.Perm(len(symptoms))
	shown := [...]int{0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 4, 5}[g.rng.IntN(13)]
	denied := [...]int{0, 0, 0, 0, 0, 1, 1, 2}[g.rng.IntN(8)]
	plain := [...]int{0, 0, 1, 1, 2}[g.rng.IntN(5)]
	if shown+denied+plain == 0 {
		plain = 1
	}
	plain = min(plain, 8-shown-denied)

	var out []sentence
	for _, k := range order[:shown] {
		out = append(out, sentence{text: g.say(symptoms[k].shows), label: symptoms[k].label, status: 1,
			explanation: "The writer says this of themselves."})
	}
	for _, k := range order[shown : shown+denied] {
		out = append(out, sentence{text: g.say(symptoms[k].denies), label: symptoms[k].label,
			explanation: "Mentioned, but not as the writer's own trouble."})
	}
	for range plain {
		if g.rng.IntN(12) == 0 {
			out = append(out, sentence{text: g.say(specialCase), label: "SPECIAL_CASE", status: 1,
				explanation: "For a professional to read, no criterion."})
			continue
		}
		out = append(out, sentence{text: g.say(everyday)})
	}
	g.rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// say fills one of the templates and makes a sentence of it.
func (g *generator) say(templates []string) string {
	text := g.fill(g.pick(templates))
	if g.rng.IntN(10) == 0 {
		// The names of months and "I" keep their capital; other first words lose it.
		first, _, _ := strings.Cut(text, " ")
		if first != "I" {
			text = lower(text)
		}
		text = g.pick(openers) + " " + text
	}
	if strings.HasSuffix(text, "?") {
		return text
	}
	return text + g.pick([]string{".", ".", ".", ".", "!"})
}

// fill replaces the slots of a template.
func (g *generator) fill(template string) string {
	for {
		before, rest, ok := strings.Cut(template, "{")
		if !ok {
			return template
		}
		slot, after, ok := strings.Cut(rest, "}")
		if !ok {
			panic("sampledata: template with an open brace: " + template)
		}
		words, ok := slots[slot]
		word := ""
		if ok {
			word = g.pick(words)
		} else if words, ok = slots[lower(slot)]; ok {
			word = upper(g.pick(words))
		} else {
			panic("sampledata: no words for the slot " + slot)
		}
		template = before + word + after
	}
}

func (g *generator) pick(from []string) string { return from[g.rng.IntN(len(from))] }

// lower and upper change the case of the first letter.
func lower(s string) string { return mapFirst(s, unicode.ToLower) }
func upper(s string) string { return mapFirst(s, unicode.ToUpper) }

func mapFirst(s string, f func(rune) rune) string {
	r, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return s
	}
	return string(f(r)) + s[n:]
}
