// Package membership decides who is on the ring. The directory says which members exist; pings say which of them are
// alive: a member that disappears from the directory without deregistering stays on the ring while it responds. A directory
// that loses its data (an etcd that was frozen for longer than its leases, or restored empty) therefore costs no member its
// keys. DESIGN.md has the rules.
package membership

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
	"github.com/ringside-cache/ringside/sidecar/peer"
)

// Config is what Members are made of.
type Config struct {
	// Self is this member.
	Self ring.Member
	// Client means that this sidecar is always a client: it uses the ring without being on it.
	Client bool
	// Role is config.RoleAuto if the directory decides whether this sidecar is a member, and RoleClient if it is a client that gets
	// the ring from members.
	Role string
	// MaxMembers is the number of members for which a client with RoleAuto stays one.
	MaxMembers int
	// Size is that of the ring.
	Size      ring.Size
	Directory *Directory
	Pool      Peers
	// OnRing gets the first ring, from New, and each other one, in order, one at a time. prev is the ring whose members may
	// still have in memory what cur gives to others; nil if there is none. It must be quick.
	OnRing func(cur, prev *ring.Ring)
	// OnMembers gets the members of each ring, and those that are leaving, once there was a list. It must be quick.
	OnMembers func([]ring.Member)
	// Defect is called with each panic of the directory or of a ping, stack included.
	Defect func(error)
	Log    *zap.Logger
	Tasks  *task.Group
}

// Peers calls other members. *peer.Pool implements it, and documents the methods.
type Peers interface {
	Ping(ctx context.Context, m ring.Member) error
	ReachesBack(ctx context.Context, to ring.Member) (known bool, why string, err error)
	Members(ctx context.Context, m ring.Member, node string, use func(*peerv1.MembersResponse) error) error
	RingID() uint64
	Stats() peer.Stats
}

// Members are the members of the ring, as this sidecar sees them.
type Members struct {
	config     Config
	pool       Peers
	directory  *Directory
	log        *zap.Logger
	view       *View
	ring       atomic.Pointer[ring.Ring] // the view's, for readers that must not wait for its lock
	duplicates duplicates                // used by the goroutine that resolves the members
	dialable   dialable
	settings   settings
	reach      reach
	published  published
	leaving    atomic.Bool
	client     atomic.Bool   // this sidecar is a client
	ready      gate          // opens when this sidecar is a member that may register
	relisting  chan struct{} // has a token if a client should ask another member
	promotions atomic.Int64
	lists      lists // of a client
	tasks      []*task.Task
}

// New returns Members whose ring is this member alone, or empty for a client.
func New(c Config) (*Members, error) {
	m := &Members{
		config: c, pool: c.Pool, directory: c.Directory, log: c.Log, duplicates: duplicates{self: c.Self, log: c.Log},
		dialable: dialable{self: []string{c.Self.Addr}, log: c.Log}, settings: settings{self: c.Self, log: c.Log},
		published: published{use: c.OnMembers}, ready: newGate(), relisting: make(chan struct{}, 1), lists: lists{since: time.Now()},
	}
	self := c.Self
	if c.Client {
		m.client.Store(true)
		m.dialable.self = append(m.dialable.self, c.Directory.near...)
		self = ring.Member{}
	}
	m.reach = reach{
		self: c.Self, pool: c.Pool, log: c.Log, others: m.others, known: map[string]ring.Member{}, failed: map[string]time.Time{},
		changed: make(chan struct{}), setOff: func(off bool) { m.view.SetOff(off) }, leaves: c.Directory.registers(),
	}
	if c.Role == "" { // nobody has to decide
		m.ready.open()
	}
	var err error
	m.view, err = NewView(ViewConfig{Self: self, Size: c.Size, Ping: c.Pool.Ping, OnChange: m.onChange, Defect: c.Defect})
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Members) onChange(cur, prev *ring.Ring) {
	m.ring.Store(cur)
	m.config.OnRing(cur, prev)
	m.published.useRing(cur)
}

// Ring returns the ring in use.
func (m *Members) Ring() *ring.Ring { return m.ring.Load() }

// Self returns this member.
func (m *Members) Self() ring.Member { return m.config.Self }

// OtherSettings returns the number of listed members whose ring has other sizes, and a sentence about one of them.
func (m *Members) OtherSettings() (members int64, example string) {
	return m.settings.members.Load(), m.settings.example()
}

// Role returns whether this sidecar is a member or a client at present.
func (m *Members) Role() string {
	if m.client.Load() {
		return config.RoleClient
	}
	return config.RoleMember
}

// Detail is what /readyz says of the ring.
func (m *Members) Detail() string {
	if text := m.Unreachable(); text != "" {
		return text
	}
	return "role: " + m.Role()
}

// Record returns the record of this sidecar if it is a member, and else nil, so that nobody puts a client on a ring.
func (m *Members) Record(record []byte) []byte {
	if m.client.Load() || !m.ready.isOpen() {
		return nil
	}
	return record
}

// Directory returns where the members are listed.
func (m *Members) Directory() *Directory { return m.directory }

// Stats returns a snapshot.
func (m *Members) Stats() ViewStats {
	s := m.view.Stats()
	s.Refused += m.dialable.ignored.Load()
	return s
}

// Start keeps the ring up to date with the directory. It waits a moment for the first list.
func (m *Members) Start(ctx context.Context) error {
	listed := make(chan struct{})
	m.tasks = append(m.tasks,
		m.config.Tasks.Go("ping members", func(ctx context.Context) error {
			m.view.Run(ctx)
			return nil
		}),
		m.config.Tasks.Go("resolve members", m.resolveFunc(listed)))
	if !m.config.Client && m.directory.Kind != "none" {
		m.tasks = append(m.tasks, m.config.Tasks.Go("ask whether others reach this member", func(ctx context.Context) error {
			if !m.ready.wait(ctx) { // they do not know a client
				return nil
			}
			return m.reach.run(ctx)
		}))
	}
	if m.relist() != nil {
		m.tasks = append(m.tasks, m.config.Tasks.Go("monitor ring disagreement", m.monitorDisagreement))
	}
	if m.directory.Kind == "none" {
		m.published.useList(nil)
		return nil
	}
	m.awaitList(ctx, listed)
	return nil
}

func (m *Members) resolveFunc(listed chan struct{}) func(context.Context) error {
	first := sync.OnceFunc(func() { close(listed) })
	return func(ctx context.Context) error {
		return m.resolveSafely(ctx, func(members []ring.Member) {
			if !m.leaving.Load() {
				m.duplicates.look(members)
			}
			m.settings.look(members)
			dialed := m.dialable.of(members) //guard:undialable-member-on-ring
			m.view.Apply(slices.Clone(dialed))
			m.published.useList(dialed)
			first()
		})
	}
}

// resolveSafely resolves until ctx is done. A panic, which the records of other programs may cause, is reported, and the members
// are listed again: it must not end the process. Meanwhile the ring stays.
func (m *Members) resolveSafely(ctx context.Context, apply func([]ring.Member)) error {
	wait := backoff.Backoff{First: time.Second, Longest: time.Minute}
	for {
		panicked, err := m.resolveOnce(ctx, apply)
		if !panicked || !wait.Wait(ctx) {
			return err
		}
	}
}

func (m *Members) resolveOnce(ctx context.Context, apply func([]ring.Member)) (panicked bool, err error) {
	defer func() {
		if p := recover(); p != nil { //guard:panic-of-directory-ends-process
			panicked, err = true, nil
			m.config.Defect(fmt.Errorf("panic while listing the members: %v\n%s", p, debug.Stack()))
		}
	}()
	return false, m.resolve(ctx, apply)
}

// firstList is how long a start waits for the first list of members. Earlier reads would load keys that other members have
// in memory, but a directory that is down must not keep the sidecar from serving.
const firstList = 2 * time.Second

func (m *Members) awaitList(ctx context.Context, listed <-chan struct{}) {
	timer := time.NewTimer(firstList)
	defer timer.Stop()
	select {
	case <-listed:
	case <-ctx.Done():
	case <-timer.C:
		m.log.Warn("no list of members yet: this sidecar loads every key itself until it gets one",
			zap.Duration("waited", firstList))
	}
}

// Stop ends what Start began.
func (m *Members) Stop(context.Context) { task.StopAll(m.tasks) }
