// Package lint holds the rules of this repository that a machine can check, as
// tests: who may import whom, where cgo and process-wide state are allowed,
// what must be documented, and what must not be committed.
package lint
