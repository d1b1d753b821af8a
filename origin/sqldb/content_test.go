package sqldb_test

import (
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

// sharedContents are the columns of the table shared that are not text.
var sharedContents = map[string]origin.Content{"raw": origin.ContentBytes, "doc": origin.ContentJSON}

// The type of a column decides what its values are, in reads and in the results of writes.
func testContentOfEachColumn(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE shared ("+shared[d.driver].columns+")")
	d.exec(t, "INSERT INTO shared VALUES ("+shared[d.driver].values+")")
	for _, column := range []string{"small", "big", "flag", "d", "price", "name", "raw", "day", "at", "clock", "id", "doc", "empty"} {
		want := origin.ContentText
		if c, ok := sharedContents[column]; ok {
			want = c
		}
		rows := d.rows(t, origin.Dataset{Table: "shared", Key: []string{"k"}, Version: "ver", Value: column})
		v := loadOne(t, rows, "k")
		if v.Content != want {
			t.Errorf("%s: read %v, want %v", column, v.Content, want)
		}
		w, err := rows.Write(soon(t), origin.Change{Key: "k", Data: v.Data})
		if err != nil || w.Content != want {
			t.Errorf("%s: wrote %v, %v; want %v", column, w.Content, err, want)
		}
	}
	if v := loadOne(t, d.dataset(t, origin.Dataset{Table: "shared", Key: []string{"k"}}), "k"); v.Content != origin.ContentJSON {
		t.Errorf("row: got %v", v.Content)
	}
}

// The protocol of MariaDB does not say that a LONGTEXT is JSON.
func testContentOfAQuery(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE shared ("+shared[d.driver].columns+")")
	d.exec(t, "INSERT INTO shared VALUES ("+shared[d.driver].values+")")
	for column, want := range map[string]origin.Content{
		"name": origin.ContentText, "raw": origin.ContentBytes, "doc": origin.ContentJSON, "price": origin.ContentText,
	} {
		if d.is("mariadb") && column == "doc" {
			want = origin.ContentText
		}
		parameter := d.placeholders("?")
		ds := origin.Dataset{Query: "SELECT * FROM shared WHERE k = " + parameter, Value: column}
		if v := loadOne(t, d.dataset(t, ds), "k"); v.Content != want {
			t.Errorf("%s: got %v, want %v", column, v.Content, want)
		}
	}
}
