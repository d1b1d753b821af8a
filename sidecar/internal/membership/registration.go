package membership

import (
	"context"
	"time"

	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
)

// RegistrationConfig is what a Registration is made of.
type RegistrationConfig struct {
	Members *Members
	// Leave makes this member respond to pings that it is leaving; nil without a peer listener.
	Leave func()
	// Requests counts the requests from other pods: from members, and from clients that route by the ring.
	Requests func() int64
	// DrainTimeout bounds the wait for the last request.
	DrainTimeout time.Duration
}

// Registration publishes this member in the directory. It needs a member that serves.
type Registration struct {
	config RegistrationConfig
	task   *task.Task
}

// NewRegistration returns a Registration that has not begun.
func NewRegistration(c RegistrationConfig) *Registration { return &Registration{config: c} }

// Start registers this member in the background.
func (r *Registration) Start(context.Context) error {
	m := r.config.Members
	r.task = m.config.Tasks.Go("register", m.register)
	return nil
}

// register keeps this member registered until ctx is done, except while no other member can reach it.
func (m *Members) register(ctx context.Context) error {
	if !m.ready.wait(ctx) {
		return nil // it was a client to the end
	}
	for {
		off, changed := m.reach.state()
		if off {
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		registered, cancel := context.WithCancel(ctx)
		go func() {
			select {
			case <-changed:
				cancel()
			case <-registered.Done():
			}
		}()
		err := m.directory.Register(registered, m.config.Self)
		cancel()
		if off, _ := m.reach.state(); err != nil || ctx.Err() != nil || !off {
			return err
		}
	}
}

// Stop removes this member from the rings of all members, and waits until they have stopped sending requests, at most for
// the drain timeout.
func (r *Registration) Stop(context.Context) {
	m := r.config.Members
	m.leaving.Store(true)
	if r.config.Leave != nil {
		r.config.Leave()
	}
	r.task.Stop()
	m.view.Leave()
	if r.config.Leave != nil && m.Role() == config.RoleMember && m.directory.Kind != "none" {
		r.awaitQuiet()
	}
}

const (
	// quiet is the time without a request after which no member is expected to send another one.
	quiet = time.Second
	// quietPoll is the time between two looks at the count of requests.
	quietPoll = 50 * time.Millisecond
)

func (r *Registration) awaitQuiet() {
	deadline := time.Now().Add(r.config.DrainTimeout)
	last, since := r.config.Requests(), time.Now()
	for time.Now().Before(deadline) && time.Since(since) < quiet {
		time.Sleep(quietPoll)
		if now := r.config.Requests(); now != last {
			last, since = now, time.Now()
		}
	}
}
