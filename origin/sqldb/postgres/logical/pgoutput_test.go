package logical

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/changefeed"
)

// Messages as PostgreSQL 15 sends them, in hexadecimal digits.
var messages = map[string]string{
	"begin":      "42 0000000001952ae0 0002e4a0c0ffee00 000002e5",
	"commit":     "43 00 0000000001952ae0 0000000001952b10 0002e4a0c0ffee00",
	"relation":   "52 00004001 7075626c696300 7200 66 0002 01 6b00 00000413 00000068 00 76657200 00000014 ffffffff",
	"insert":     "49 00004001 4e 0002 74 00000001 61 74 00000001 31",
	"update":     "55 00004001 4e 0002 74 00000001 61 75",
	"key update": "55 00004001 4b 0002 74 00000001 61 6e 4e 0002 74 00000001 62 74 00000001 32",
	"delete":     "44 00004001 4f 0002 74 00000001 61 74 00000001 32",
	"truncate":   "54 00000002 01 00004001 00004002",
	"type":       "59 00000413 00 7600",
	"origin":     "4f 0000000000000000 6f00",
	"emitted":    "4d 00 0000000001952ae0 7000 00000001 78",
}

func bytesOf(t testing.TB, digits string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMessages(t *testing.T) {
	for name, digits := range messages {
		data := bytesOf(t, digits)
		m, err := parseMessage(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		switch name {
		case "begin":
			if m.xid != 741 || m.at.Year() != 2025 {
				t.Errorf("begin: got xid %d at %v", m.xid, m.at)
			}
		case "commit":
			if m.end != 0x1952b10 {
				t.Errorf("commit: got %X", uint64(m.end))
			}
		case "relation":
			if m.table != 0x4001 || len(m.columns) != 2 || m.columns[0] != (column{"k", true}) || m.columns[1] != (column{"ver", false}) {
				t.Errorf("relation: got %+v", m)
			}
		case "key update":
			if string(m.before[0].text) != "a" || m.before[1].state != null || string(m.after[0].text) != "b" {
				t.Errorf("update: got %+v", m)
			}
		case "truncate":
			if len(m.truncated) != 2 || m.truncated[1] != 0x4002 {
				t.Errorf("truncate: got %v", m.truncated)
			}
		}
		if name == "type" || name == "origin" || name == "emitted" {
			continue // their content is of no use
		}
		for n := range data {
			if _, err := parseMessage(data[:n]); err == nil {
				t.Errorf("%s: the first %d bytes are accepted", name, n)
			}
		}
		if _, err := parseMessage(append(data, 0)); err == nil {
			t.Errorf("%s: a byte more is accepted", name)
		}
	}
	for name, digits := range map[string]string{
		"nothing": "", "unknown": "5a", "insert of an old row": "49 00004001 4f 0000 4e 0000", "delete of a new row": "44 00004001 4e 0000",
		"binary column": "49 00004001 4e 0001 62 00000001 61", "update without a new row": "55 00004001 4b 0000 4b 0000",
		"column of 4 GiB": "49 00004001 4e 0001 74 ffffffff 61", "2 000 000 000 tables": "54 77359400 00 00004001",
		"commit at the end of time": "42 0000000001952ae0 7fffffffffffffff 000002e5",
	} {
		if m, err := parseMessage(bytesOf(t, digits)); !errors.Is(err, errMalformed) {
			t.Errorf("%s: got %+v, %v", name, m, err)
		}
	}
}

func TestEnvelopes(t *testing.T) {
	e, err := parseEnvelope(bytesOf(t, "77 0000000000000001 0000000000000002 0002e4a0c0ffee00 42 43"))
	if err != nil || e.end != 2 || string(e.message) != "BC" {
		t.Errorf("got %+v, %v", e, err)
	}
	e, err = parseEnvelope(bytesOf(t, "6b 0000000000000002 0002e4a0c0ffee00 01"))
	if err != nil || e.end != 2 || e.message != nil || !e.reply {
		t.Errorf("got %+v, %v", e, err)
	}
	for _, digits := range []string{"", "77", "77 0000000000000001 0000000000000002 0002e4a0c0ffee00", "6b 0000000000000002 0002e4a0c0ffee00",
		"6b 0000000000000002 0002e4a0c0ffee00 01 00", "72"} {
		if e, err := parseEnvelope(bytesOf(t, digits)); !errors.Is(err, errMalformed) {
			t.Errorf("%q: got %+v, %v", digits, e, err)
		}
	}
	got := statusUpdate(0x0102, epoch.Add(time.Second), true)
	if want := bytesOf(t, "72 0000000000000102 0000000000000102 0000000000000102 00000000000f4240 01"); !bytes.Equal(got, want) {
		t.Errorf("got % x, want % x", got, want)
	}
}

// FuzzStream parses what a server may send, and takes the changes of it. It must neither panic nor report more than Missed and keys.
func FuzzStream(f *testing.F) {
	for _, digits := range messages {
		f.Add(append(bytesOf(f, "77 0000000000000001 0000000000000002 0002e4a0c0ffee00"), bytesOf(f, digits)...), []byte{})
		f.Add(bytesOf(f, "6b 0000000000000002 0002e4a0c0ffee00 01"), bytesOf(f, digits))
	}
	f.Fuzz(func(t *testing.T, data, second []byte) {
		e, err := parseEnvelope(data)
		if err != nil {
			return
		}
		tb := &table{name: "r", key: []string{"k"}, padded: []bool{false}, version: "ver"}
		var pending changefeed.Pending
		for _, text := range [][]byte{bytesOf(t, messages["relation"]), e.message, second} {
			m, err := parseMessage(text)
			if err != nil {
				continue
			}
			if m.kind == relation {
				err = tb.describe(m.columns)
			} else if m.after != nil || m.before != nil {
				err = tb.add(m, &pending)
			}
			if err != nil {
				return
			}
		}
		pending.Report(func(c origin.Changes) {
			for _, row := range c.Rows {
				if row.Version < 0 {
					t.Errorf("got version %d of %q", row.Version, row.Key)
				}
			}
		})
	})
}

// A large message is refused at its head, before its content is read, however the bytes arrive.
func TestFramesRefuseALargeMessage(t *testing.T) {
	small, large := "d\x00\x00\x00\x06ab", "d\x00\x00\x00\x0ffill memory"
	for name, slow := range map[string]func(io.Reader) io.Reader{
		"at once": func(r io.Reader) io.Reader { return r }, "by bytes": iotest.OneByteReader, "by halves": iotest.HalfReader,
	} {
		got, err := io.ReadAll(&frames{Reader: slow(strings.NewReader(small + small)), limit: 10})
		if err != nil || string(got) != small+small {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
		if _, err := io.ReadAll(&frames{Reader: slow(strings.NewReader(small + large)), limit: 10}); !errors.Is(err, errTooLarge) {
			t.Errorf("%s: got %v, want %v", name, err, errTooLarge)
		}
	}
	if _, err := io.ReadAll(&frames{Reader: strings.NewReader("d\x00\x00\x00\x03"), limit: 10}); !errors.Is(err, errMalformed) {
		t.Errorf("a negative length: got %v", err)
	}
}
