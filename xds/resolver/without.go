//go:build noxds

package resolver

import (
	"errors"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/xds"
)

// Resolver does not exist in a program without xDS.
type Resolver struct{ ring.Directory }

// New returns an error.
func New(Config) (*Resolver, error) { return nil, errors.New("xds: " + xds.LeftOut) }

// Status returns an empty snapshot.
func (r *Resolver) Status() Status { return Status{} }
