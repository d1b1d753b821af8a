package e2e

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
)

// C5: the one who began a load, and gives up, fails nobody who waits for it.
func TestPromiseC5CancelFailsNobodyElse(t *testing.T) {
	c := newCluster(t, 2)
	const waiters, rounds = 100, 100
	c.fill("cold-", rounds)
	clients := make([]ringsidev1.CacheClient, len(c.sidecars))
	for i, s := range c.sidecars {
		conn, err := grpc.NewClient(s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		clients[i] = ringsidev1.NewCacheClient(conn)
	}
	var failed, left atomic.Int64
	for round := range rounds {
		request := &ringsidev1.GetRequest{Dataset: "slow-metrics", Key: fmt.Sprint("cold-", round)}
		ctx, leave := context.WithCancel(context.Background())
		var all sync.WaitGroup
		for i := range clients { // the first caller of each sidecar begins its hop or load, and is the one who leaves
			all.Go(func() {
				if _, err := clients[i].Get(ctx, request); status.Code(err) == codes.Canceled {
					left.Add(1)
				}
			})
		}
		time.Sleep(5 * time.Millisecond) // of the load's 20
		for i := range waiters {
			all.Go(func() {
				if _, err := clients[i%len(clients)].Get(context.Background(), request); err != nil {
					failed.Add(1)
				}
			})
		}
		time.Sleep(5 * time.Millisecond)
		leave()
		all.Wait()
	}
	if left.Load() < rounds {
		t.Fatalf("only %d callers left before their answer came: the fault did not bite", left.Load())
	}
	report(t, promise{
		number: "C5", n: rounds * waiters, held: failed.Load() == 0,
		done:   fmt.Sprintf("the callers that began a load leave (%d did), those that wait for it stay", left.Load()),
		figure: fmt.Sprintf("%d of %d waiters failed", failed.Load(), rounds*waiters),
	})
}
