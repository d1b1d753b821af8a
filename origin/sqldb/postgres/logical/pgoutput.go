package logical

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// lsn is a position in the write-ahead log.
type lsn uint64

// envelope is what a walsender sends in one CopyData (PostgreSQL, 55.4): a message of pgoutput, or a keepalive without one.
type envelope struct {
	end     lsn       // up to which the server has sent everything
	at      time.Time // by the server's clock
	reply   bool      // it wants an answer at once
	message []byte    // of pgoutput; nil in a keepalive
}

// The kinds of messages of pgoutput, version 1 (PostgreSQL, 55.9).
const (
	begin    = 'B'
	commit   = 'C'
	insert   = 'I'
	update   = 'U'
	remove   = 'D'
	truncate = 'T'
	relation = 'R'
	typeName = 'Y'
	originOf = 'O'
	emitted  = 'M'
)

// message is one message of pgoutput. Its bytes are those of the parsed text.
type message struct {
	kind byte
	xid  uint32    // of begin
	at   time.Time // of begin: when the transaction committed, by the server's clock
	end  lsn       // of commit: after the transaction

	table         uint32   // of insert, update, delete and relation: the OID
	truncated     []uint32 // of truncate: the OIDs
	columns       []column // of relation
	before, after []cell   // the row; nil if it was not sent. before has only the columns of the replica identity
}

// column is a column of a relation.
type column struct {
	name     string
	identity bool // it belongs to the replica identity: messages have its previous value
}

// cell is a column of a row.
type cell struct {
	state byte // null, unchanged or text
	text  []byte
}

// The states of a cell. Binary values are not requested.
const (
	null      = 'n'
	unchanged = 'u' // a large value, which is not sent again
	text      = 't'
)

// errMalformed says that bytes do not follow the protocol. Its text has none of them: they may be values of rows.
var errMalformed = errors.New("the server has sent a message that does not follow the protocol of logical replication")

// input is what remains of a message. After an error it is empty, and every value 0.
type input struct {
	rest []byte
	err  error
}

func (in *input) fail() { in.rest, in.err = nil, errMalformed }

func (in *input) take(n int) []byte {
	if n < 0 || n > len(in.rest) {
		in.fail() //guard:truncated-message-panics
		return nil
	}
	taken := in.rest[:n:n]
	in.rest = in.rest[n:]
	return taken
}

func (in *input) uint8() byte {
	if b := in.take(1); in.err == nil {
		return b[0]
	}
	return 0
}

func (in *input) uint16() int {
	if b := in.take(2); in.err == nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (in *input) uint32() uint32 {
	if b := in.take(4); in.err == nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (in *input) uint64() uint64 {
	if b := in.take(8); in.err == nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (in *input) text() string {
	end := bytes.IndexByte(in.rest, 0)
	if end < 0 {
		in.fail()
		return ""
	}
	text := in.take(end)
	in.take(1)
	return string(text)
}

// epoch is the origin of PostgreSQL's timestamps, which count microseconds.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func (in *input) time() time.Time {
	const longest = 1 << 53 // microseconds: what time.Duration can hold, with room
	t := int64(in.uint64())
	if t < -longest || t > longest {
		in.fail()
		return time.Time{}
	}
	return epoch.Add(time.Duration(t) * time.Microsecond)
}

// done returns the error, also if anything is left.
func (in *input) done() error {
	if in.err == nil && len(in.rest) > 0 {
		in.fail()
	}
	return in.err
}

// parseEnvelope parses the content of a CopyData.
func parseEnvelope(data []byte) (e envelope, err error) {
	in := &input{rest: data}
	switch in.uint8() {
	case 'w':
		in.uint64() // where the message begins
		e.end, e.at = lsn(in.uint64()), in.time()
		e.message, in.rest = in.rest, nil
		if in.err == nil && len(e.message) == 0 {
			in.fail()
		}
	case 'k':
		e.end, e.at = lsn(in.uint64()), in.time()
		e.reply = in.uint8() != 0
	default:
		in.fail()
	}
	return e, in.done()
}

// parseMessage parses a message of pgoutput. It rejects every message with a missing or a superfluous byte.
func parseMessage(data []byte) (m message, err error) {
	in := &input{rest: data}
	switch m.kind = in.uint8(); m.kind {
	case begin:
		in.uint64() // where the commit is
		m.at, m.xid = in.time(), in.uint32()
	case commit:
		in.uint8()  // flags
		in.uint64() // where the commit is
		m.end = lsn(in.uint64())
		in.time()
	case relation:
		m.table, m.columns = in.relation()
	case insert, update, remove:
		m.table = in.uint32()
		in.rows(&m)
	case truncate:
		m.truncated = in.tables()
	case typeName, originOf, emitted:
		in.rest = nil // of no use
	default:
		in.fail()
	}
	return m, in.done()
}

func (in *input) relation() (table uint32, columns []column) {
	table = in.uint32()
	in.text() // schema
	in.text() // name
	in.uint8()
	for n := in.uint16(); n > 0 && in.err == nil; n-- {
		const partOfIdentity = 1
		c := column{identity: in.uint8()&partOfIdentity != 0}
		c.name = in.text()
		in.uint32() // type
		in.uint32() // its modifier
		columns = append(columns, c)
	}
	return table, columns
}

// rows parses the previous row, if one follows, and the new one, if the message has one.
func (in *input) rows(m *message) {
	kind := in.uint8()
	if (kind == 'K' || kind == 'O') && m.kind != insert {
		m.before = in.row()
		if m.kind == update {
			kind = in.uint8()
		}
	} else if m.kind == remove {
		in.fail()
	}
	if m.kind == remove {
		return
	}
	if kind != 'N' {
		in.fail()
		return
	}
	m.after = in.row()
}

func (in *input) row() (cells []cell) {
	for n := in.uint16(); n > 0 && in.err == nil; n-- {
		c := cell{state: in.uint8()}
		switch c.state {
		case null, unchanged:
		case text:
			c.text = in.take(int(in.uint32()))
		default:
			in.fail()
		}
		cells = append(cells, c)
	}
	return cells
}

func (in *input) tables() (all []uint32) {
	n := in.uint32()
	in.uint8() // CASCADE, RESTART IDENTITY
	for ; n > 0 && in.err == nil; n-- {
		all = append(all, in.uint32())
	}
	return all
}

// statusUpdate is the answer of a standby: everything up to at has been handled. It asks for an answer at once if reply is set.
func statusUpdate(at lsn, now time.Time, reply bool) []byte {
	b := []byte{'r'}
	for range 3 { // received, flushed, applied
		b = binary.BigEndian.AppendUint64(b, uint64(at))
	}
	b = binary.BigEndian.AppendUint64(b, uint64(now.Sub(epoch).Microseconds()))
	if reply {
		return append(b, 1)
	}
	return append(b, 0)
}

func (l lsn) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }
