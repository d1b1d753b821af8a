package changefeed

import (
	"context"
	"database/sql"
	"testing"
	"testing/synctest"
	"time"
)

// log counts the reads, which are its positions.
type log struct {
	position int
	pruned   []int // the positions up to which rows were deleted
}

func (l *log) Begin(context.Context, *sql.Conn) error { return nil }

func (l *log) Next(context.Context, *sql.Conn, int) ([]Recorded, bool, error) { return nil, false, nil }

func (l *log) Mark() any { return l.position }

func (l *log) Prune(_ context.Context, _ *sql.Conn, mark any, _ Retention, _ int) (int64, error) {
	l.pruned = append(l.pruned, mark.(int))
	return 0, nil
}

func (l *log) Bounds(context.Context, *sql.Conn) (Bounds, error) { return Bounds{3, 7}, nil }

// A row is deleted only after every other reader has had time to read it.
func TestPrunerWaitsForOtherReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &log{}
		p := &pruner{Retention: Retention{Rows: 9, Grace: DefaultGrace}, log: l}
		began := time.Now()
		for range 1200 { // a read each second; the position is the second
			l.position = int(time.Since(began) / time.Second)
			before := len(l.pruned)
			if err := p.run(t.Context(), nil, l.Bounds); err != nil {
				t.Fatal(err)
			}
			for _, position := range l.pruned[before:] {
				if seen := l.position - position; seen < int(DefaultGrace/time.Second) {
					t.Fatalf("rows that were visible for %d s were deleted, want %v", seen, DefaultGrace)
				}
			}
			time.Sleep(time.Second)
		}
		if n := len(l.pruned); n < 10 || n > 20 {
			t.Errorf("deleted rows %d times in 20 minutes, want once a minute after the first", n)
		}
		if s := p.LogStats(); s.Rows != 5 || s.MaxRows != 9 {
			t.Errorf("got %+v, want 5 rows of 9", s)
		}
		l.pruned = nil
		p.forget()
		time.Sleep(time.Hour)
		if _ = p.run(t.Context(), nil, l.Bounds); len(l.pruned) > 0 {
			t.Errorf("deleted rows up to %v after a gap", l.pruned)
		}
	})
}
