package e2e

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

const clients = 1000

// B1: one cold key is one query, however many ask for it.
func TestPromiseB1OneColdKeyIsOneQuery(t *testing.T) {
	c := newCluster(t, 5)
	c.fill("cold-", rounds)
	c.oneQueryEach(t, "B1", "cold", http.StatusOK)
}

// B3: an absent key is one query per negative_ttl.
func TestPromiseB3AbsentKeyIsOneQuery(t *testing.T) {
	newCluster(t, 5).oneQueryEach(t, "B3", "absent", http.StatusNotFound)
}

const rounds = 100

// oneQueryEach lets a herd read a key in each round, and has the database count.
func (c *cluster) oneQueryEach(t *testing.T, number, kind string, status int) {
	before, wrong := c.queries("cnf_metrics"), 0
	for round := range rounds {
		key := fmt.Sprint(kind, "-", round)
		if failures := c.herd(clients, "cnf-metrics", key, status); len(failures) > 0 {
			t.Fatalf("round %d: %d reads failed, such as: %s", round, len(failures), failures[0])
		}
		now := c.queries("cnf_metrics")
		if now != before+1 {
			wrong++
		}
		before = now
	}
	report(t, promise{
		number: number, n: rounds, held: wrong == 0,
		done:   fmt.Sprintf("%d clients on 5 sidecars read one %s key at once", clients, kind),
		figure: fmt.Sprintf("%d of %d rounds with other than 1 query", wrong, rounds),
	})
}

// B4 and B5: many cold keys at once are few queries, and never more of them at a time than the cap. How few depends on
// how close together a thousand clients can ask; when they ask at the same moment, origin/guard's tests count one query
// per hundred keys.
func TestPromiseB4B5ColdKeysStayUnderTheCap(t *testing.T) {
	c := newCluster(t, 5)
	c.fill("cold-", clients)
	c.herd(clients, "slow-metrics", "cold-0", http.StatusOK) // connect, or the keys do not come at once
	peak := c.watchStatements("slow_metrics")
	before := c.queries("slow_metrics")
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			if status, body, err := c.get(i%5, "slow-metrics", fmt.Sprint("cold-", i)); status != http.StatusOK {
				t.Errorf("key %d: %d %s %v", i, status, body, err)
			}
		})
	}
	all.Wait()
	seen, queries, limit := peak(), c.queries("slow_metrics")-before, 5*statementCap
	report(t, promise{
		number: "B4", n: clients, held: 0 < seen && seen <= limit,
		done:   fmt.Sprintf("%d cold keys at once on 5 sidecars, cap %d statements each", clients, statementCap),
		figure: fmt.Sprintf("at most %d statements at a time in pg_stat_activity (cap %d)", seen, limit),
	})
	report(t, promise{
		number: "B5", n: clients, held: queries <= clients/8,
		done:   "the same: how many queries they became",
		figure: fmt.Sprintf("%d queries for %d keys on 5 owners, batches of at most 100", queries, clients),
	})
}

// watchStatements samples the database's own list of statements until peak is called.
func (c *cluster) watchStatements(relation string) (peak func() int) {
	ctx, cancel := context.WithCancel(context.Background())
	most := make(chan int, 1)
	go func() {
		highest := 0
		for ctx.Err() == nil {
			var n int
			err := c.sql.QueryRowContext(ctx, `SELECT count(*) FROM pg_stat_activity WHERE state = 'active'
				AND query LIKE '%' || $1 || '%' AND pid <> pg_backend_pid()`, relation).Scan(&n)
			if err == nil {
				highest = max(highest, n)
			}
			time.Sleep(time.Millisecond)
		}
		most <- highest
	}()
	return func() int { cancel(); return <-most }
}
