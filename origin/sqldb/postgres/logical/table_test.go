package logical

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/changefeed"
)

// row writes cells: nil is NULL, and "~" a value that is not sent.
func row(texts ...any) (cells []cell) {
	for _, t := range texts {
		switch t {
		case nil:
			cells = append(cells, cell{state: null})
		case "~":
			cells = append(cells, cell{state: unchanged})
		default:
			cells = append(cells, cell{state: text, text: []byte(t.(string))})
		}
	}
	return cells
}

func TestChangesOfARow(t *testing.T) {
	type versions = map[string]int64
	for name, c := range map[string]struct {
		full   bool // the identity has every column
		m      message
		want   versions
		missed bool
	}{
		"insert":                       {false, message{kind: insert, after: row("a", "5", "x")}, versions{"a": 5}, false},
		"insert without version":       {false, message{kind: insert, after: row("a", nil, "x")}, versions{"a": 0}, false},
		"insert of a huge version":     {false, message{kind: insert, after: row("a", "99999999999999999999", "x")}, versions{"a": 0}, false},
		"insert of a negative version": {false, message{kind: insert, after: row("a", "-5", "x")}, versions{"a": 0}, false},
		"insert without a key":         {false, message{kind: insert, after: row(nil, "5", "x")}, versions{}, false},
		"update":                       {false, message{kind: update, after: row("a", "5", "x")}, versions{"a": 0}, false},
		"update of a large key":        {false, message{kind: update, after: row("~", "5", "x")}, nil, true},
		"update that keeps a large key": {
			true, message{kind: update, before: row("a", "4", "x"), after: row("~", "5", "x")}, versions{"a": 5}, false,
		},
		"raised version":    {true, message{kind: update, before: row("a", "4", "x"), after: row("a", "5", "~")}, versions{"a": 5}, false},
		"first version":     {true, message{kind: update, before: row("a", nil, "x"), after: row("a", "5", "x")}, versions{"a": 5}, false},
		"unchanged version": {true, message{kind: update, before: row("a", "5", "x"), after: row("a", "5", "y")}, versions{"a": 0}, false},
		"version that is not part of the identity": {
			false, message{kind: update, before: row("a", nil, nil), after: row("a", "5", "y")}, versions{"a": 0}, false,
		},
		"changed key": {false, message{kind: update, before: row("a", nil, nil), after: row("b", "5", "y")}, versions{"a": 0, "b": 0}, false},
		"changed key and version": {
			true, message{kind: update, before: row("a", "4", "x"), after: row("b", "5", "x")}, versions{"a": 0, "b": 0}, false,
		},
		"key that becomes NULL": {true, message{kind: update, before: row("a", "4", "x"), after: row(nil, "5", "x")}, versions{"a": 0}, false},
		"key that was NULL":     {true, message{kind: update, before: row(nil, "4", "x"), after: row("a", "5", "x")}, versions{"a": 0}, false},
		"delete":                {false, message{kind: remove, before: row("a", nil, nil)}, versions{"a": 0}, false},
	} {
		tb := &table{name: "r", key: []string{"k"}, padded: []bool{false}, version: "ver"}
		if err := tb.describe([]column{{"k", true}, {"ver", c.full}, {"v", c.full}}); err != nil {
			t.Fatal(err)
		}
		var pending changefeed.Pending
		if err := tb.add(c.m, &pending); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if pending.Missed != c.missed || !maps.Equal(pending.Versions, c.want) {
			t.Errorf("%s: got missed %v, %v; want %v, %v", name, pending.Missed, pending.Versions, c.missed, c.want)
		}
	}
}

func TestKeysOfARow(t *testing.T) {
	tb := &table{name: "r", key: []string{"b", "a"}, padded: []bool{true, false}}
	if err := tb.describe([]column{{"a", true}, {"x", false}, {"b", true}}); err != nil {
		t.Fatal(err)
	}
	var pending changefeed.Pending
	if err := tb.add(message{kind: insert, after: row("one ", "x", "t/o  ")}, &pending); err != nil {
		t.Fatal(err)
	}
	if want := map[string]int64{"t%2Fo/one ": 0}; !maps.Equal(pending.Versions, want) {
		t.Errorf("got %v, want %v", pending.Versions, want)
	}
	for _, m := range []message{
		{kind: insert, after: row("a", "b")}, {kind: remove, before: row("a", "b", "c", "d")},
		{kind: update, before: row("a"), after: row("a", "b", "c")},
	} {
		if err := tb.add(m, &pending); !errors.Is(err, errUndescribed) {
			t.Errorf("%+v: got %v", m, err)
		}
	}
	for _, columns := range [][]column{{{"a", true}, {"b", false}}, {{"a", true}}} {
		if err := tb.describe(columns); !errors.Is(err, origin.ErrFeedUnavailable) || !strings.Contains(err.Error(), "b") {
			t.Errorf("%v: got %v", columns, err)
		}
	}
}

func TestSnapshots(t *testing.T) {
	for text, sees := range map[string]map[uint32]bool{
		"4294967200:4294967290:": {4294967201: true, 4294967290: false, 5: false}, // 5 is after 2^32
		"700:700:":               {699: true, 700: false, 701: false, 3: true},
		"700:705:700,703":        {699: true, 700: false, 701: true, 703: false, 704: true, 705: false},
		"4294967290:4294967300:4294967295,4294967298": { // 2^32 is between them
			4294967289: true, 4294967295: false, 4294967294: true, 2: false, 3: true, 4: false, 7: false,
		},
	} {
		s, err := parseSnapshot(text)
		if err != nil {
			t.Fatal(err)
		}
		for xid, want := range sees {
			if got := s.sees(xid); got != want {
				t.Errorf("%s sees %d: got %v, want %v", text, xid, got, want)
			}
		}
	}
	for _, text := range []string{"", "1:2", "a:2:", "1:2:x", "3:2:", "1:9:5,4", "1:2:3:4"} {
		if s, err := parseSnapshot(text); err == nil {
			t.Errorf("%q: got %+v", text, s)
		}
	}
}

// A transaction may be in progress for reads although its commit is in the log before the slot: nothing reports its changes.
func TestFeedBeginsAfterTransactionsInProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := time.Now().Add(time.Minute)
		err := awaitVisible(t.Context(), func(context.Context) (snapshot, error) {
			if time.Now().Before(ended) {
				return snapshot{xmin: 700, xmax: 705, running: []uint64{700}}, nil
			}
			return snapshot{xmin: 710, xmax: 712, running: []uint64{710}}, nil
		})
		if err != nil || time.Now().Before(ended) {
			t.Errorf("begun %v before the transaction ended, %v", time.Until(ended), err)
		}
	})
}

func TestArrays(t *testing.T) {
	if got, want := array([]string{"a", `b"\`}), `{"a","b\"\\"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
