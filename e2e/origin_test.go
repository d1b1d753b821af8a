package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

const clients = 1000

// B1: one cold key causes one query, however many clients read it.
func TestPromiseB1OneColdKeyIsOneQuery(t *testing.T) {
	c := newCluster(t, 5)
	c.fill("cold-", 100)
	c.oneQueryEach(t, "B1", "cold", http.StatusOK)
}

// B3: a key without a row causes one query per negative_ttl.
func TestPromiseB3AbsentKeyIsOneQuery(t *testing.T) {
	newCluster(t, 5).oneQueryEach(t, "B3", "absent", http.StatusNotFound)
}

// oneQueryEach has a herd read a new key in each round, and counts the queries in the database.
func (c *cluster) oneQueryEach(t *testing.T, number, kind string, status int) {
	before, wrong, rounds := c.queries("cnf_metrics"), 0, sampleOf(100)
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
		done:   described(fmt.Sprintf("%d clients on 5 sidecars read one %s key at once", clients, kind)),
		figure: fmt.Sprintf("%d of %d rounds with other than 1 query", wrong, rounds),
	})
}

// B4: many cold keys never cause more concurrent statements than the cap. The number of queries depends on how many of the
// requests arrive at the same time.
func TestPromiseB4ColdKeysStayUnderTheCap(t *testing.T) {
	c := newCluster(t, 5)
	c.fill("cold-", clients)
	c.herd(clients, "slow-metrics", "cold-0", http.StatusOK) // opens the connections, so that the requests below arrive together
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
		number: "B4", n: clients, held: 0 < seen && seen <= limit && queries < clients,
		done: fmt.Sprintf("%d cold keys by as many clients of 5 sidecars, cap %d statements each", clients, statementCap),
		figure: fmt.Sprintf("at most %d concurrent statements in pg_stat_activity (cap %d), %d queries in total",
			seen, limit, queries),
	})
}

// batchSize is the default of batch.max_keys.
const batchSize = 100

// B5: one request for many cold keys causes as few queries as the batch size allows, plus at most one per owner.
func TestPromiseB5ColdKeysOfABatchAreFewQueries(t *testing.T) {
	c := newCluster(t, 5)
	c.fill("cold-", batchRounds*clients)
	most, limit := 0, clients/batchSize+len(c.sidecars)
	for round := range batchRounds {
		before := c.queries("slow_metrics")
		c.batchGet(round%5, "slow-metrics", "cold-", round*clients, clients)
		most = max(most, c.queries("slow_metrics")-before)
	}
	report(t, promise{
		number: "B5", n: batchRounds, held: 0 < most && most <= limit,
		done:   fmt.Sprintf("%d cold keys in one :batchGet", clients),
		figure: fmt.Sprintf("at most %d queries (%d keys / %d plus one per owner: %d)", most, clients, batchSize, limit),
	})
}

const batchRounds = 10

// batchGet reads n keys of a prefix, beginning with the number from, in one request to sidecar i.
func (c *cluster) batchGet(i int, dataset, prefix string, from, n int) {
	c.t.Helper()
	keys := make([]string, n)
	for k := range keys {
		keys[k] = fmt.Sprint(prefix, from+k)
	}
	body, err := json.Marshal(map[string][]string{"keys": keys})
	if err != nil {
		c.t.Fatal(err)
	}
	response, err := c.client.Post("http://"+c.sidecars[i].HTTP+"/v1/"+dataset+":batchGet", "application/json", bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	var answer struct {
		Results []struct {
			Key   string
			Value struct {
				ID string `json:"cnf_id"`
			}
			Error json.RawMessage
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || len(answer.Results) != n {
		c.t.Fatalf("%s: %d results of %d keys, %v", response.Status, len(answer.Results), n, err)
	}
	for k, r := range answer.Results {
		if r.Key != keys[k] || r.Value.ID != keys[k] {
			c.t.Errorf("%s has the row %q, error %s", keys[k], r.Value.ID, r.Error)
		}
	}
}

// watchStatements samples pg_stat_activity until peak is called.
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
