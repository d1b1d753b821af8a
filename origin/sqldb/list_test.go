package sqldb_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

func testList(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k BIGINT PRIMARY KEY, kind VARCHAR(9), n INT, hidden VARCHAR(9), ver BIGINT)")
	for i := range 30 {
		kind := []string{"cpu", "CPU", "it''s"}[i%3]
		d.exec(t, fmt.Sprintf("INSERT INTO r VALUES (%d, '%s', %d, 'h', %d)", i*5, kind, i, i))
	}
	w := d.rows(t, origin.Dataset{Table: "r", Key: []string{"k"}, Version: "ver", Columns: []string{"kind", "n"}})
	for _, c := range []struct {
		query origin.ListQuery
		want  string // keys
	}{
		{origin.ListQuery{Limit: 3}, "0 5 10"},
		{origin.ListQuery{Limit: 3, After: "9"}, "10 15 20"},
		{origin.ListQuery{Limit: 3, After: "-1"}, "0 5 10"},
		{origin.ListQuery{Limit: 3, After: "145"}, ""},
		{origin.ListQuery{Limit: 3, Where: map[string]string{"kind": "cpu"}}, "0 15 30"},
		{origin.ListQuery{Limit: 3, Where: map[string]string{"kind": "CPU"}}, "5 20 35"},
		{origin.ListQuery{Limit: 3, Where: map[string]string{"kind": "it's", "n": "5"}}, "25"},
		{origin.ListQuery{Limit: 3, Where: map[string]string{"kind": "cpu "}}, ""},
		{origin.ListQuery{Limit: 3, Where: map[string]string{"ver": "7", "k": "35"}}, "35"},
	} {
		page, err := w.List(soon(t), c.query)
		var keys []string
		for _, row := range page {
			keys = append(keys, row.Key)
			if v := loadOne(t, w, row.Key); string(v.Data) != string(row.Value.Data) || v.Version != row.Value.Version {
				t.Errorf("%s: listed %s, loaded %s", row.Key, row.Value.Data, v.Data)
			}
		}
		if got := strings.Join(keys, " "); err != nil || got != c.want {
			t.Errorf("%+v: %q, %v; want %q", c.query, got, err, c.want)
		}
	}
	for _, c := range []struct {
		query origin.ListQuery
		want  error
		text  string
	}{
		{origin.ListQuery{Limit: 0}, nil, "want 1 to 1000"}, {origin.ListQuery{Limit: 1001}, nil, "want 1 to 1000"},
		{origin.ListQuery{Limit: 1, After: "x"}, origin.ErrInvalidKey, "integer"},
		{origin.ListQuery{Limit: 1, After: "\xff"}, origin.ErrInvalidKey, "UTF-8"},
		{origin.ListQuery{Limit: 1, Where: map[string]string{"hidden": "h"}}, origin.ErrInvalidValue, "column hidden"},
		{origin.ListQuery{Limit: 1, Where: map[string]string{"''; --": "h"}}, origin.ErrInvalidValue, "no such column"},
		{origin.ListQuery{Limit: 1, Where: map[string]string{"n": "five"}}, origin.ErrInvalidValue, "column n"},
	} {
		_, err := w.List(soon(t), c.query)
		if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%+v: got %v, want %v, %q", c.query, err, c.want, c.text)
		}
	}
}

// A page of large rows must neither fill the memory nor omit rows.
func testListOfLargeRows(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, v "+
		map[string]string{"postgres": "TEXT", "mysql": "LONGTEXT", "sqlite": "TEXT"}[d.driver]+")")
	mark := map[bool]string{true: "($1, $2)", false: "(?, ?)"}[d.driver == "postgres"]
	for i := range 20 {
		d.exec(t, "INSERT INTO r VALUES "+mark, fmt.Sprintf("key-%02d", i), strings.Repeat("x", 1<<20-100))
	}
	w := d.rows(t, origin.Dataset{Table: "r", Key: []string{"k"}})
	if page, err := w.List(soon(t), origin.ListQuery{Limit: 15}); err != nil || len(page) != 15 {
		t.Errorf("%d rows, %v", len(page), err)
	}
	_, err := w.List(soon(t), origin.ListQuery{Limit: 20})
	if err == nil || !strings.Contains(err.Error(), "request fewer rows") {
		t.Errorf("got %v", err)
	}
	d.exec(t, "INSERT INTO r VALUES "+mark, "huge", strings.Repeat("x", 1<<20))
	_, err = w.List(soon(t), origin.ListQuery{Limit: 2, After: "a"})
	if err == nil || !strings.Contains(err.Error(), `"huge"`) {
		t.Errorf("a row over the limit: %v", err)
	}
}

// The empty key cannot be requested; neither it nor a NULL key may make a page shorter than its limit.
func testListWithoutTheEmptyKey(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(9), v INT)")
	d.exec(t, "INSERT INTO r VALUES ('', 1), ('a', 2), ('b', 3), (NULL, 4)")
	page, err := d.rows(t, origin.Dataset{Table: "r", Key: []string{"k"}, Value: "v"}).List(soon(t), origin.ListQuery{Limit: 2})
	keys := map[string]bool{}
	for _, row := range page {
		keys[row.Key] = true
	}
	if got := slices.Sorted(maps.Keys(keys)); err != nil || !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("%v, %v", got, err)
	}
}
