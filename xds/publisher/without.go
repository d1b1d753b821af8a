//go:build noxds

package publisher

import (
	"google.golang.org/grpc"

	"github.com/ringside-cache/ringside/ring"
)

// Publisher of a program without xDS publishes nothing: the configuration is rejected that asks for one.
type Publisher struct{}

// New returns a Publisher.
func New(Config) *Publisher { return &Publisher{} }

// Register adds nothing.
func (p *Publisher) Register(grpc.ServiceRegistrar) {}

// Publish does nothing.
func (p *Publisher) Publish([]ring.Member) {}

// Status returns an empty snapshot.
func (p *Publisher) Status() Status { return Status{} }

// Stop does nothing.
func (p *Publisher) Stop() {}
