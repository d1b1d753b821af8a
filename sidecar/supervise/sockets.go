package supervise

import (
	"context"
	"slices"

	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/inherit"
	"github.com/ringside-cache/ringside/sidecar/internal/servers"
)

// held is the sockets of one listener.
type held struct {
	config.Address
	sockets []inherit.Socket
}

// bind returns the sockets of the listeners of a configuration: those in open, and new ones for the others.
func bind(ctx context.Context, c config.Config, open []held) (list []held, err error) {
	for _, a := range c.Effective().Listeners() {
		if i := slices.IndexFunc(open, func(h held) bool { return h.Address == a }); i >= 0 {
			list = append(list, open[i])
			continue
		}
		sockets, err := servers.Open(ctx, a)
		if err != nil {
			closeHeld(without(list, open))
			return nil, err
		}
		list = append(list, held{a, sockets})
	}
	return list, nil
}

// without returns what list has and other does not.
func without(list, other []held) []held {
	return slices.DeleteFunc(slices.Clone(list), func(h held) bool {
		return slices.ContainsFunc(other, func(kept held) bool { return kept.Address == h.Address })
	})
}

func closeHeld(list []held) {
	for _, h := range list {
		for _, socket := range h.sockets {
			_ = socket.Close() // nothing was written to it
		}
	}
}
