package criteria

// Bars is what [ProgressBar] returns for a terminal.
var Bars = bars

// FreeMemory reads what the machine, or the container, has left.
var FreeMemory = freeMemory

// CheckSums finds a file of a folder that is not what it was.
var CheckSums = checkSums

// ParseState and ParseSums read the files of a checkpoint.
var (
	ParseState = parseState
	ParseSums  = parseSums
)
