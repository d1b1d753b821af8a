//go:build !linux

package ready

import "github.com/ringside-cache/ringside/sidecar/internal/listen"

// Loop exists only on Linux: listen.Detach takes no socket elsewhere.
type Loop struct{}

// Add is never called.
func (*Loop) Add(*listen.Socket, Waiter) error { return nil }

// Remove is never called.
func (*Loop) Remove(*listen.Socket) {}
