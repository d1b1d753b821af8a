package peer_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain runs more tests at once than there are processors: they wait, most of the time.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
