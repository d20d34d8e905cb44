package main

// All texts below are invented for this sample. A word in braces is a slot,
// filled from slots; phrases of one symptom share words with its criterion
// only now and then, as in real life.

// criterionText is one entry of criteria.json.
type criterionText struct {
	ID   string `json:"id"`
	Text string `json:"text"`
}

// symptom is what the generator can say about one criterion.
type symptom struct {
	label     string
	criterion criterionText
	// shows are sentences of a writer who has the symptom.
	shows []string
	// denies are sentences about the same matter of a writer who does not
	// have it, or about somebody else.
	denies []string
}

// symptoms are in DSM-5 order, A.1 to A.9.
var symptoms = []symptom{
	{
		label:     "DEPRESSED_MOOD",
		criterion: criterionText{"A.1", "Depressed mood most of the day."},
		shows: []string{
			"I feel so sad {lately}", "I wake up sad {often}", "I was crying again {occasion}", "I feel gloomy inside",
			"Everything is gloomy {lately}", "I am crying {often}", "{adverb}, I am just sad",
		},
		denies: []string{"{other} is sad, not me", "{other} was crying {occasion}, not me"},
	},
	{
		label:     "ANHEDONIA",
		criterion: criterionText{"A.2", "Anhedonia: diminished interest or pleasure."},
		shows: []string{
			"{Hobby} bores me {lately}", "I find no joy in {hobby}", "{Hobby} is no fun any more", "There is no joy in anything",
			"Nothing is fun {lately}", "Even {hobby} bores me", "{adverb}, everything bores me",
		},
		denies: []string{"{other} finds no joy in {hobby}, not me", "{Hobby} bores {other2}, not me"},
	},
	{
		label:     "APPETITE_CHANGE",
		criterion: criterionText{"A.3", "Appetite disturbance or weight change."},
		shows: []string{
			"I cannot eat {meal}", "I am never hungry {lately}", "I lost {number} kilos {lately}", "I gained {number} kilos",
			"I am not hungry at {meal}", "I eat nothing {lately}", "{adverb}, I eat too much",
		},
		denies: []string{"{other} lost {number} kilos, not me", "{other} is never hungry, not like me"},
	},
	{
		label:     "SLEEP_ISSUES",
		criterion: criterionText{"A.4", "Insomnia or hypersomnia."},
		shows: []string{
			"I cannot sleep {lately}", "I lie awake until {hour}", "I am awake at {hour} {often}", "I sleep {number} hours at most",
			"My nights are sleepless {lately}", "I had a sleepless night again", "{adverb}, I hardly sleep",
		},
		denies: []string{"{other} cannot sleep, not me", "{other} is awake at {hour}, not me"},
	},
	{
		label:     "PSYCHOMOTOR",
		criterion: criterionText{"A.5", "Psychomotor agitation or slowing."},
		shows: []string{
			"I am restless {place}", "I keep fidgeting {place}", "I am fidgeting {often}", "I move in slow motion {lately}",
			"My legs are restless {often}", "I move and talk slowly", "{adverb}, I move like a snail",
		},
		denies: []string{"{other} is fidgeting, not me", "{other} was restless {occasion}, not me"},
	},
	{
		label:     "FATIGUE",
		criterion: criterionText{"A.6", "Fatigue or loss of energy."},
		shows: []string{
			"I am tired {often}", "{Chore} leaves me exhausted", "I feel drained {lately}", "I am drained after {chore}",
			"I am too exhausted for {chore}", "Even {chore} makes me tired", "{adverb}, I am so tired",
		},
		denies: []string{"{other} is tired, not me", "{other} looks exhausted, not like me"},
	},
	{
		label:     "WORTHLESSNESS",
		criterion: criterionText{"A.7", "Worthlessness or excessive guilt."},
		shows: []string{
			"I am a failure {place}", "I feel guilty about {chore}", "I am useless {place}", "I feel like a failure",
			"I blame myself {often}", "I feel guilty and useless", "{adverb}, I blame myself",
		},
		denies: []string{"{other} feels guilty, not me", "{other} called the radio useless, not me"},
	},
	{
		label:     "COGNITIVE_ISSUES",
		criterion: criterionText{"A.8", "Impaired concentration, indecisiveness."},
		shows: []string{
			"I cannot concentrate {place}", "I forget things {often}", "I cannot decide on {item}", "I forget what I read",
			"I cannot focus {place}", "I can hardly focus or concentrate", "{adverb}, I cannot decide anything",
		},
		denies: []string{"{other} cannot decide on {item}, not me", "{other} did forget the street, not me"},
	},
	{
		label:     "SUICIDAL_THOUGHTS",
		criterion: criterionText{"A.9", "Suicidal ideation."},
		shows: []string{
			"Life is not worth living", "I wonder if life is worth it", "Is life worth it?", "I think of giving up on life",
			"I see no reason for living", "I wonder {often} what life is for", "{adverb}, I think of giving up",
		},
		denies: []string{"{other} loves country life, not me", "{other} is giving up the flat, not me"},
	},
}

// everyday are sentences that say nothing about any criterion.
var everyday = []string{
	"The bus was late {occasion}",
	"I bought {item} {occasion}",
	"{other} brought {item}",
	"My neighbour paints the fence",
	"It rained all {month}",
	"The meeting is at {hour}",
	"{other} has a cat",
	"We watched an old film",
	"The train takes {number} hours",
	"My phone is broken",
	"There is a new bakery here",
	"{other} moved in {month}",
	"I am writing this {place}",
	"I work {place}",
	"The kitchen tap drips",
	"Our team won {occasion}",
	"I wrote to {other2}",
	"The rent went up",
	"I am learning Italian",
	"Sorry for the long post",
	"Thanks for reading",
	"Does anybody know this?",
	"This is my first post here",
	"The tomatoes are ripe",
	"We visited {other2} {occasion}",
	"The shop was out of {item}",
}

// specialCase are sentences that the corpus marks as SPECIAL_CASE: they ask
// for a professional's eye but belong to no criterion.
var specialCase = []string{
	"My therapist wants me to keep a diary",
	"I changed my medication in {month}",
	"The doctor wrote me a referral",
}

// openers may stand before a sentence.
var openers = []string{"Well,", "And", "So", "Also,", "But"}

// slots are the words that the braces stand for. A slot that starts with a
// capital letter takes the words of its small form, capitalised.
var slots = map[string][]string{
	"lately":   {"lately", "these days", "for weeks", "since {month}", "this month", "again", "this winter"},
	"often":    {"every day", "all day", "every evening", "most mornings", "all the time", "constantly"},
	"occasion": {"yesterday", "last week", "on holiday", "on Sunday", "this morning", "at the party", "over lunch"},
	"place":    {"at work", "in the office", "at school", "at home", "in the kitchen", "on the train", "in class"},
	"hobby": {"painting", "football", "gardening", "hiking", "chess", "dancing", "swimming", "photography", "baking",
		"cycling", "reading", "singing", "fishing"},
	"meal":   {"breakfast", "lunch", "dinner", "supper", "my soup"},
	"chore":  {"the laundry", "the shopping", "cooking", "the paperwork", "cleaning", "a short walk", "my homework"},
	"item":   {"bread", "tea", "a jacket", "a lamp", "apples", "soap", "a notebook", "flowers", "cheese", "paint", "shoes"},
	"hour":   {"two", "three", "four", "five"},
	"number": {"two", "three", "four", "five", "six", "seven"},
	"month": {"January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
		"November", "December"},
	"other": {"My sister", "My brother", "My neighbour", "A friend", "My flatmate", "My colleague", "My mother",
		"My father", "My cousin", "Our teacher"},
	"other2": {"my sister", "my brother", "my wife", "my husband", "a friend", "my flatmate", "my boss", "my mother",
		"my father", "my partner"},
	"adverb": {"Honestly", "For some time", "Since {month}", "Most days"},
}
