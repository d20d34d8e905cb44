package atomicfile

// ExchangeByRename is how folders are exchanged where the system cannot do it
// in one step.
var ExchangeByRename = exchangeByRename
