package criteria

// Bars is what [ProgressBar] returns for a terminal.
var Bars = bars

// FreeMemory reads what the machine, or the container, has left.
var FreeMemory = freeMemory

// ParseState reads what a resume point knows besides weights and optimizer.
var ParseState = parseState
