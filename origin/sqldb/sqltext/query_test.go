package sqltext

import "testing"

func TestExpandWritesOneParameterPerKey(t *testing.T) {
	for _, c := range []struct {
		columns []string
		rows    string
		keys    int
		want    string
	}{
		{nil, "VALUES ", 1, "(?)"}, {[]string{"a"}, "VALUES ", 3, "(?,?,?)"},
		{[]string{"a", "b"}, "", 1, "((?,?))"}, {[]string{"a", "b"}, "VALUES ", 2, "(VALUES (?,?),(?,?))"},
	} {
		q := &Query{SQL: "SELECT k FROM r WHERE k IN (?)", List: true, Key: c.columns}
		if got, want := q.Expand(c.keys, c.rows), "SELECT k FROM r WHERE k IN "+c.want; got != want {
			t.Errorf("%d keys of %q: %s; want %s", c.keys, c.columns, got, want)
		}
	}
}
