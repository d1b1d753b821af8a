//go:build !linux

package ready

import "github.com/ringside-cache/ringside/sidecar/internal/listen"

// loop exists only on Linux: listen.Detach takes no socket elsewhere.
type loop struct{}

func (*loop) add(*listen.Socket, Waiter) error { return nil }

func (*loop) remove(*listen.Socket) {}

func (*loop) len() int { return 0 }
