package local

import (
	"context"
	"time"

	"github.com/ringside-cache/ringside/proto/groupcachepb"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

// groupCache is groupcachepb.GroupCache: the reads of ringside.v1.Cache as clients of the cache before Ringside ask for
// them. They are answered wherever ringside.v1.Cache is.
type groupCache struct {
	groupcachepb.UnimplementedGroupCacheServer
	service *service
}

// Get implements groupcachepb.GroupCache.
func (g *groupCache) Get(ctx context.Context, q *groupcachepb.GetRequest) (_ *groupcachepb.GetResponse, err error) {
	start := time.Now()
	defer g.service.finish(start, &err)
	a, err := g.service.find(ctx, start, q.GetGroup(), q.GetKey(), cache.ReadOptions{})
	if err != nil {
		return nil, err
	}
	return &groupcachepb.GetResponse{Value: a.Value}, nil
}
