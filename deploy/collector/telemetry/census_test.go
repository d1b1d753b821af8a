package telemetry

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// plan returns the ids to write, with a mark for gone ones, and after a bar the ids to delete.
func planned(p Plan) string {
	var ids []string
	for _, row := range p.Write {
		if row.Status == Gone {
			row.ID += "(gone)"
		}
		ids = append(ids, row.ID)
	}
	return strings.Join(append(append(ids, "|"), p.Drop...), " ")
}

// rowsNamed returns rows with the ids of a list; uppercase ones are lasting.
func rowsNamed(ids string, at time.Time) (rows []Row) {
	for _, id := range strings.Fields(ids) {
		rows = append(rows, Row{ID: id, Status: OK, Time: at, Value: 7, Lasting: id == strings.ToUpper(id)})
	}
	return rows
}

func TestCensus(t *testing.T) {
	const keep = 60 * time.Second
	type step struct {
		after    time.Duration // since the previous step
		measured string
		want     string
		fails    bool // the write fails
	}
	tests := []struct {
		name  string
		held  []Row
		steps []step
	}{
		{"what stays is written each time", nil, []step{
			{0, "a b", "a b |", false},
			{time.Second, "a b", "a b |", false},
		}},
		{"gone is written once, then dropped", nil, []step{
			{0, "a b", "a b |", false},
			{time.Second, "b", "a(gone) b |", false},
			{time.Second, "b", "b |", false},
			{keep - time.Second - 1, "b", "b |", false},
			{1, "b", "b | a", false},
			{time.Second, "b", "b |", false},
		}},
		{"back before it is dropped", nil, []step{
			{0, "a", "a |", false},
			{time.Second, "", "a(gone) |", false},
			{time.Second, "a", "a |", false},
			{2 * keep, "a", "a |", false},
		}},
		{"back at the moment it would be dropped", nil, []step{
			{0, "a", "a |", false},
			{time.Second, "", "a(gone) |", false},
			{keep, "a", "a |", false},
		}},
		{"back after it was dropped", nil, []step{
			{0, "a", "a |", false},
			{0, "", "a(gone) |", false},
			{keep, "", "| a", false},
			{0, "a", "a |", false},
			{0, "", "a(gone) |", false},
		}},
		{"lasting rows never go", nil, []step{
			{0, "CNF-001 a", "CNF-001 a |", false},
			{time.Second, "a", "a |", false},
			{2 * keep, "a", "a |", false},
		}},
		{"what the table did not accept is written again", nil, []step{
			{0, "a b", "a b |", false},
			{time.Second, "b", "a(gone) b |", true},
			{time.Second, "b", "a(gone) b |", false},
			{keep, "b", "b | a", true},
			{time.Second, "b", "b | a", false},
			{time.Second, "b", "b |", false},
		}},
		{"rows that an earlier run left", append(rowsNamed("a b", noon), Row{ID: "c", Status: Gone}), []step{
			{0, "b", "a(gone) b |", false},
			{keep, "b", "b | a c", false},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, now := NewCensus(keep), noon
			c.Adopt(rowsNamed("z y", noon), now) // the table has been replaced
			c.Adopt(tt.held, now)
			for i, s := range tt.steps {
				now = now.Add(s.after)
				p := c.Plan(rowsNamed(s.measured, now), now)
				if got := planned(p); got != s.want {
					t.Fatalf("step %d: %q, want %q", i, got, s.want)
				}
				if !s.fails {
					c.Done(p)
				}
				for id := range c.present {
					if _, both := c.gone[id]; both {
						t.Fatalf("step %d: %s is present and gone", i, id)
					}
				}
			}
		})
	}
}

func TestGoneRowKeepsItsValue(t *testing.T) {
	c := NewCensus(time.Minute)
	c.Done(c.Plan(rowsNamed("a", noon), noon))
	later := noon.Add(time.Second)
	p := c.Plan(nil, later)
	want := Row{ID: "a", Value: 7, Status: Gone, Time: later}
	if !slices.Equal(p.Write, []Row{want}) {
		t.Errorf("got %+v, want %+v", p.Write, want)
	}
}

// Short-lived processes must not be remembered forever.
func TestCensusForgetsDroppedRows(t *testing.T) {
	c, now := NewCensus(time.Minute), noon
	for i := range 1000 {
		now = now.Add(time.Second)
		c.Done(c.Plan(rowsNamed(fmt.Sprint("p", i), now), now))
	}
	if len(c.gone) > 61 || len(c.present) != 1 {
		t.Errorf("%d gone and %d present are remembered", len(c.gone), len(c.present))
	}
}
