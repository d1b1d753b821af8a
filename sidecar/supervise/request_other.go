//go:build !linux

package supervise

import (
	"context"
	"errors"
)

// listen does nothing: this system has no abstract sockets. SIGUSR2 works.
func (s *supervisor) listen() (end func()) { return func() {} }

// Restart returns an error.
func Restart(context.Context, int) error {
	return errors.New("this system has no abstract sockets: use kill -USR2 on the process of `ringside run --supervise`")
}
