package rowset

import (
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
)

func expiryOf(t *testing.T, c rowjson.Cell) origin.Result {
	t.Helper()
	s := New(origin.Dataset{Name: "test", Value: "v", Expires: "until"}, 100)
	if err := s.Columns([]string{"v", "until"}); err != nil {
		t.Fatal(err)
	}
	s.Begin([]string{"k"})
	s.Row("k", []rowjson.Cell{rowjson.Text("value"), c})
	return s.Result("k")
}

func TestExpiryOfARow(t *testing.T) {
	for text, want := range map[string]int64{
		"1700000000": 1700000000e9, "1700000000.25": 17000000002500 * 1e5, "-1": -1e9, "0": 0, "2024-02-29T12:34:56.5Z": 17092100965 * 1e8,
		"2024-02-29T12:34:56+01:00": 1709206496e9,
	} {
		if r := expiryOf(t, rowjson.Text(text)); r.Err != nil || r.Value.Expires.UnixNano() != want {
			t.Errorf("%q: got %v, %v; want %d", text, r.Value.Expires, r.Err, want)
		}
	}
	for _, text := range []string{"", "soon", "12:00:00", "2024-02-29", "NaN", "Inf", "1e300", "253402300800", "true", "infinity"} {
		if r := expiryOf(t, rowjson.Text(text)); origin.CauseOf(r.Err) != origin.InvalidExpiry {
			t.Errorf("%q: got %v, %v; want a data error", text, r.Value.Expires, r.Err)
		}
	}
	if r := expiryOf(t, rowjson.Cell{Kind: rowjson.Null}); r.Err != nil || !r.Value.Expires.IsZero() {
		t.Errorf("NULL: got %v, %v; want no end", r.Value.Expires, r.Err)
	}
	if err := New(origin.Dataset{Expires: "none"}, 100).Columns([]string{"v"}); err == nil {
		t.Error("a column that does not exist is accepted")
	}
}

// FuzzExpiry: whatever a column has, its end is a time of these millennia, none, or an error.
func FuzzExpiry(f *testing.F) {
	for _, s := range []string{"1700000000", "2024-02-29T12:34:56Z", "1e308", "-0", "0x1p-2", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := expiryOf(t, rowjson.Text(text))
		if year := r.Value.Expires.UTC().Year(); r.Err == nil && (year < -7000 || year > 9999 || r.Value.Expires.Equal(time.Time{}) && text != "0001-01-01T00:00:00Z") {
			t.Errorf("%q: %v", text, r.Value.Expires)
		}
	})
}
