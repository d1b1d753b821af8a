package changefeed

import (
	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
)

const (
	// MaxPending limits the keys that wait to be reported. If more have changed, it costs less to report that any row may
	// have.
	MaxPending = 10_000
	// maxRows limits the rows of one origin.Changes.
	maxRows = 1000
)

// Pending are changes that wait to be reported. It belongs to one goroutine.
type Pending struct {
	Missed   bool
	Versions map[string]int64 // :: key → version of its row now; 0: unknown
}

// Miss records that any row may have changed, and forgets which did.
func (p *Pending) Miss() { p.Missed, p.Versions = true, nil }

// Empty reports whether there is nothing to report.
func (p *Pending) Empty() bool { return !p.Missed && len(p.Versions) == 0 }

// Add records a change of a row.
func (p *Pending) Add(key string, version int64) {
	if p.Missed || len(key) > rowset.MaxKeyBytes {
		return // no such key can be loaded
	}
	known, ok := p.Versions[key]
	switch {
	case !ok && len(p.Versions) == MaxPending: //guard:pending-keys-without-limit
		p.Miss()
		return
	case p.Versions == nil:
		p.Versions = make(map[string]int64)
	case ok && (known == 0 || version == 0): // the row may have had any version in between
		known, version = 0, 0 //guard:version-from-before-deletion
	}
	p.Versions[key] = max(known, version)
}

// take returns the changes in pieces, and forgets them.
func (p *Pending) take() (pieces []origin.Changes) {
	if p.Missed {
		pieces = append(pieces, origin.Changes{Missed: true})
	}
	var rows []origin.Changed
	for key, version := range p.Versions {
		rows = append(rows, origin.Changed{Key: key, Version: version})
		if len(rows) == maxRows {
			pieces, rows = append(pieces, origin.Changes{Rows: rows}), nil
		}
	}
	if len(rows) > 0 {
		pieces = append(pieces, origin.Changes{Rows: rows})
	}
	*p = Pending{}
	return pieces
}

// Report passes the changes to handle, and forgets them.
func (p *Pending) Report(handle func(origin.Changes)) {
	for _, piece := range p.take() {
		handle(piece)
	}
}
