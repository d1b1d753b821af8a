// Package promises records what the tests of promises have measured, for the table of `make promises`.
package promises

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// Env names the environment variable with the path of the file that Record appends to. e2e/promises.sh sets
// it and makes a table of the file.
const Env = "RINGSIDE_PROMISES"

// Promise is one row of the table of promises: what was done, what was observed, and whether the promise held.
type Promise struct {
	Number, Done, Figure string
	N                    int
	Held                 bool
}

// Record logs a promise, records it for the table, and fails the test if the promise did not hold.
func Record(t testing.TB, p Promise) {
	t.Helper()
	t.Logf("%s: %s: %s (n = %d)", p.Number, p.Done, p.Figure, p.N)
	if !p.Held {
		t.Errorf("promise %s does not hold: %s", p.Number, p.Figure)
	}
	if path := os.Getenv(Env); path != "" {
		if err := appendLine(path, p.row()); err != nil {
			t.Errorf("record promise %s: %v", p.Number, err)
		}
	}
}

func (p Promise) row() string {
	held := "yes"
	if !p.Held {
		held = "**no**"
	}
	cell := strings.NewReplacer("|", "\\|", "\n", " ").Replace
	return fmt.Sprintf("| %s | %s | %s | %d | %s |\n", p.Number, cell(p.Done), cell(p.Figure), p.N, held)
}

// appendLine adds one line to a file. Writers in other processes may append at the same time.
func appendLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(line); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
