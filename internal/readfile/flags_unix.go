//go:build unix

package readfile

import "syscall"

// nonBlocking keeps the opening of a pipe from waiting for its writer, and that
// of a terminal from making it the one of the process.
const nonBlocking = syscall.O_NONBLOCK | syscall.O_NOCTTY
