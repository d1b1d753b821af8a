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

// C5: if the caller that started a load cancels, the other callers that wait for the load still get its result.
func TestPromiseC5CancelDoesNotFailOtherCallers(t *testing.T) {
	c := newCluster(t, 2)
	const waiters, rounds, most = 100, 100, 1000
	c.fill("cold-", most)
	clients := make([]ringsidev1.CacheClient, len(c.sidecars))
	for i, s := range c.sidecars {
		conn, err := grpc.NewClient(s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		clients[i] = ringsidev1.NewCacheClient(conn)
	}
	var failed, canceled atomic.Int64
	made := 0
	for ; made < rounds || canceled.Load() < rounds; made++ { // on a busy machine a load may end before its callers cancel
		if made == most {
			t.Fatalf("invalid run: in %d rounds only %d callers canceled before their response", made, canceled.Load())
		}
		request := &ringsidev1.GetRequest{Dataset: "slow-metrics", Key: fmt.Sprint("cold-", made)}
		ctx, cancel := context.WithCancel(context.Background())
		var all sync.WaitGroup
		for i := range clients { // the first caller on each sidecar starts the peer fetch or load, and cancels
			all.Go(func() {
				if _, err := clients[i].Get(ctx, request); status.Code(err) == codes.Canceled {
					canceled.Add(1)
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
		cancel()
		all.Wait()
	}
	report(t, promise{
		number: "C5", n: made * waiters, held: failed.Load() == 0,
		done:   fmt.Sprintf("the callers that started a load cancel (%d did), the others wait", canceled.Load()),
		figure: fmt.Sprintf("%d of %d waiters failed", failed.Load(), made*waiters),
	})
}
