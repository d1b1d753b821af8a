package changefeed

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

func TestPendingIsLimitedAndReportsEachKeyOnce(t *testing.T) {
	var g Pending
	for i := range MaxPending {
		g.Add(fmt.Sprint(i), 1)
		g.Add(fmt.Sprint(i), 3)
		g.Add(fmt.Sprint(i), 2)
	}
	rows := 0
	for _, piece := range g.take() {
		if piece.Missed || len(piece.Rows) > maxRows {
			t.Fatalf("missed %v, %d rows", piece.Missed, len(piece.Rows))
		}
		for _, row := range piece.Rows {
			if rows++; row.Version != 3 {
				t.Fatalf("%+v, want version 3", row)
			}
		}
	}
	if rows != MaxPending || !g.Empty() {
		t.Errorf("%d rows, want %d; empty %v", rows, MaxPending, g.Empty())
	}
	for i := range MaxPending + 1 {
		g.Add(fmt.Sprint(i), 1)
	}
	g.Add("more", 1)
	if got, want := g.take(), []origin.Changes{{Missed: true}}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %d pieces for one key too many, want one Missed", len(got))
	}
}

// A row that was deleted and created again may have a lower version than before.
func TestPendingForgetsAVersionFromBeforeADeletion(t *testing.T) {
	for _, versions := range [][]int64{{7, 0, 1}, {0, 1}, {7, 0}} {
		var g Pending
		for _, v := range versions {
			g.Add("a", v)
		}
		if got := g.take()[0].Rows[0].Version; got != 0 {
			t.Errorf("%v: version %d", versions, got)
		}
	}
}

func TestNamesAreShortAndDistinct(t *testing.T) {
	long := strings.Repeat("x", 63)
	a, b := short("ringside_poll_"+long, "_insert"), short("ringside_poll_"+long+"y", "_insert")
	if len(a) > maxIdentifier || len(b) > maxIdentifier || a == b || !strings.HasSuffix(a, "_insert") {
		t.Errorf("%s, %s", a, b)
	}
	if got := short("ringside_poll_rows", "_insert"); got != "ringside_poll_rows_insert" {
		t.Error(got)
	}
}

// A table may have a name that looks like a tag.
func TestValuesOfTagsAreNotReplaced(t *testing.T) {
	parts := Parts("{{part a}}\nCREATE TABLE {{Name}};\n-- {{Dataset}} {{/* a comment */}}\n{{part b}}\n{{Inner}} {{MaxKey}}\n")
	tags := &Tags{Dataset: origin.Dataset{Name: "routes"}}
	if got, want := tags.Fill(parts["a"], map[string]string{"Name": "{{Dataset}}"}), "CREATE TABLE {{Dataset}};\n-- routes"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := tags.Fill(parts["b"], map[string]string{"Inner": "{{MaxKey}}"}), "{{MaxKey}} 1024"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
