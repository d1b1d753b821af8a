package rowset

import (
	"errors"
	"slices"
	"testing"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
)

// delivered is one result that a Set has passed on.
type delivered struct {
	key, value string
	err        error
}

// collecting returns a Set of values of at most maxBytes, and what it has delivered so far.
func collecting(t *testing.T, maxBytes int) (*Set, *[]delivered) {
	t.Helper()
	s, list := New(origin.Dataset{Name: "test", Value: "value"}, maxBytes), &[]delivered{}
	s.DeliverTo(func(key string, r origin.Result) {
		*list = append(*list, delivered{key, string(r.Value.Data), r.Err})
	})
	return s, list
}

func addRow(t *testing.T, s *Set, key, value string) {
	t.Helper()
	if err := s.Columns([]string{"value"}); err != nil {
		t.Fatal(err)
	}
	s.Row(key, []rowjson.Cell{rowjson.Text(value)})
}

func TestRowsAreDeliveredWhenTheyExceedOneValue(t *testing.T) {
	s, got := collecting(t, 10)
	keys := []string{"a", "b", "c", "none"}
	s.Begin(keys)
	addRow(t, s, "a", "12345678")
	if len(*got) != 0 {
		t.Errorf("got %v after 8 bytes; want nothing until there are more than 10", *got)
	}
	addRow(t, s, "b", "1234")
	if want := []delivered{{"a", "12345678", nil}, {"b", "1234", nil}}; !slices.Equal(*got, want) {
		t.Errorf("got %v after 12 bytes; want %v", *got, want)
	}
	addRow(t, s, "c", "1")
	s.Deliver(keys)
	want := []delivered{{"a", "12345678", nil}, {"b", "1234", nil}, {"c", "1", nil}, {"none", "", origin.ErrNotFound}}
	if !slices.Equal(*got, want) {
		t.Errorf("got %v; want %v", *got, want)
	}
	s.Deliver(keys)
	if len(*got) != len(want) {
		t.Errorf("delivered %v again; want each result once", (*got)[len(want):])
	}
}

func TestSecondRowOfAKeyIsAnErrorAlsoAfterTheFirstWasDelivered(t *testing.T) {
	for _, maxBytes := range []int{100, 1} {
		s, got := collecting(t, maxBytes)
		s.Begin([]string{"a"})
		addRow(t, s, "a", "1")
		addRow(t, s, "b", "2") // not requested: equal for the database only
		addRow(t, s, "a", "3")
		s.Deliver([]string{"a"})
		if last := (*got)[len(*got)-1]; last.key != "a" || last.err == nil || errors.Is(last.err, origin.ErrNotFound) {
			t.Errorf("with room for %d bytes the last result is %+v; want an error about two rows of a", maxBytes, last)
		}
	}
}

// The statement fails before its last row, so that there is no final Deliver.
func TestSecondRowAfterTheFirstWasDeliveredIsAnErrorAtOnce(t *testing.T) {
	s, got := collecting(t, 1)
	s.Begin([]string{"a"})
	for _, value := range []string{"1", "2", "3", "4"} {
		addRow(t, s, "b", value)
		addRow(t, s, "a", value)
	}
	errs := 0
	for _, d := range *got {
		if d.key == "a" && d.err != nil {
			errs++
		}
	}
	if errs != 1 {
		t.Errorf("got %v; want one error of a", *got)
	}
}

func TestKeysAreDeliveredAgainAfterAnotherAttempt(t *testing.T) {
	s, got := collecting(t, 1)
	s.Begin([]string{"a"})
	addRow(t, s, "a", "1")
	addRow(t, s, "b", "2")
	s.Begin([]string{"a"})
	addRow(t, s, "a", "3")
	s.Deliver([]string{"a"})
	if want := []delivered{{"a", "1", nil}, {"b", "2", nil}, {"a", "3", nil}}; !slices.Equal(*got, want) {
		t.Errorf("got %v; want %v", *got, want)
	}
}
