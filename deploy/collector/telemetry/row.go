// Package telemetry reads what a machine does now and says it as rows of the table cnf_metrics. README.md beside the
// main lists all rows.
package telemetry

import (
	"math"
	"strings"
	"time"
)

// Row is one metric at one moment.
type Row struct {
	ID     string // at most maxText bytes
	Type   string // at most maxText bytes
	Value  float64
	Unit   string
	Status string
	Time   time.Time
	// Lasting: the row stays as it is when it is not measured. Rows of things that come and go do not.
	Lasting bool
}

// What Row.Status may be.
const (
	OK       = "ok"
	Warn     = "warn"
	Critical = "critical"
	Gone     = "gone" // not measured any more: the process ended or is no longer among the top ones
)

// hostPrefix begins the ids of the host's own metrics.
const hostPrefix = "CNF-"

// maxText is what the narrowest column of the three schemas takes, in characters.
const maxText = 191

// Units of rows.
const (
	percent        = "percent"
	bytes          = "bytes"
	bytesPerSecond = "bytes_per_second"
	tasks          = "tasks"
	processes      = "processes"
	seconds        = "seconds"
)

// limits are the values at which a status begins; 0 is none.
type limits struct{ warn, critical float64 }

func (l limits) status(v float64) string {
	switch {
	case l.critical > 0 && v >= l.critical:
		return Critical
	case l.warn > 0 && v >= l.warn:
		return Warn
	}
	return OK
}

// The limits of all metrics that have any.
var (
	cpuLimits    = limits{80, 95}
	memoryLimits = limits{85, 95}
	swapLimits   = limits{50, 80}
	diskLimits   = limits{85, 95}
	// loadLimits are tasks for each core.
	loadLimits = limits{1, 2}
)

func (l limits) times(n int) limits {
	f := float64(max(n, 1))
	return limits{l.warn * f, l.critical * f}
}

// sheet collects the rows of one moment.
type sheet struct {
	prefix string // of all ids
	at     time.Time
	rows   []Row
}

// add leaves out what the table has no room for, and what is no number.
func (s *sheet) add(id, kind string, v float64, unit string, l limits) {
	lasting := strings.HasPrefix(id, hostPrefix)
	id, kind = clean(s.prefix+id), clean(kind)
	if len(id) > maxText || len(kind) > maxText || math.IsNaN(v) || math.IsInf(v, 0) {
		return
	}
	s.rows = append(s.rows, Row{
		ID: id, Type: kind, Value: v, Unit: unit, Status: l.status(v), Time: s.at, Lasting: lasting,
	})
}

// clean makes a text that any database takes of a name that a process or a mount gave itself.
func clean(name string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(name, "_"))
}
