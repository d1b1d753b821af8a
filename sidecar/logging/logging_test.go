package logging_test

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/sidecar/logging"
)

// buffer is what loggers have written.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) count(s string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.text.String(), s)
}

func newLogger(t *testing.T, level string) (*zap.Logger, *buffer) {
	out := new(buffer)
	log, err := logging.New("json", level, out)
	if err != nil {
		t.Fatal(err)
	}
	return log, out
}

func TestRateLimitSaysWhatItDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, out := newLogger(t, "info")
		for range 1000 {
			log.With(zap.String("dataset", "a")).Warn("it failed")
		}
		log.Warn("something else")
		if n := out.count("it failed"); n != 20 {
			t.Errorf("got %d lines of a message in one second, want 20", n)
		}
		if n := out.count("something else"); n != 1 {
			t.Errorf("got %d lines of another message, want 1", n)
		}
		if n := logging.Dropped(log); n != 980 {
			t.Errorf("got %d dropped lines, want 980", n)
		}
		time.Sleep(11 * time.Second)
		if n := out.count(`"dropped":980`); n != 1 {
			t.Errorf("got %d reports of 980 dropped lines, want 1", n)
		}
		time.Sleep(time.Minute)
		if n := out.count("dropped"); n != 2 { // in the message and the field of the one report
			t.Errorf("a report without dropped lines: %d", n)
		}
		for range 30 {
			log.Warn("it failed")
		}
		_ = log.Sync()
		if n := out.count(`"dropped":10`); n != 1 {
			t.Errorf("got %d reports of 10 dropped lines before the end, want 1", n)
		}
		time.Sleep(11 * time.Second) // its timer ends
	})
}

func TestLevelCanChange(t *testing.T) {
	log, out := newLogger(t, "warn")
	derived := log.With(zap.Int("n", 1))
	derived.Info("before")
	logging.SetLevel(log, "debug")
	derived.Debug("after")
	if out.count("before") != 0 || out.count("after") != 1 {
		t.Errorf("got %d and %d lines, want 0 and 1", out.count("before"), out.count("after"))
	}
	logging.SetLevel(log, "nonsense")
	logging.SetLevel(zap.NewNop(), "info")
	if derived.Debug("still"); out.count("still") != 1 {
		t.Error("a level that does not exist has changed the level")
	}
	if n := logging.Dropped(zap.NewNop()); n != 0 {
		t.Errorf("another logger has dropped %d lines", n)
	}
}

func TestFormats(t *testing.T) {
	for format, want := range map[string]string{"json": `"level":"warn","time":`, "console": "\tWARN\t"} {
		out := new(buffer)
		log, err := logging.New(format, "info", out)
		if err != nil {
			t.Fatal(err)
		}
		if log.Warn("message"); out.count(want) != 1 {
			t.Errorf("%s: %s; want %q", format, out.text.String(), want)
		}
	}
	if _, err := logging.New("json", "loud", new(buffer)); err == nil {
		t.Error("a level that does not exist is accepted")
	}
}
