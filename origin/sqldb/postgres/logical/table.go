package logical

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/changefeed"
)

// table is a table whose changes are reported: that of a dataset, or a partition or descendant of it.
type table struct {
	name       string // quoted, with its schema
	key        []string
	padded     []bool // of each column of the key: its type fills texts with blanks, which reads leave out
	version    string // column; empty if the dataset has none
	columns    []column
	keyAt      []int // indexes of the columns of the key
	versionAt  int   // -1 if there is none
	knowsOlder bool  // messages have the previous version
}

// describe takes the columns that the next messages have.
func (t *table) describe(columns []column) error {
	t.columns, t.keyAt, t.versionAt, t.knowsOlder = columns, t.keyAt[:0], -1, false
	for _, name := range t.key {
		i := slices.IndexFunc(columns, func(c column) bool { return c.name == name })
		switch {
		case i < 0:
			return fmt.Errorf("%w: the publication has no column %s of table %s", origin.ErrFeedUnavailable, name, t.name)
		case !columns[i].identity: //guard:changed-key-is-not-reported
			return t.errIdentity()
		}
		t.keyAt = append(t.keyAt, i)
	}
	if i := slices.IndexFunc(columns, func(c column) bool { return c.name == t.version }); t.version != "" && i >= 0 {
		t.versionAt, t.knowsOlder = i, columns[i].identity
	}
	return nil
}

// errIdentity says that an UPDATE or DELETE of the table does not tell which key it concerns.
func (t *table) errIdentity() error {
	return fmt.Errorf("%w: an UPDATE or DELETE of table %s does not tell the previous key, because its replica identity lacks a column of (%s): "+
		"make the primary key have these columns, or run ALTER TABLE %s REPLICA IDENTITY FULL, or REPLICA IDENTITY USING INDEX with a "+
		"unique index of columns that are NOT NULL", origin.ErrFeedUnavailable, t.name, strings.Join(t.key, ", "), t.name)
}

var errUndescribed = errors.New("the server has sent a row of a table without its columns, or with others")

// add adds the changes of a message about a row.
func (t *table) add(m message, pending *changefeed.Pending) error {
	if t.columns == nil || m.before != nil && len(m.before) != len(t.columns) || m.after != nil && len(m.after) != len(t.columns) {
		return errUndescribed //guard:row-with-missing-columns-panics
	}
	if m.after == nil {
		t.addKey(m.before, nil, 0, pending)
		return nil
	}
	t.addKey(m.after, m.before, t.versionOf(m), pending)
	if m.before != nil {
		t.addPrevious(m, pending)
	}
	return nil
}

// addPrevious adds the key that a row had, if it is another one.
func (t *table) addPrevious(m message, pending *changefeed.Pending) {
	was, hadKey, wasSent := t.keyOf(m.before, nil)
	is, hasKey, isSent := t.keyOf(m.after, m.before)
	if was != is || hadKey != hasKey || wasSent != isSent { //guard:previous-key-is-not-reported
		t.addKey(m.before, nil, 0, pending)
	}
}

// addKey adds the key of a row; fallback has the columns that were not sent again.
func (t *table) addKey(row, fallback []cell, version int64, pending *changefeed.Pending) {
	key, hasKey, sent := t.keyOf(row, fallback)
	switch {
	case !sent: //guard:unsent-key-is-ignored
		pending.Miss()
	case hasKey:
		pending.Add(key, version)
	}
}

// keyOf returns the key of a row as reads name it. hasKey is false for a row with NULL in a column of the key, and sent for
// one of which a column is not known.
func (t *table) keyOf(row, fallback []cell) (key string, hasKey, sent bool) {
	components := make([]string, len(t.keyAt))
	for i, at := range t.keyAt {
		c := row[at]
		if c.state == unchanged && fallback != nil { //guard:toasted-key-is-unknown
			c = fallback[at]
		}
		switch c.state {
		case null:
			return "", false, true
		case unchanged:
			return "", false, false
		}
		components[i] = string(c.text)
		if t.padded[i] {
			components[i] = strings.TrimRight(components[i], " ")
		}
	}
	return origin.JoinKey(components...), true, true
}

// versionOf returns the version of a new row, if it certainly exceeds all earlier ones of its key; otherwise 0.
func (t *table) versionOf(m message) int64 {
	if t.versionAt < 0 {
		return 0
	}
	now := number(m.after[t.versionAt])
	switch {
	case m.kind == insert:
		return now
	case m.before == nil || !t.knowsOlder: //guard:version-that-may-not-have-grown-is-reported
		return 0
	case now <= number(m.before[t.versionAt]):
		return 0
	}
	was, _, _ := t.keyOf(m.before, nil)
	is, _, _ := t.keyOf(m.after, m.before)
	if was != is { // another row
		return 0
	}
	return now
}

// number returns the content of a version; 0 for none, and for one beyond 64 bits.
func number(c cell) int64 {
	n, err := strconv.ParseInt(string(c.text), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}
