package rowjson

import (
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

// SQLite and MariaDB accept a column of JSON that has none, and text that is not UTF-8.
func TestContentIsWhatTheTextIs(t *testing.T) {
	for _, c := range []struct {
		cell Cell
		want origin.Content
	}{
		{Cell{Document, []byte(`{"a": [1]}`)}, origin.ContentJSON},
		{Cell{Document, []byte(`{"a": `)}, origin.ContentText},
		{Cell{Document, []byte("{\xff")}, origin.ContentBytes},
		{Cell{String, []byte("é")}, origin.ContentText},
		{Cell{String, []byte("\xe9")}, origin.ContentBytes},
		{Cell{String, nil}, origin.ContentText},
		{Cell{Bytes, []byte("a")}, origin.ContentBytes},
		{Cell{Literal, []byte("7")}, origin.ContentText},
	} {
		if got := c.cell.Content(); got != c.want {
			t.Errorf("%v %q: got %v, want %v", c.cell.Kind, c.cell.Text, got, c.want)
		}
	}
}
