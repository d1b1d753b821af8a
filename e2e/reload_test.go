package e2e

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// A dataset is added to one member after the other. The owners of its keys do not know it at first; readers do not notice.
func TestDatasetIsAddedToOneMemberAfterTheOther(t *testing.T) {
	c := newCluster(t, 3)
	c.fill("key-", loadKeys)
	l := c.load(4, loadKeys, "key-", 0, 1, 2)
	var reads, failed atomic.Int64
	var last atomic.Pointer[string]
	var stop atomic.Bool
	var workers sync.WaitGroup
	for i, s := range c.sidecars {
		s.Reconfigure("datasets:\n", "datasets:\n  added-metrics: {origin: db, table: cnf_metrics, key: cnf_id, version: ver, ttl: 1s}\n")
		rig.Eventually(t, time.Minute, func() error {
			if status, body, err := c.get(i, "added-metrics", "key-1"); err != nil || status != http.StatusOK {
				return fmt.Errorf("%d %s %v", status, body, err)
			}
			return nil
		})
		workers.Go(func() {
			for k := 0; !stop.Load(); k++ {
				status, body, err := c.get(i, "added-metrics", fmt.Sprint("key-", k*7%loadKeys))
				reads.Add(1)
				if err != nil || status != http.StatusOK {
					failed.Add(1)
					why := fmt.Sprint(s.ID, ": ", status, " ", body, " ", err)
					last.Store(&why)
				}
			}
		})
		until := reads.Load() + 500
		rig.Eventually(t, time.Minute, func() error {
			if n := reads.Load(); n < until {
				return fmt.Errorf("%d reads; want %d", n, until)
			}
			return nil
		})
	}
	stop.Store(true)
	workers.Wait()
	l.stop()
	if failed.Load() != 0 {
		t.Errorf("%d of %d reads of the added dataset failed, the last: %s", failed.Load(), reads.Load(), *last.Load())
	}
	if l.failed.Load() != 0 {
		t.Errorf("%d of %d reads of the other dataset failed, the last: %s", l.failed.Load(), l.reads.Load(), l.failure())
	}
	t.Logf("0 of %d reads of the added dataset and 0 of %d others failed", reads.Load(), l.reads.Load())
}
