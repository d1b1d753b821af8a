package peer

import (
	"context"

	"github.com/ringside-cache/ringside/sidecar/cache"
)

// Publish implements cache.Peers.
func (p *Pool) Publish(cache.Invalidation) {}

// TellAll implements cache.Peers.
func (p *Pool) TellAll(context.Context, []cache.Invalidation) (told int, unreached []string) {
	return 0, nil
}

// Write implements cache.Peer.
func (p *peer) Write(context.Context, cache.Change) (cache.Answer, error) {
	return cache.Answer{}, p.unreachable(errClosed)
}
