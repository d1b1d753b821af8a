package sidecar

import (
	"math"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/container"
)

func TestMemoryIsDividedAmongEntriesAndClients(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name                     string
		entries, client          config.Size
		limit                    int64
		wantEntries, wantClients float64 // in MiB
		fits                     bool
	}{
		{"default container of 128 MiB", 0, 0, 102 * mib, 43.2, 27.9, true},
		{"no limit", 0, 0, math.MaxInt64, 128, 128, true},
		{"all for entries", 102 * mib, 0, 102 * mib, 102, 27.9, false},
		{"all for clients", 0, 100 * mib, 102 * mib, 43.2, 100, false},
		{"more for entries, less for clients", 70 * mib, 10 * mib, 102 * mib, 70, 10, true},
		{"container of 64 MiB", 0, 0, 51 * mib, 18.72, 12.09, true},
		{"container of 32 MiB", 0, 0, 25 * mib, 6.24, 4.03, true},
		{"less than the process needs", 0, 0, 10 * mib, 1, 1, false},
	} {
		got := divideMemory(config.Config{Memory: c.entries, ClientMemory: c.client}, c.limit)
		differs := func(got int64, want float64) bool { return math.Abs(float64(got)-want*mib) > 1 }
		if got.limit != c.limit || differs(got.entries, c.wantEntries) || differs(got.clients, c.wantClients) {
			t.Errorf("%s: got %+v, want %v MiB for entries and %v for clients", c.name, got, c.wantEntries, c.wantClients)
		}
		err := got.check()
		if (err == nil) != c.fits {
			t.Errorf("%s: got error %v, want that it fits: %v", c.name, err, c.fits)
		}
		if err != nil && !strings.Contains(err.Error(), "client_memory") {
			t.Errorf("%s: the error does not name the fields: %v", c.name, err)
		}
	}
}

func TestContainersWithTooLittleMemoryAreRejected(t *testing.T) {
	for limit, accepted := range map[uint64]bool{container.LeastMemory: true, math.MaxUint64: true, container.LeastMemory - 1: false, 0: false} {
		err := checkLimit(limit)
		if (err == nil) != accepted {
			t.Errorf("a limit of %d bytes: got %v, want that it is accepted: %t", limit, err, accepted)
		}
		if err != nil && !strings.Contains(err.Error(), "raise the limit") {
			t.Errorf("the error does not say what to do: %v", err)
		}
	}
}
