package optunadb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/criteria-go/criteria/internal/study"
)

// OpenStudy implements study.Storage.
func (d *DB) OpenStudy(ctx context.Context, name string, direction study.Direction) (id int, err error) {
	want := "MAXIMIZE"
	if direction == study.Minimize {
		want = "MINIMIZE"
	}
	what := fmt.Sprintf("open study %q", name)
	open := func(t *tx) error {
		found, err := t.get(ctx, "SELECT study_id FROM studies WHERE study_name = ?", []any{name}, &id)
		if err != nil {
			return err
		}
		if !found {
			if id, err = t.insert(ctx, "INSERT INTO studies (study_name) VALUES (?)", "study_id", name); err != nil {
				return err
			}
			_, err = t.exec(ctx, "INSERT INTO study_directions (direction, study_id, objective) VALUES (?, ?, 0)", want, id)
			return err
		}
		var directions []string
		err = each(ctx, t, t.query("SELECT direction FROM study_directions WHERE study_id = ? ORDER BY objective"), []any{id}, func(rows *sql.Rows) error {
			var direction string
			err := rows.Scan(&direction)
			directions = append(directions, direction)
			return err
		})
		if err == nil && !slices.Equal(directions, []string{want}) {
			err = fmt.Errorf("%w: %v, want %s", study.ErrOtherDirection, directions, want)
		}
		return err
	}
	err = d.tx(ctx, what, open)
	if d.duplicate(err) { // another worker has just created it
		err = d.tx(ctx, what, open)
	}
	return id, err
}

// InitStudyAttr implements study.Storage.
func (d *DB) InitStudyAttr(ctx context.Context, id int, key, value string) (stored string, err error) {
	err = d.tx(ctx, "set an attribute of the study", func(t *tx) error {
		if err := t.lockStudy(ctx, id); err != nil {
			return err
		}
		found, err := t.get(ctx, `SELECT value_json FROM study_user_attributes WHERE study_id = ? AND "key" = ?`, []any{id, key}, &stored)
		if err != nil || found {
			return err
		}
		if stored = value; value == "" {
			return nil
		}
		_, err = t.exec(ctx, `INSERT INTO study_user_attributes (study_id, "key", value_json) VALUES (?, ?, ?)`, id, key, value)
		return err
	})
	return stored, err
}

// lockStudy makes others wait who want to add trials. Optuna does the same.
func (t *tx) lockStudy(ctx context.Context, id int) error {
	found, err := t.get(ctx, "SELECT study_id FROM studies WHERE study_id = ?"+t.forUpdate, []any{id}, &id)
	if err == nil && !found {
		err = fmt.Errorf("there is no study %d (any more)", id)
	}
	return err
}

// Claim implements study.Storage. Should the answer to its commit get lost, the
// trial it has claimed dies of its heartbeat, as if this worker had.
func (d *DB) Claim(ctx context.Context, id, budget int) (claimed *study.FrozenTrial, tally study.Tally, err error) {
	err = d.tx(ctx, "claim a trial", func(t *tx) error {
		claimed, tally = nil, study.Tally{}
		if err := t.lockStudy(ctx, id); err != nil {
			return err
		}
		if tally, err = t.tally(ctx, id); err != nil || tally.Finished+tally.Running >= budget {
			return err
		}
		now := time.Now()
		trial, err := t.popWaiting(ctx, id, now)
		if err != nil {
			return err
		}
		if trial == 0 {
			if trial, err = t.addTrial(ctx, id, study.FrozenTrial{State: study.Running, DatetimeStart: now, Value: math.NaN()}); err != nil {
				return err
			}
		}
		if err := t.beat(ctx, trial); err != nil {
			return err
		}
		trials, err := readTrials(ctx, t, d.dialect, id, all, trial, trial)
		if err != nil {
			return err
		}
		claimed = &trials[0]
		return nil
	})
	return claimed, tally, err
}

func (t *tx) tally(ctx context.Context, id int) (tally study.Tally, err error) {
	err = each(ctx, t, t.query("SELECT state, COUNT(*) FROM trials WHERE study_id = ? GROUP BY state"), []any{id}, func(rows *sql.Rows) error {
		var name string
		var n int
		if err := rows.Scan(&name, &n); err != nil {
			return err
		}
		state, err := parseState(name)
		tally.Count(state, n)
		return err
	})
	if err != nil {
		return tally, err
	}
	_, err = t.get(ctx, `SELECT COUNT(*) FROM trials t JOIN trial_heartbeats h ON h.trial_id = t.trial_id
		WHERE t.study_id = ? AND t.state = 'RUNNING'`, []any{id}, &tally.Beating)
	return tally, err
}

// popWaiting makes the first trial that waits a running one, and returns its id,
// or 0.
func (t *tx) popWaiting(ctx context.Context, id int, now time.Time) (trial int, err error) {
	for {
		found, err := t.get(ctx, "SELECT trial_id FROM trials WHERE study_id = ? AND state = 'WAITING' ORDER BY number LIMIT 1"+t.forUpdate, []any{id}, &trial)
		if err != nil || !found {
			return 0, err
		}
		// Workers in Python pop trials without locking the study.
		n, err := t.exec(ctx, "UPDATE trials SET state = 'RUNNING', datetime_start = ? WHERE trial_id = ? AND state = 'WAITING'", encodeTime(now), trial)
		if err != nil || n == 1 {
			return trial, err
		}
	}
}

// addTrial inserts a trial with all that it has and returns its id. The study
// must be locked: its number is the number of earlier ones.
func (t *tx) addTrial(ctx context.Context, id int, trial study.FrozenTrial) (trialID int, err error) {
	var start any
	if !trial.DatetimeStart.IsZero() {
		start = encodeTime(trial.DatetimeStart)
	}
	trialID, err = t.insert(ctx, "INSERT INTO trials (study_id, state, datetime_start) VALUES (?, ?, ?)", "trial_id",
		id, stateNames[trial.State], start)
	if err != nil {
		return 0, err
	}
	var number int
	if _, err := t.get(ctx, "SELECT COUNT(*) FROM trials WHERE study_id = ? AND trial_id < ?", []any{id, trialID}, &number); err != nil {
		return 0, err
	}
	if _, err := t.exec(ctx, "UPDATE trials SET number = ? WHERE trial_id = ?", number, trialID); err != nil {
		return 0, err
	}
	for _, name := range slices.Sorted(maps.Keys(trial.InternalParams)) {
		dist, ok := trial.Distributions[name].(study.Distribution)
		if !ok {
			return 0, fmt.Errorf("parameter %s has a range of type %T", name, trial.Distributions[name])
		}
		if err := t.setParam(ctx, trialID, name, trial.InternalParams[name], dist); err != nil {
			return 0, err
		}
	}
	for table, attrs := range map[string]map[string]string{"trial_user_attributes": trial.UserAttrs, "trial_system_attributes": trial.SystemAttrs} {
		for _, key := range slices.Sorted(maps.Keys(attrs)) {
			if err := t.setAttr(ctx, table, trialID, key, attrs[key]); err != nil {
				return 0, err
			}
		}
	}
	return trialID, nil
}

// Enqueue implements study.Storage.
func (d *DB) Enqueue(ctx context.Context, id int, trial study.FrozenTrial) (number int, err error) {
	trial.State = study.Waiting
	err = d.tx(ctx, "enqueue a trial", func(t *tx) error {
		if err := t.lockStudy(ctx, id); err != nil {
			return err
		}
		trialID, err := t.addTrial(ctx, id, trial)
		if err != nil {
			return err
		}
		_, err = t.get(ctx, "SELECT number FROM trials WHERE trial_id = ?", []any{trialID}, &number)
		return err
	})
	return number, err
}

// FailStale implements study.Storage.
func (d *DB) FailStale(ctx context.Context, id int, grace time.Duration, retries int) (failed []study.FrozenTrial, err error) {
	query := d.query(`SELECT t.trial_id FROM trials t JOIN trial_heartbeats h ON h.trial_id = t.trial_id
		WHERE t.study_id = ? AND t.state = 'RUNNING' AND ` + d.silence + ` > ? ORDER BY t.trial_id`)
	stale := func(q querier) (ids []int, err error) {
		err = each(ctx, q, query, []any{id, grace.Seconds()}, func(rows *sql.Rows) error {
			var trial int
			err := rows.Scan(&trial)
			ids = append(ids, trial)
			return err
		})
		return ids, err
	}
	// Mostly there are none, and no lock is needed to know that.
	var ids []int
	err = d.retry(ctx, "look for dead workers", func() (err error) {
		ids, err = stale(d.db)
		return err
	})
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	err = d.tx(ctx, "fail the trials of dead workers", func(t *tx) error {
		failed = nil
		if err := t.lockStudy(ctx, id); err != nil {
			return err
		}
		ids, err := stale(t)
		if err != nil {
			return err
		}
		for _, trial := range ids {
			if n, err := t.exec(ctx, "UPDATE trials SET state = 'FAIL', datetime_complete = ? WHERE trial_id = ? AND state = 'RUNNING'",
				encodeTime(time.Now()), trial); err != nil {
				return err
			} else if n == 0 {
				continue // it ended after all
			}
			reason := fmt.Sprintf("%q", fmt.Sprintf("no sign of life for %v", grace))
			if err := t.setAttr(ctx, "trial_user_attributes", trial, study.AttrFailReason, reason); err != nil {
				return err
			}
			trials, err := readTrials(ctx, t, d.dialect, id, all, trial, trial)
			if err != nil {
				return err
			}
			failed = append(failed, trials...)
			if again, ok := study.Retry(trials[0], retries); ok {
				if _, err := t.addTrial(ctx, id, again); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return failed, err
}

// change runs f for a trial that runs.
func (d *DB) change(ctx context.Context, what string, trial int, f func(*tx) error) error {
	return d.tx(ctx, what, func(t *tx) error {
		if err := t.mustRun(ctx, trial); err != nil {
			return err
		}
		return f(t)
	})
}

func (t *tx) mustRun(ctx context.Context, trial int) error {
	var state string
	found, err := t.get(ctx, "SELECT state FROM trials WHERE trial_id = ?", []any{trial}, &state)
	if err == nil && (!found || state != "RUNNING") {
		err = study.ErrNotRunning
	}
	return err
}

// Beat implements study.Storage.
func (d *DB) Beat(ctx context.Context, trial int) error {
	return d.change(ctx, "renew the heartbeat", trial, func(t *tx) error { return t.beat(ctx, trial) })
}

// beat sets the heartbeat by the database's clock, so that those of the workers
// need not agree.
func (t *tx) beat(ctx context.Context, trial int) error {
	n, err := t.exec(ctx, "UPDATE trial_heartbeats SET heartbeat = CURRENT_TIMESTAMP WHERE trial_id = ?", trial)
	if err != nil || n > 0 {
		return err
	}
	// None yet; or one of this very second, which MySQL does not count as changed.
	var have int
	if found, err := t.get(ctx, "SELECT trial_id FROM trial_heartbeats WHERE trial_id = ?", []any{trial}, &have); err != nil || found {
		return err
	}
	_, err = t.exec(ctx, "INSERT INTO trial_heartbeats (trial_id, heartbeat) VALUES (?, CURRENT_TIMESTAMP)", trial)
	return err
}

// SetParam implements study.Storage.
func (d *DB) SetParam(ctx context.Context, trial int, name string, internal float64, dist study.Distribution) error {
	return d.change(ctx, "set parameter "+name, trial, func(t *tx) error { return t.setParam(ctx, trial, name, internal, dist) })
}

func (t *tx) setParam(ctx context.Context, trial int, name string, internal float64, dist study.Distribution) error {
	text, err := study.MarshalDistribution(dist)
	if err != nil {
		return err
	}
	_, err = t.ExecContext(ctx, t.upsert("trial_params", []string{"trial_id", "param_name"}, []string{"param_value", "distribution_json"}),
		trial, name, internal, string(text))
	return err
}

// Report implements study.Storage.
func (d *DB) Report(ctx context.Context, trial, step int, value float64) error {
	return d.change(ctx, "report a value", trial, func(t *tx) error {
		x, kind := encodeFloat(value)
		_, err := t.ExecContext(ctx, t.upsert("trial_intermediate_values", []string{"trial_id", "step"},
			[]string{"intermediate_value", "intermediate_value_type"}), trial, step, x, kind)
		return err
	})
}

// SetUserAttr implements study.Storage.
func (d *DB) SetUserAttr(ctx context.Context, trial int, key, value string) error {
	return d.change(ctx, "set an attribute", trial, func(t *tx) error {
		return t.setAttr(ctx, "trial_user_attributes", trial, key, value)
	})
}

// SetSystemAttr implements study.Storage.
func (d *DB) SetSystemAttr(ctx context.Context, trial int, key, value string) error {
	return d.change(ctx, "set an attribute", trial, func(t *tx) error {
		return t.setAttr(ctx, "trial_system_attributes", trial, key, value)
	})
}

func (t *tx) setAttr(ctx context.Context, table string, trial int, key, value string) error {
	_, err := t.ExecContext(ctx, t.upsert(table, []string{"trial_id", `"key"`}, []string{"value_json"}), trial, key, value)
	return err
}

// Finish implements study.Storage.
func (d *DB) Finish(ctx context.Context, trial int, state study.State, value float64) error {
	attempts := 0
	return d.tx(ctx, "end a trial", func(t *tx) error {
		attempts++
		n, err := t.exec(ctx, "UPDATE trials SET state = ?, datetime_complete = ? WHERE trial_id = ? AND state = 'RUNNING'",
			stateNames[state], encodeTime(time.Now()), trial)
		if err != nil {
			return err
		}
		if n == 0 {
			// Perhaps it was this very call: the answer to its commit was lost.
			var now string
			if _, err := t.get(ctx, "SELECT state FROM trials WHERE trial_id = ?", []any{trial}, &now); err != nil {
				return err
			}
			if attempts > 1 && now == stateNames[state] {
				return nil
			}
			return study.ErrNotRunning
		}
		if math.IsNaN(value) {
			return nil
		}
		x, kind := encodeFloat(value)
		_, err = t.ExecContext(ctx, t.upsert("trial_values", []string{"trial_id", "objective"}, []string{"value", "value_type"}), trial, 0, x, kind)
		return err
	})
}

// Trials implements study.Storage. It reads only what may have changed since the
// last time.
func (d *DB) Trials(ctx context.Context, id int) (trials []study.FrozenTrial, err error) {
	d.mu.Lock()
	known := d.ended[id] // never changed, only replaced
	d.mu.Unlock()
	err = d.retry(ctx, "read the trials", func() error {
		trials, err = readTrials(ctx, d.db, d.dialect, id, func(trial int) bool {
			_, ok := known[trial]
			return !ok
		}, 0, math.MaxInt32)
		return err
	})
	if err != nil {
		return nil, err
	}
	ended := maps.Clone(known)
	if ended == nil {
		ended = map[int]study.FrozenTrial{}
	}
	for i, t := range trials {
		if old, ok := known[t.ID]; ok {
			trials[i] = old
		} else if t.State.IsFinished() {
			ended[t.ID] = t
		}
	}
	d.mu.Lock()
	if len(ended) > len(d.ended[id]) {
		d.ended[id] = ended
	}
	d.mu.Unlock()
	return trials, nil
}

func all(int) bool { return true }

// readTrials reads the trials of a study with ids from first to last, in the
// order of their numbers: all headers, and the rest of those that are wanted.
// Headers come first. A trial that has ended when its header is read changes no
// more; another one may have more by the time that is read, but not less.
func readTrials(ctx context.Context, q querier, d *dialect, id int, want func(trial int) bool, first, last int) ([]study.FrozenTrial, error) {
	var trials []study.FrozenTrial
	index := map[int]int{} // id → position, of those wanted
	lowest, highest := math.MaxInt32, 0
	err := each(ctx, q, d.query(`SELECT trial_id, number, state, datetime_start, datetime_complete FROM trials
		WHERE study_id = ? AND trial_id >= ? AND trial_id <= ? AND number IS NOT NULL ORDER BY number`), []any{id, first, last}, func(rows *sql.Rows) error {
		t := study.FrozenTrial{
			StudyID: id, Value: math.NaN(), IntermediateValues: map[int]float64{},
			InternalParams: map[string]float64{}, Params: map[string]any{}, Distributions: map[string]any{},
			UserAttrs: map[string]string{}, SystemAttrs: map[string]string{},
		}
		var state string
		var start, complete nullTime
		err := rows.Scan(&t.ID, &t.Number, &state, &start, &complete)
		if err != nil {
			return err
		}
		if t.State, err = parseState(state); err != nil {
			return fmt.Errorf("trial %d: %w", t.Number, err)
		}
		t.DatetimeStart, t.DatetimeComplete = start.Time, complete.Time
		if want(t.ID) {
			index[t.ID] = len(trials)
			lowest, highest = min(lowest, t.ID), max(highest, t.ID)
		}
		trials = append(trials, t)
		return nil
	})
	if err != nil || len(index) == 0 {
		return trials, err
	}

	type scan = func(into ...any) (*study.FrozenTrial, error)
	// details reads a table that refers to trials, calling add for every row. Its
	// argument scans the row and returns the trial, or nil if that is not wanted.
	details := func(table, columns string, add func(scan) error) {
		if err != nil {
			return
		}
		err = each(ctx, q, d.query(fmt.Sprintf(`SELECT x.trial_id, %s FROM %s x JOIN trials t ON t.trial_id = x.trial_id
			WHERE t.study_id = ? AND x.trial_id >= ? AND x.trial_id <= ?`, columns, table)), []any{id, lowest, highest}, func(rows *sql.Rows) error {
			var number int
			err := add(func(into ...any) (*study.FrozenTrial, error) {
				var trial int
				if err := rows.Scan(append([]any{&trial}, into...)...); err != nil {
					return nil, err
				}
				i, ok := index[trial]
				if !ok {
					return nil, nil
				}
				number = trials[i].Number
				return &trials[i], nil
			})
			if err != nil {
				return fmt.Errorf("%s of trial %d: %w", table, number, err)
			}
			return nil
		})
	}
	details("trial_params", "x.param_name, x.param_value, x.distribution_json", func(scan scan) error {
		var name, text string
		var internal float64
		t, err := scan(&name, &internal, &text)
		if t == nil {
			return err
		}
		dist, err := study.UnmarshalDistribution([]byte(text))
		if err != nil {
			return fmt.Errorf("parameter %s: %w", name, err)
		}
		if c, ok := dist.(study.CategoricalDistribution); ok && !c.Contains(internal) {
			return fmt.Errorf("parameter %s: %v is no choice of %s", name, internal, text)
		}
		t.InternalParams[name], t.Params[name], t.Distributions[name] = internal, dist.ToExternalRepr(internal), dist
		return nil
	})
	details("trial_values", "x.objective, x.value, x.value_type", func(scan scan) error {
		var objective int
		var value sql.NullFloat64
		var kind string
		t, err := scan(&objective, &value, &kind)
		if t == nil {
			return err
		}
		if objective != 0 {
			return errors.New("there are several: want a study of one objective")
		}
		t.Value, err = decodeFloat(value, kind)
		return err
	})
	details("trial_intermediate_values", "x.step, x.intermediate_value, x.intermediate_value_type", func(scan scan) error {
		var step int
		var value sql.NullFloat64
		var kind string
		t, err := scan(&step, &value, &kind)
		if t == nil {
			return err
		}
		t.IntermediateValues[step], err = decodeFloat(value, kind)
		return err
	})
	details("trial_user_attributes", `x."key", x.value_json`, func(scan scan) error {
		var key, value string
		t, err := scan(&key, &value)
		if t != nil {
			t.UserAttrs[key] = value
		}
		return err
	})
	details("trial_system_attributes", `x."key", x.value_json`, func(scan scan) error {
		var key, value string
		t, err := scan(&key, &value)
		if t != nil {
			t.SystemAttrs[key] = value
		}
		return err
	})
	return trials, err
}
