package criteria

// Bars is what [ProgressBar] returns for a terminal.
var Bars = bars
