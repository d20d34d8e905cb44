package engine

import "errors"

// maxPrograms is how many compiled graphs an engine keeps at most. A training
// with its evaluations meets about 70 shapes of batches, a classifier that is
// called with batches of all sizes hundreds. With the base model, a graph for
// evaluation takes 2 to 3 MB and 20 ms to compile, one for training batches of 8
// takes 5 to 25 MB, with their length, and 50 to 75 ms: little beside running it.
const maxPrograms = 96

// programs are the graphs that were compiled for shapes of batches, as many as
// limit allows: when there is one more, the one that was not used for the
// longest time is closed.
type programs[P interface{ close() error }] struct {
	limit   int
	entries map[programKey]*entry[P]
	uses    uint64     // of all programs
	largest programKey // of all shapes that were met
}

type entry[P any] struct {
	program P
	used    uint64 // number of its last use
}

func newPrograms[P interface{ close() error }]() programs[P] {
	return programs[P]{limit: maxPrograms, entries: map[programKey]*entry[P]{}}
}

// get returns the program for a shape, if it is there.
func (s *programs[P]) get(key programKey) (program P, ok bool) {
	e, ok := s.entries[key]
	if !ok {
		return program, false
	}
	s.uses++
	e.used = s.uses
	return e.program, true
}

// met notes the shape of a batch.
func (s *programs[P]) met(key programKey) {
	if key.rows*key.length > s.largest.rows*s.largest.length {
		s.largest = key
	}
}

// add keeps a program for a shape that get did not find. The error is that of
// closing another one.
func (s *programs[P]) add(key programKey, program P) error {
	s.uses++
	s.entries[key] = &entry[P]{program, s.uses}
	if len(s.entries) <= s.limit {
		return nil
	}
	oldest := key
	for k, e := range s.entries {
		if e.used < s.entries[oldest].used {
			oldest = k
		}
	}
	evicted := s.entries[oldest].program
	delete(s.entries, oldest)
	return evicted.close()
}

// close closes all programs.
func (s *programs[P]) close() error {
	var errs []error
	for _, e := range s.entries {
		errs = append(errs, e.program.close())
	}
	clear(s.entries)
	return errors.Join(errs...)
}
