package criteria

import (
	"context"
	"errors"
	"fmt"
)

// withCause makes sure that an error that the end of ctx led to is both ctx.Err()
// and, if there is one, the cause that the caller gave: either may be what is
// looked for.
func withCause(ctx context.Context, err error) error {
	ended, cause := ctx.Err(), context.Cause(ctx)
	if err == nil || ended == nil || !errors.Is(err, ended) && !errors.Is(err, cause) {
		return err
	}
	for _, missing := range []error{ended, cause} {
		if !errors.Is(err, missing) {
			err = fmt.Errorf("%w: %w", err, missing)
		}
	}
	return err
}
