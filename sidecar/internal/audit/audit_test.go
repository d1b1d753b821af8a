package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/caller"
)

func run(l *Log) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = l.Run(ctx) })
	return func() { cancel(); running.Wait() }
}

func ignore(error) {}

func TestLines(t *testing.T) {
	var out bytes.Buffer
	l := New(&out, ignore)
	unix := caller.Caller{Kind: caller.Unix, UID: 1000, GID: 2000, PID: 7}
	l.Record(Event{Action: Put, Caller: unix, Dataset: "d", Key: "a\n\x1b[31m\"", Result: OK})
	l.Record(Event{Action: Handshake, Caller: caller.Caller{Addr: "10.0.0.1:5"}, Result: "rejected", Detail: "expired", Refused: true})
	l.Record(Event{Action: Invalidate, Caller: caller.Caller{Kind: caller.Token, ID: "x"}, Dataset: "d", All: true, Result: OK})
	l.Record(Event{Action: Reload, Result: OK})
	run(l)()
	var lines []string
	for text := range strings.Lines(out.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatalf("%v: %q", err, text)
		}
		at, err := time.Parse(time.RFC3339Nano, m["time"].(string))
		if err != nil || time.Since(at) > time.Hour {
			t.Errorf("time %v: %v", m["time"], err)
		}
		_, rest, _ := strings.Cut(text, `",`)
		lines = append(lines, strings.TrimSpace(rest))
	}
	for i, want := range []string{
		`"action":"put","result":"ok","caller":"unix:uid=1000,gid=2000","pid":7,"dataset":"d","key":"a\n\u001b[31m\""}`,
		`"action":"handshake","result":"rejected","caller":"unknown","address":"10.0.0.1:5","detail":"expired"}`,
		`"action":"invalidate","result":"ok","caller":"token:x","dataset":"d","all":true}`,
		`"action":"reload","result":"ok"}`,
	} {
		if i >= len(lines) || lines[i] != want {
			t.Fatalf("got  %q\nwant %s as line %d", lines, want, i)
		}
	}
	if s := l.Stats(); s.Written != 4 || s.Dropped != 0 {
		t.Errorf("got %+v", s)
	}
}

func TestManyKeysAreCutOff(t *testing.T) {
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = strings.Repeat("k", 1024)
	}
	var r record
	if err := json.Unmarshal(Event{Keys: keys}.line(time.Now()), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Keys) != 16 || r.MoreKeys != 984 {
		t.Errorf("%d keys and %d more, want 16 and 984", len(r.Keys), r.MoreKeys)
	}
}

// blocked is a writer that writes when it is released.
type blocked struct {
	release chan struct{}
	bytes.Buffer
}

func (b *blocked) Write(p []byte) (int, error) {
	<-b.release
	return b.Buffer.Write(p)
}

// A log that cannot be written blocks no caller, has a bound, and says how much it has lost.
func TestBlockedLogDropsAndCounts(t *testing.T) {
	out := &blocked{release: make(chan struct{})}
	l := New(out, ignore)
	stop := run(l)
	const n = 100_000
	for range n {
		l.Record(Event{Action: Put, Result: OK, Key: strings.Repeat("k", 100)})
	}
	l.mu.Lock()
	queued := l.queue.Len()
	l.mu.Unlock()
	if queued > maxQueued {
		t.Errorf("%d bytes are queued, want at most %d", queued, maxQueued)
	}
	close(out.release)
	stop()
	var dropped, puts int64
	for text := range strings.Lines(out.String()) {
		var r record
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		dropped += r.Dropped
		if r.Action == Put {
			puts++
		}
	}
	if s := l.Stats(); dropped == 0 || dropped+puts != n || s.Dropped != dropped {
		t.Errorf("%d lines, %d dropped, together want %d; stats %+v", puts, dropped, n, s)
	}
}

// A flood of refused requests leaves room for the lines about changes.
func TestRefusedRequestsDoNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := New(&out, ignore)
		for range 100_000 { // at one time
			l.Record(Event{Action: Access, Result: "permission-denied", Refused: true})
		}
		l.Record(Event{Action: Put, Result: OK, Key: "kept"})
		run(l)()
		if !strings.Contains(out.String(), `"key":"kept"`) {
			t.Error("the line about the change is lost")
		}
		if n := strings.Count(out.String(), "permission-denied"); n != refusedBurst {
			t.Errorf("%d lines about refused requests, want %d", n, refusedBurst)
		}
	})
}

// full is a disk with room for some bytes.
type full struct {
	bytes.Buffer
	room int
}

func (f *full) Write(p []byte) (int, error) {
	n := min(len(p), f.room)
	f.room -= n
	f.Buffer.Write(p[:n])
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func TestFullDiskCostsOnlyLines(t *testing.T) {
	out := &full{room: 400}
	var failures []error
	l := New(out, func(err error) { failures = append(failures, err) })
	for range 10 {
		l.Record(Event{Action: Put, Result: OK, Key: "early"})
	}
	l.flush()
	l.Record(Event{Action: Put, Result: OK, Key: "early"})
	l.flush()
	if len(failures) != 1 || !errors.Is(failures[0], syscall.ENOSPC) {
		t.Errorf("reported %v, want one failure", failures)
	}
	out.room = 1 << 20
	l.Record(Event{Action: Put, Result: OK, Key: "late"})
	l.flush()
	early, missing, late, partial := int64(0), int64(0), 0, 0
	for text := range strings.Lines(out.String()) {
		var r record
		switch err := json.Unmarshal([]byte(text), &r); {
		case err != nil:
			partial++
		case r.Key == "early":
			early++
		case r.Key == "late":
			late++
		default:
			missing += r.Dropped
		}
	}
	if partial != 1 || late != 1 || early+missing != 11 || missing == 0 || l.Stats().Dropped != missing {
		t.Errorf("%d early, %d missing, %d late, %d partial, stats %+v:\n%s", early, missing, late, partial, l.Stats(), &out.Buffer)
	}
}

func TestFileIsOpenedAgainOnHangup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l, err := Open(path, ignore)
	if err != nil {
		t.Fatal(err)
	}
	stop := run(l)
	defer stop()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v, want 0600", info.Mode(), err)
	}
	await := func(file, text string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			if content, err := os.ReadFile(file); err == nil && strings.Contains(string(content), text) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s has no %q", file, text)
			}
		}
	}
	l.Record(Event{Action: Put, Key: "first", Result: OK})
	await(path, "first")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	await(path, "") // the new file exists
	l.Record(Event{Action: Put, Key: "second", Result: OK})
	stop()
	await(path, "second")
	if old, err := os.ReadFile(path + ".1"); err != nil || strings.Contains(string(old), "second") {
		t.Errorf("the moved file: %v, %s", err, old)
	}
}

func TestNilLogDoesNothing(t *testing.T) {
	var l *Log
	l.Record(Event{Action: Put})
	if s := l.Stats(); s != (Stats{}) {
		t.Errorf("got %+v", s)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "no", "dir"), ignore); err == nil {
		t.Error("a file in a missing folder is opened")
	}
}
