package mlflow

import (
	"testing"

	"go.uber.org/goleak"
)

// No test may leave a goroutine.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
