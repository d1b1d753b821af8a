package grpcapi

import (
	"context"
	"time"

	"github.com/ringside-cache/ringside/proto/groupcachepb"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// groupCache is groupcachepb.GroupCache: the reads of ringside.v1.Cache for clients of the cache that Ringside replaces.
// Every listener that has ringside.v1.Cache has it.
type groupCache struct {
	groupcachepb.UnimplementedGroupCacheServer
	service *service
}

// Get implements groupcachepb.GroupCache.
func (g *groupCache) Get(ctx context.Context, q *groupcachepb.GetRequest) (_ *groupcachepb.GetResponse, err error) {
	start := time.Now()
	defer g.service.finish(ctx, start, &err)
	a, err := g.service.get(ctx, start, q.GetGroup(), q.GetKey(), kv.ReadOptions{})
	if err != nil {
		return nil, err
	}
	return &groupcachepb.GetResponse{Value: a.Value}, nil
}
