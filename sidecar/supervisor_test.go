package sidecar

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"go.uber.org/zap/zapcore"

	"github.com/ringside-cache/ringside/sidecar/config"
)

// successor runs a sidecar, reads one row through it, and then runs the next one, of c, which gets what change makes of the saved bytes.
func successor(t *testing.T, file string, c config.Config, change func([]byte) []byte) *running {
	t.Helper()
	pipe := func() (r, w *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		return r, w
	}
	read, saved := pipe()
	old := begin(t, load(t, file), func(r *run) { r.supervisor.Next = saved })
	wantGet(t, old.at.HTTP, row, 200, rowJSON)
	old.supervisor.replaced.Store(true)
	old.end(t)
	var all bytes.Buffer
	if _, err := all.ReadFrom(read); err != nil {
		t.Fatal(err)
	}
	previous, w := pipe()
	if _, err := w.Write(change(all.Bytes())); err != nil { // it fits into the pipe
		t.Fatal(err)
	}
	w.Close()
	return begin(t, c, func(r *run) { r.supervisor.Previous = previous })
}

func unchanged(p []byte) []byte { return p }

// breakOrigin makes all further loads fail.
func breakOrigin(t *testing.T, c config.Config) {
	t.Helper()
	if err := os.WriteFile(c.Origins["db"].DSN.Reveal(), []byte("not a database, but as long as the header of one"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestNextProcessServesTheEntriesInAnOutage(t *testing.T) {
	file := newFile(t, "")
	c := load(t, file)
	next := successor(t, file, c, unchanged)
	wantGet(t, next.at.Metrics, "/metrics", 200, `ringside_restored_entries_total{dataset="metrics"} 1`)
	wantGet(t, next.at.Admin, "/api/explain?dataset=metrics&key=CNF-001", 200, `"cached":true`)
	breakOrigin(t, c)
	wantGet(t, next.at.HTTP, row, 200, rowJSON)
	wantGet(t, next.at.HTTP, "/v1/metrics/CNF-002", 503, "")
}

// A restored entry is as after a gap of a feed: nobody knows what has changed.
func TestNextProcessLoadsWhatItHasRestored(t *testing.T) {
	file := newFile(t, "")
	next := successor(t, file, load(t, file), unchanged)
	wantGet(t, next.at.HTTP, row, 200, rowJSON)
	wantGet(t, next.at.Metrics, "/metrics", 200, `ringside_requests_total{dataset="metrics",result="load"} 1`)
}

func TestWrongEntriesAreNotRestored(t *testing.T) {
	file := newFile(t, "")
	other := strings.Replace(read(t, file), "key: cnf_id", "key: cnf_id\n    columns: [cnf_id]", 1)
	for name, test := range map[string]struct {
		text   string
		change func([]byte) []byte
		lines  int
	}{
		"cut off":          {read(t, file), func(p []byte) []byte { return p[:len(p)-1] }, 1},
		"one bit is wrong": {read(t, file), func(p []byte) []byte { p[len(p)-20] ^= 1; return p }, 1},
		"other rows":       {other, unchanged, 0},
		"nothing":          {read(t, file), func([]byte) []byte { return nil }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			path := newFile(t, "")
			write(t, path, test.text)
			next := successor(t, file, load(t, path), test.change)
			if got := next.dataset().Memory().Entries; got != 0 {
				t.Errorf("%d entries are restored; want none", got)
			}
			if got := next.logs.FilterLevelExact(zapcore.WarnLevel).FilterMessageSnippet("entries of the previous process").Len(); got != test.lines {
				t.Errorf("%d warnings; want %d", got, test.lines)
			}
			wantGet(t, next.at.HTTP, "/v1/metrics/CNF-001", 200, "CNF-001")
		})
	}
}

// What the container has left bounds what is restored, not only the memory of the entries.
func TestRestoreStaysWithinTheRoom(t *testing.T) {
	file := newFile(t, "")
	old := begin(t, load(t, file), nil)
	wantGet(t, old.at.HTTP, row, 200, rowJSON)
	var saved bytes.Buffer
	if err := old.parts.datasets.Save(&saved); err != nil {
		t.Fatal(err)
	}
	next := begin(t, load(t, newFile(t, "")), nil) // another database: nothing
	if got, err := next.parts.datasets.Restore(bytes.NewReader(saved.Bytes()), func() int64 { return 1 << 20 }); err != nil || got.Entries != 0 {
		t.Errorf("from another database: got %+v, %v; want nothing", got, err)
	}
	for room, want := range map[int64]int{100: 0, 1 << 20: 1} {
		next := begin(t, load(t, file), nil)
		if got, err := next.parts.datasets.Restore(bytes.NewReader(saved.Bytes()), func() int64 { return room }); err != nil || got.Entries != want {
			t.Errorf("with room for %d bytes: got %+v, %v; want %d entries", room, got, err, want)
		}
	}
}
