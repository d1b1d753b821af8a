package e2e

import (
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"
	"text/tabwriter"
)

var printPromises = flag.Bool("promises", false, "print a table of the promises that were measured")

// promise is one line of the table: what was promised, what was done, what was seen.
type promise struct {
	number, done, figure string
	n                    int
	held                 bool
}

var (
	promisesMu sync.Mutex // guards promises
	promises   []promise
)

// report notes the figure of a promise, and fails the test when it does not hold.
func report(t *testing.T, p promise) {
	t.Helper()
	promisesMu.Lock()
	defer promisesMu.Unlock()
	promises = append(promises, p)
	t.Logf("%s: %s: %s (n = %d)", p.number, p.done, p.figure, p.n)
	if !p.held {
		t.Errorf("promise %s does not hold: %s", p.number, p.figure)
	}
}

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if *printPromises {
		printTable()
	}
	os.Exit(code)
}

func printTable() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "promise\twhat was done\tfigure\tn\tholds")
	for _, p := range promises {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%v\n", p.number, p.done, p.figure, p.n, p.held)
	}
	w.Flush()
}
