package e2e

import (
	"os"
	"testing"

	"github.com/ringside-cache/ringside/e2e/promises"
)

// promise is one measured promise: what was done, what was observed, and whether the promise held.
type promise struct {
	number, done, figure string
	n                    int
	held                 bool
}

// sampleOf returns the number of repetitions of a measurement: all of them for make promises, a quarter for make test. Both
// assert the same of each repetition.
func sampleOf(full int) int {
	if os.Getenv(promises.Env) != "" {
		return full
	}
	return full / 4
}

// report records a promise for the table of e2e/PROMISES.md and fails the test if it does not hold.
func report(t *testing.T, p promise) {
	t.Helper()
	promises.Record(t, promises.Promise{Number: p.number, Done: p.done, Figure: p.figure, N: p.n, Held: p.held})
}
