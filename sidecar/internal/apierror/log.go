package apierror

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

const (
	// logWindow is how long errors with the same text share one line of the log, and its id.
	logWindow = 10 * time.Second
	// logLines limits the lines of a window. Further errors share one more line.
	logLines = 20
	// maxLogBytes limits the text of a line, which has a stack after a panic.
	maxLogBytes = 8 << 10
)

// Line is one line of the log of a Log.
type Line struct {
	ID   string
	Kind kv.Kind
	Text string
	// Errors is the number of errors that had lines of the previous window, without those lines themselves.
	Repeated int64
	// TraceID and SpanID are those of the request, if it is traced.
	TraceID, SpanID string
}

// Log writes the texts of errors that clients do not see, and gives clients the id of the line. Errors with the same text
// share a line, so that an outage does not fill the log and each id that a client has is in the log.
type Log struct {
	write   func(Line)
	defects atomic.Int64

	mu       sync.Mutex        // guards the rest
	end      time.Time         // of the window
	ids      map[string]string // :: text → id of its line in this window
	repeated int64
}

// NewLog returns a Log of lines that write, which is called concurrently, adds to the log of the process.
func NewLog(write func(Line)) *Log { return &Log{write: write} }

// others stands for all texts beyond logLines.
const others = ""

// Report counts err if it is a defect, and returns the id of its line. A nil Log returns ids and writes no line.
func (l *Log) Report(err error) (id string) {
	if l == nil {
		return newID()
	}
	if kv.KindOf(err) == kv.KindInternal {
		l.defects.Add(1)
	}
	return l.Show(err)
}

// Show is Report for an error that is no failure of a request: it does not count it.
func (l *Log) Show(err error) (id string) {
	if l == nil {
		return newID()
	}
	kind, text := kv.KindOf(err), err.Error()
	key, _, _ := strings.Cut(text, "\n") // without the stack of a panic, which differs
	line, isNew := l.line(key)
	if isNew {
		var panicked interface{ PanicStack() []byte }
		if errors.As(err, &panicked) {
			text += "\n" + string(panicked.PanicStack())
		}
		if traced, ok := errors.AsType[*kv.TracedError](err); ok {
			line.TraceID, line.SpanID = traced.TraceID, traced.SpanID
		}
		line.Kind, line.Text = kind, text[:min(len(text), maxLogBytes)]
		l.write(line)
	}
	return line.ID
}

// Defects returns the number of reported errors that are defects of this program: panics, and errors without a kind.
func (l *Log) Defects() int64 { return l.defects.Load() }

// line finds or adds the line of a text.
func (l *Log) line(text string) (line Line, isNew bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); !now.Before(l.end) {
		line.Repeated, l.repeated = l.repeated, 0
		l.ids, l.end = make(map[string]string, 1), now.Add(logWindow)
	}
	if _, known := l.ids[text]; !known && len(l.ids) >= logLines { //guard:different-errors-fill-log
		text = others
	}
	id, known := l.ids[text]
	if known { //guard:outage-fills-log
		l.repeated++
		return Line{ID: id}, false
	}
	line.ID = newID()
	l.ids[text] = line.ID
	return line, true
}

func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
