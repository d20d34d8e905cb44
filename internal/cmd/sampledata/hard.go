package main

import (
	"strings"
)

// The harder sample: posts whose sentences hide behind words that mean nothing,
// symptoms told in more ways and by fewer writers, and annotators who err. It is
// for comparing ways of training, not for the demo.
const (
	hardShown   = 0.11 // of the criteria, for each post: with the errors one pair in ten is positive
	hardDenied  = 0.05
	hardNoise   = 0.06 // of the words, each followed by one that means nothing
	hardMissed  = 0.04 // of the sentences that show a symptom, not annotated
	hardMistook = 0.01 // of the everyday sentences, annotated as a symptom
)

// hardPosts writes n posts of the harder sample.
func (g *generator) hardPosts(n int) []post {
	posts := make([]post, n)
	for i := range posts {
		posts[i] = post{id: postID(i), sentences: g.hardSentences()}
	}
	return posts
}

// hardSentences writes the sentences of one post: the symptoms that the writer
// has, some that are denied, and one to three everyday sentences.
func (g *generator) hardSentences() []sentence {
	var out []sentence
	for _, s := range symptoms {
		switch x := g.rng.Float64(); {
		case x < hardShown:
			told := sentence{text: g.hidden(append(paraphrases[s.label], s.shows...)), label: s.label, status: 1,
				explanation: "The writer says this of themselves."}
			if g.rng.Float64() < hardMissed {
				told.label, told.status, told.explanation = "", 0, ""
			}
			out = append(out, told)
		case x < hardShown+hardDenied:
			out = append(out, sentence{text: g.hidden(s.denies), label: s.label,
				explanation: "Mentioned, but not as the writer's own trouble."})
		}
	}
	for range 1 + g.rng.IntN(3) {
		plain := sentence{text: g.hidden(everyday)}
		if g.rng.Float64() < hardMistook {
			plain.label, plain.status = symptoms[g.rng.IntN(len(symptoms))].label, 1
			plain.explanation = "An error of the annotator, as there are some in every corpus."
		}
		out = append(out, plain)
	}
	g.rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// hidden says a sentence with meaningless words between its own.
func (g *generator) hidden(templates []string) string {
	var words []string
	for word := range strings.FieldsSeq(g.say(templates)) {
		if len(words) > 0 && g.rng.Float64() < hardNoise {
			words = append(words, g.noise())
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// noise makes up a word of one to three syllables, or takes one that fills a pause.
func (g *generator) noise() string {
	if g.rng.IntN(2) == 0 {
		return g.pick(fillers)
	}
	var word strings.Builder
	for range 1 + g.rng.IntN(3) {
		word.WriteString(g.pick(onsets) + g.pick(vowels))
	}
	return word.String()
}

var (
	fillers = []string{"like", "sort of", "you know", "well", "um", "basically", "I guess", "really", "anyway"}
	onsets  = []string{"b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "st", "tr"}
	vowels  = []string{"a", "e", "i", "o", "u", "ai", "ou"}
)

// paraphrases are more sentences of writers who have a symptom, by its label.
// They share words with those of other symptoms.
var paraphrases = map[string][]string{
	"DEPRESSED_MOOD": {
		"A grey weight sits on me {often}", "I could weep {place}", "My heart is heavy {lately}", "Nothing lifts me {lately}",
	},
	"ANHEDONIA": {
		"I used to love {hobby}, now I sit and stare", "I cannot bring myself to like {hobby}", "{Hobby} leaves me cold {lately}",
		"I gave up {hobby}, it means nothing",
	},
	"APPETITE_CHANGE": {
		"{Meal} stays on the plate {often}", "My jeans do not fit {lately}", "I skip {meal} {often}", "Food tastes of nothing {lately}",
	},
	"SLEEP_ISSUES": {
		"I stare at the ceiling until {hour}", "I doze on the sofa {often}", "At {hour} I give up on the night", "I stay in bed until {hour} {often}",
	},
	"PSYCHOMOTOR": {
		"I pace up and down {place}", "I cannot sit still {place}", "My hands will not stay quiet {often}", "I drag my feet {lately}",
	},
	"FATIGUE": {
		"My battery is empty {often}", "I have no strength for {chore}", "{Chore} takes all I have {lately}", "I run on empty {lately}",
	},
	"WORTHLESSNESS": {
		"I am a burden to {other2}", "I let {other2} down {lately}", "They would do better without me {place}", "It is all my fault {lately}",
	},
	"COGNITIVE_ISSUES": {
		"My head is full of fog {place}", "I read a page and nothing stays", "I stand before {item} and cannot choose",
		"I lose the thread {often}",
	},
	"SUICIDAL_THOUGHTS": {
		"I would rather not wake up {lately}", "I do not want to be here any more", "I think about an end to it {often}",
		"I wish I were gone {lately}",
	},
}
