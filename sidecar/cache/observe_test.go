package cache

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func observed(key, value string, at int64) kv.Change {
	return kv.Change{Key: key, Value: []byte(value), Observed: at}
}

// A row has the newest observation, whichever member it comes through and in whatever order; old ones and duplicates are no errors.
func TestNewestObservationIsTheRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"a": "0"})
		c := newCluster(t, 3, o, testPolicy())
		for i, step := range []struct {
			member int
			change kv.Change
			want   string
			writes int64
		}{
			{1, observed("a", "5", 5), "5", 1},
			{2, observed("a", "4", 4), "5", 1},
			{0, observed("a", "5 again", 5), "5", 1},
			{2, observed("a", "6", 6), "6", 2},
			{1, change("a", "by hand"), "by hand", 3},
			{0, observed("a", "3", 3), "by hand", 3},
			{1, observed("a", "7", 7), "7", 4},
		} {
			r := writeMany(t, c.members[step.member], []kv.Change{step.change})[0]
			synctest.Wait()
			if o.Writes() != step.writes {
				t.Errorf("step %d: %d writes so far, want %d", i, o.Writes(), step.writes)
			}
			for _, d := range c.members {
				a, err := d.Get(t.Context(), "a", kv.ReadOptions{MinVersion: r.Answer.Version})
				if err != nil || string(a.Value) != step.want {
					t.Errorf("step %d: got %q, %v; want %q", i, a.Value, err, step.want)
				}
			}
		}
		if n := c.members[0].Stats().Superseded.Load(); n != 3 {
			t.Errorf("the owner has counted %d as superseded, want 3", n)
		}
	})
}

// Members that report the same keys while the owner writes cause one more write.
func TestObservationsOfManyMembersAreMergedAtTheOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		release := o.BlockWrites()
		c := newCluster(t, 8, o, testPolicy())
		var all sync.WaitGroup
		for n := range 80 {
			all.Go(func() {
				cs := []kv.Change{observed("a", fmt.Sprint(n), int64(1+n)), observed("b", fmt.Sprint(n), int64(1+n))}
				for _, r := range c.members[n%8].WriteMany(t.Context(), cs) {
					if r.Err != nil {
						t.Error(r.Err)
					}
				}
			})
			synctest.Wait()
		}
		release()
		all.Wait()
		if got := o.Writes(); got != 2 {
			t.Errorf("80 reports of two keys are %d transactions, want 2", got)
		}
		if a, err := c.members[3].Get(t.Context(), "a", kv.ReadOptions{NoCache: true}); err != nil || string(a.Value) != "79" {
			t.Errorf("the row is %q, %v; want the newest report", a.Value, err)
		}
	})
}

// A failed observation is not remembered: a retry writes it.
func TestFailedObservationIsWrittenByItsRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		d := newDataset(t, o, nil, testPolicy())
		o.FailWrites(fmt.Errorf("the database is down"))
		writeMany(t, d, []kv.Change{observed("a", "1", 1)}, kv.KindUnavailable)
		o.FailWrites(nil)
		writeMany(t, d, []kv.Change{observed("a", "1", 1), change("b", "2")})
		if a, err := d.Get(t.Context(), "a", kv.ReadOptions{}); err != nil || string(a.Value) != "1" {
			t.Errorf("got %q, %v", a.Value, err)
		}
	})
}

func TestOldObservationsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		d := newDataset(t, o, nil, testPolicy())
		writeMany(t, d, []kv.Change{observed("a", "2", 2)})
		time.Sleep(observedLife)
		writeMany(t, d, []kv.Change{observed("a", "1", 1)})
		if o.Writes() != 2 {
			t.Errorf("%d writes, want 2: times are remembered for %v", o.Writes(), observedLife)
		}
	})
}

func TestObservationsHaveNoConditions(t *testing.T) {
	d := newDataset(t, origintest.New(nil), nil, testPolicy())
	writeMany(t, d, []kv.Change{
		{Key: "a", Observed: 1, Delete: true}, {Key: "b", Observed: 1, ID: "x"}, {Key: "c", Observed: 1, If: kv.Condition{Absent: true}},
	}, kv.KindInvalidValue, kv.KindInvalidValue, kv.KindInvalidValue)
}
