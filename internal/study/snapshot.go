package study

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/c-bata/goptuna"
)

// native marks the samplers that know the distributions of this package.
type native interface{ knowsDistribution() }

// snapshot shows the trials of a study, as they are at one moment, to samplers
// and pruners that expect a study of goptuna. It is goptuna's own storage in
// memory, but for attributes: those that an algorithm gives to its trial, to find
// them later or in another process, go to the real storage, too.
type snapshot struct {
	*goptuna.InMemoryStorage
	study   *goptuna.Study
	foreign bool
	sign    float64
	ids     map[int]int // number → id here
	setAttr func(key, value string) error
}

// newSnapshot takes the trials in the order of their numbers. An algorithm that
// is not of this package sees ranges of goptuna, and a study that is to be
// minimised: goptuna's CMA-ES does not ask which it is.
func newSnapshot(name string, direction Direction, trials []FrozenTrial, foreign bool, setAttr func(key, value string) error) (*snapshot, error) {
	s := &snapshot{InMemoryStorage: goptuna.NewInMemoryStorage(), foreign: foreign, sign: 1, ids: map[int]int{}, setAttr: setAttr}
	if foreign && direction == Maximize {
		direction, s.sign = Minimize, -1
	}
	for _, t := range trials {
		id, err := s.CloneTrial(goptuna.InMemoryStorageStudyID, s.convert(t))
		if err != nil {
			return nil, err
		}
		s.ids[t.Number] = id
	}
	if _, err := s.CreateNewStudy(name); err != nil {
		return nil, err
	}
	if err := s.SetStudyDirection(goptuna.InMemoryStorageStudyID, direction); err != nil {
		return nil, err
	}
	var err error
	s.study, err = goptuna.LoadStudy(name, goptuna.StudyOptionStorage(s), goptuna.StudyOptionLogger(nil))
	return s, err
}

// SetTrialSystemAttr implements goptuna.Storage.
func (s *snapshot) SetTrialSystemAttr(trial int, key, value string) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if err := s.setAttr(key, string(text)); err != nil {
		return err
	}
	return s.InMemoryStorage.SetTrialSystemAttr(trial, key, value)
}

// current returns a trial that may have changed since, with its id here.
func (s *snapshot) current(t FrozenTrial) (FrozenTrial, error) {
	id, ok := s.ids[t.Number]
	if !ok {
		return t, fmt.Errorf("trial %d is not in the storage that created it", t.Number)
	}
	t = s.convert(t)
	t.ID, t.StudyID = id, goptuna.InMemoryStorageStudyID
	return t, nil
}

// convert returns a trial as the algorithm expects it. It shares maps that are
// only read.
func (s *snapshot) convert(t FrozenTrial) FrozenTrial {
	t.UserAttrs, t.SystemAttrs = texts(t.UserAttrs), texts(t.SystemAttrs)
	t.IntermediateValues = maps.Clone(t.IntermediateValues)
	if !s.foreign {
		return t
	}
	t.Value *= s.sign
	for step := range t.IntermediateValues {
		t.IntermediateValues[step] *= s.sign
	}
	dists := make(map[string]any, len(t.Distributions))
	for name, d := range t.Distributions {
		dists[name] = forGoptuna(d)
	}
	t.Distributions = dists
	return t
}

// texts returns attributes with the strings among them decoded.
func texts(attrs map[string]string) map[string]string {
	decoded := make(map[string]string, len(attrs))
	for key, value := range attrs {
		var text string
		if json.Unmarshal([]byte(value), &text) != nil {
			text = value
		}
		decoded[key] = text
	}
	return decoded
}

// forGoptuna translates a range of this package and leaves others alone.
func forGoptuna(d any) any {
	if d, ok := d.(Distribution); ok {
		return d.forGoptuna()
	}
	return d
}
