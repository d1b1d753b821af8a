package rowset

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
)

// collectingMany returns a Set of keys with many rows, and what it has delivered so far.
func collectingMany(t *testing.T, ds origin.Dataset, maxBytes int, names ...string) (*Set, *[]delivered) {
	t.Helper()
	ds.Many = true
	s, list := New(ds, maxBytes), &[]delivered{}
	if err := s.Columns(names); err != nil {
		t.Fatal(err)
	}
	s.DeliverTo(func(key string, r origin.Result) {
		*list = append(*list, delivered{key, string(r.Value.Data), r.Err})
	})
	return s, list
}

func number(text string) rowjson.Cell { return rowjson.Number([]byte(text)) }

func TestRowsOfAKeyAreOrderedByTheirValues(t *testing.T) {
	for _, c := range []struct {
		ds   origin.Dataset
		want string
	}{
		{origin.Dataset{}, `[{"n":2,"v":"b"},{"n":9,"v":"a"},{"n":10,"v":"B"},{"n":10,"v":"b"}]`},
		{origin.Dataset{Order: []string{"v"}}, `[{"n":10,"v":"B"},{"n":9,"v":"a"},{"n":2,"v":"b"},{"n":10,"v":"b"}]`},
		{origin.Dataset{Order: []string{"-n", "-v"}}, `[{"n":10,"v":"b"},{"n":10,"v":"B"},{"n":9,"v":"a"},{"n":2,"v":"b"}]`},
		{origin.Dataset{Value: "v", Order: []string{"n"}}, `["b","a","B","b"]`},
		{origin.Dataset{Value: "v"}, `["B","a","b","b"]`},
		{origin.Dataset{Columns: []string{"n"}, Order: []string{"-v"}}, `[{"n":2},{"n":10},{"n":9},{"n":10}]`},
	} {
		s, got := collectingMany(t, c.ds, 1000, "n", "v")
		s.Begin([]string{"a", "none"})
		for _, row := range []struct{ n, v string }{{"10", "b"}, {"9", "a"}, {"2", "b"}, {"10", "B"}} {
			s.Row("a", []rowjson.Cell{number(row.n), rowjson.Text(row.v)})
			s.Row("A", []rowjson.Cell{number(row.n), rowjson.Text(row.v)}) // not requested: equal for the database only
		}
		if len(*got) != 0 {
			t.Errorf("got %v before the end of the statement", *got)
		}
		s.Deliver([]string{"a", "none"})
		if want := []delivered{{"a", c.want, nil}, {"none", "", origin.ErrNotFound}}; !slices.Equal(*got, want) {
			t.Errorf("%+v:\ngot  %v\nwant %v", c.ds, *got, want)
		}
	}
}

func TestRowsOfAnEarlierAttemptAreForgotten(t *testing.T) {
	s, got := collectingMany(t, origin.Dataset{Value: "v"}, 100, "v")
	for _, v := range []string{"1", "2"} {
		s.Begin([]string{"a"})
		s.Row("a", []rowjson.Cell{number(v)})
	}
	s.Deliver([]string{"a"})
	if want := []delivered{{"a", "[2]", nil}}; !slices.Equal(*got, want) {
		t.Errorf("got %v, want %v", *got, want)
	}
}

// A key over a limit is an error of this key, and its rows are not held.
func TestRowsOfAKeyAreLimited(t *testing.T) {
	for _, c := range []struct {
		maxRows int
		value   string
		want    string
	}{
		{2, "1", "more than 2 rows"}, {10, strings.Repeat("x", 40), "more than 100 bytes"},
	} {
		s, got := collectingMany(t, origin.Dataset{Value: "v", MaxRows: c.maxRows}, 100, "v")
		s.Begin([]string{"a", "b"})
		s.Row("b", []rowjson.Cell{number("1")})
		for range 3 {
			s.Row("a", []rowjson.Cell{rowjson.Text(c.value)})
		}
		if list := s.lists.byKey["a"]; list.rows != nil || s.lists.bytes >= 50 {
			t.Errorf("%d bytes are held after the error", s.lists.bytes)
		}
		s.Deliver([]string{"a", "b"})
		if first, second := (*got)[0], (*got)[1]; first.err == nil || !strings.Contains(first.err.Error(), c.want) || second.value != "[1]" {
			t.Errorf("got %v, want an error with %q, and [1]", *got, c.want)
		}
	}
	s, got := collectingMany(t, origin.Dataset{Columns: []string{"v"}, Order: []string{"long"}}, 100, "v", "long")
	s.Begin([]string{"a"})
	s.Row("a", []rowjson.Cell{number("1"), rowjson.Text(strings.Repeat("x", 801))})
	if s.Deliver([]string{"a"}); (*got)[0].err == nil || !strings.Contains((*got)[0].err.Error(), "order the rows") {
		t.Errorf("got %v, want an error about the columns of the order", *got)
	}
}

// Lists are complete only at the end of a statement; those of many keys must not be in memory all at once.
func TestStatementDoesNotHoldAllItsLists(t *testing.T) {
	s, _ := collectingMany(t, origin.Dataset{Value: "v"}, 100, "v")
	keys := strings.Split("abcdefghijklmnopqrstuvwxyz", "")
	s.Begin(keys)
	most := 0
	for _, key := range keys {
		for range 2 {
			s.Row(key, []rowjson.Cell{rowjson.Text(strings.Repeat("x", 40))})
			most = max(most, s.lists.bytes)
		}
	}
	if !s.Full() || most > 1700 {
		t.Errorf("full: %t after at most %d bytes; want full, with at most 16 values of 100 bytes", s.Full(), most)
	}
	s.Begin(keys[:1])
	if s.Full() {
		t.Error("still full in the next attempt")
	}
}

func TestColumnOfTheOrderIsMissing(t *testing.T) {
	err := New(origin.Dataset{Many: true, Order: []string{"-size"}}, 100).Columns([]string{"n"})
	var field *origin.FieldError
	if !errors.As(err, &field) || field.Field != "order" || !strings.Contains(err.Error(), `"size"`) {
		t.Errorf("got %v, want an error of order about size", err)
	}
}
