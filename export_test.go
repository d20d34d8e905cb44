package criteria

// Bars is what [ProgressBar] returns for a terminal.
var Bars = bars

// ParseState and ParseSums read the files of a checkpoint.
var (
	ParseState = parseState
	ParseSums  = parseSums
)
