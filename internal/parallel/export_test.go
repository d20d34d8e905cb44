package parallel

// Helpers returns how many goroutines help with loops at the moment.
func Helpers() int { return int(helpers.Load()) }
