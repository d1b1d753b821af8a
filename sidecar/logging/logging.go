// Package logging makes the logger of every program of this repository: one format, and a rate limit that says what it has left out.
package logging

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	// sameLines is how many lines with the same message are written in one second. A fault that repeats must not fill the disk of the
	// node.
	sameLines = 20
	// reportInterval is the time between two lines that say how many were dropped.
	reportInterval = 10 * time.Second
)

// Formats and Levels are the values of the flags and fields of the same names.
var (
	Formats = []string{"json", "console"}
	Levels  = []string{"debug", "info", "warn", "error"}
)

// New returns a logger of a format and a level that writes lines to w.
func New(format, level string, w io.Writer) (*zap.Logger, error) {
	l, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, fmt.Errorf("log level: %w", err)
	}
	out := zapcore.NewCore(newEncoder(format), zapcore.Lock(zapcore.AddSync(w)), zapcore.DebugLevel)
	shared := &shared{level: zap.NewAtomicLevelAt(l), out: out}
	limited := zapcore.NewSamplerWithOptions(out, time.Second, sameLines, 0, zapcore.SamplerHook(shared.note)) //guard:repeated-lines-fill-the-log
	return zap.New(&core{limited, shared}), nil
}

func newEncoder(format string) zapcore.Encoder {
	c := zap.NewProductionEncoderConfig()
	c.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	c.EncodeDuration = zapcore.StringDurationEncoder
	c.TimeKey = "time"
	if format == "console" {
		c.EncodeLevel = zapcore.CapitalLevelEncoder
		return zapcore.NewConsoleEncoder(c)
	}
	return zapcore.NewJSONEncoder(c)
}

// SetLevel changes the level of a logger that New has returned, and of those derived from it. It leaves others as they are.
func SetLevel(log *zap.Logger, level string) {
	l, err := zapcore.ParseLevel(level)
	if c, ok := log.Core().(*core); ok && err == nil {
		c.shared.level.SetLevel(l)
	}
}

// Dropped returns how many lines the rate limit of a logger that New has returned, and of those derived from it, has left out.
func Dropped(log *zap.Logger) int64 {
	if c, ok := log.Core().(*core); ok {
		return c.shared.dropped.Load()
	}
	return 0
}

// core is a zapcore.Core with a level that can change, and a rate limit.
type core struct {
	zapcore.Core
	shared *shared
}

// shared is what loggers that derive from one have in common.
type shared struct {
	level   zap.AtomicLevel
	out     zapcore.Core // without the limit
	dropped atomic.Int64

	mu       sync.Mutex // guards the fields below
	reported int64      // of dropped
	waiting  bool       // a report is due
}

// Enabled implements zapcore.LevelEnabler.
func (c *core) Enabled(l zapcore.Level) bool { return c.shared.level.Enabled(l) }

// With implements zapcore.Core.
func (c *core) With(fields []zapcore.Field) zapcore.Core { return &core{c.Core.With(fields), c.shared} }

// Check implements zapcore.Core.
func (c *core) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !c.Enabled(e.Level) {
		return checked
	}
	return c.Core.Check(e, checked)
}

// Sync implements zapcore.Core. It reports what was dropped: the process is about to end.
func (c *core) Sync() error {
	c.shared.report()
	return c.Core.Sync()
}

// note counts a line that was dropped, and makes a report of it due.
func (s *shared) note(_ zapcore.Entry, decision zapcore.SamplingDecision) {
	if decision&zapcore.LogDropped == 0 {
		return
	}
	s.dropped.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.waiting {
		s.waiting = true
		time.AfterFunc(reportInterval, s.report)
	}
}

// report writes one line that says how many were dropped since the one before.
func (s *shared) report() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = false
	n := s.dropped.Load() - s.reported
	if n == 0 {
		return
	}
	s.reported += n
	e := zapcore.Entry{Level: zapcore.WarnLevel, Time: time.Now(), Message: "the rate limit of the log has dropped lines with the messages before"}
	_ = s.out.Write(e, []zapcore.Field{zap.Int64("dropped", n)}) //guard:dropped-lines-are-not-reported
}
