// Package telemetry measures a machine and returns the values as rows of the table cnf_metrics. The README.md of the
// collector lists all rows.
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
	// Lasting rows stay unchanged while they are not measured. Rows of devices and processes are not lasting.
	Lasting bool
}

// Values of Row.Status.
const (
	OK       = "ok"
	Warn     = "warn"
	Critical = "critical"
	Gone     = "gone" // no longer measured: the process ended or is no longer among the top ones
)

// hostPrefix is the prefix of the ids of the host's own metrics.
const hostPrefix = "CNF-"

// maxText is the length of the narrowest column of the three schemas, in characters.
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

// limits are the lowest values of a status; 0 means no limit.
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

// The limits of all metrics with limits.
var (
	cpuLimits    = limits{80, 95}
	memoryLimits = limits{85, 95}
	swapLimits   = limits{50, 80}
	diskLimits   = limits{85, 95}
	// loadLimits are tasks per core.
	loadLimits = limits{1, 2}
)

func (l limits) times(n int) limits {
	f := float64(max(n, 1))
	return limits{l.warn * f, l.critical * f}
}

// sheet collects the rows of one measurement.
type sheet struct {
	prefix string // of all ids
	at     time.Time
	rows   []Row
}

// add omits rows that do not fit into the table, and values that are not numbers.
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

// clean turns the name of a process or mount into a text that every database accepts.
func clean(name string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(name, "_"))
}
