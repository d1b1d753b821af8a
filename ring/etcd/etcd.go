// Package etcd keeps the directory of members in an etcd cluster.
//
// Each member has two keys on one lease: PREFIX/members/ID is the complete record, which Resolve reads. PREFIX/ring/ID
// exists only while the member accepts requests, in the format of etcd's client/v3/naming/endpoints, so that any gRPC
// client with etcd's own resolver can find the members, too. DESIGN.md lists the faults of etcd that this survives.
package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/record"
)

// Config configures a Directory.
type Config struct {
	// Endpoints are URLs of etcd members (http://host:port, https://host:port); at least one.
	Endpoints []string
	// Prefix begins the keys of this group of members.
	Prefix string
	// LegacyPrefix, when it is not empty, adds the key LEGACY_PREFIX/ADDR for each member that accepts requests, in the
	// format of etcd's client/v3/naming/endpoints. Clients of the cache before Ringside read it.
	LegacyPrefix string
	// LeaseTTL is how long etcd keeps a member that does not renew its lease: whole seconds, at least 1 s (etcd's own
	// minimum is about 2 s).
	LeaseTTL time.Duration
	// MaxMembers is the number of slots for members, which all sidecars must have configured alike; 0: there are no slots.
	MaxMembers int
	// TLS is for https endpoints.
	TLS TLSFiles
	// Username and PasswordFile are for an etcd with authentication; both or neither. The file is read again for each
	// connection.
	Username, PasswordFile string
	// OnEvent is called when the registration or the list of members is lost (err says why) and established again (err is
	// nil): a few times per outage, not once per attempt. It is also called when this member could not be deregistered.
	// The goroutines of Resolve, Register and Close call it. It may be nil.
	OnEvent func(what string, err error)
	// Dialer makes the clients; nil: with connections to the endpoints. A simulation of thousands of members has none.
	Dialer Dialer
}

// Dialer makes clients of etcd.
type Dialer interface {
	// Dial returns a client of one endpoint, which need not be connected yet.
	Dial(ctx context.Context, endpoint string) (*clientv3.Client, error)
	// Interrupted waits until the connection of a client is interrupted. It returns false when ctx is done first.
	Interrupted(ctx context.Context, c *clientv3.Client) bool
}

// Directory is a ring.Directory in etcd. Open does not connect, so that neither the start of a sidecar nor a read of the
// cache waits for etcd. It is safe for concurrent use.
type Directory struct {
	cfg    Config
	dialer Dialer
	timing timing
	// relist holds a token when there is a reason to list: Relist, or a lost registration, because etcd may have lost other
	// keys, too.
	relist chan struct{}
	slot   atomic.Int64 // that this sidecar holds, plus 1; 0: none
	counters
}

var _ ring.Directory = (*Directory)(nil)

// timing is not part of Config because only tests change it.
type timing struct {
	request  time.Duration // limit of one request to etcd
	withdraw time.Duration // limit of each of deregister and revoke
	settle   time.Duration // how long a change waits for others to be applied with it
	check    time.Duration // between checks of the number of records; see checkAfter
	progress time.Duration // between progress requests, which show that the watch works
	stall    time.Duration // without a response, after which a watch is abandoned
	verify   time.Duration // between checks that the own keys still exist
	retryMax time.Duration // longest wait between attempts
}

func defaultTiming() timing {
	return timing{
		request:  2 * time.Second,
		withdraw: time.Second,
		settle:   100 * time.Millisecond,
		check:    30 * time.Second,
		progress: 2 * time.Second,
		stall:    5 * time.Second,
		verify:   30 * time.Second,
		retryMax: 5 * time.Second,
	}
}

// Open checks the configuration and its files. It does not connect.
func Open(cfg Config) (*Directory, error) {
	cfg.Prefix = strings.TrimRight(cfg.Prefix, "/")
	cfg.LegacyPrefix = strings.TrimRight(cfg.LegacyPrefix, "/")
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	if _, err := cfg.TLS.load(); err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	d := &Directory{cfg: cfg, timing: defaultTiming(), relist: make(chan struct{}, 1)}
	d.dialer = cmp.Or(cfg.Dialer, Dialer(dialer{d}))
	d.opened, d.registration.what, d.listing.what = time.Now(), "registration", "list of members"
	return d, nil
}

func (c *Config) check() error {
	switch {
	case len(c.Endpoints) == 0:
		return errors.New("no endpoints: name at least one etcd member")
	case !record.Printable(c.Prefix, 1, record.MaxPrefix):
		return fmt.Errorf("prefix %q: want 1 to %d printable ASCII characters", c.Prefix, record.MaxPrefix)
	case c.LeaseTTL < time.Second:
		return fmt.Errorf("lease ttl %v: want at least 1s", c.LeaseTTL)
	case (c.Username == "") != (c.PasswordFile == ""):
		return errors.New("username and password file go together: set both or neither")
	}
	if err := c.checkLegacyPrefix(); err != nil {
		return err
	}
	return c.checkEndpoints()
}

// checkEndpoints rejects TLS files with plain endpoints: the operator expects an encrypted connection.
func (c *Config) checkEndpoints() error {
	for _, e := range c.Endpoints {
		plain, secure := strings.HasPrefix(e, "http://"), strings.HasPrefix(e, "https://")
		switch {
		case !plain && !secure:
			return fmt.Errorf("endpoint %q: want http://host:port or https://host:port", e)
		case plain && c.TLS != (TLSFiles{}):
			return fmt.Errorf("endpoint %q: tls files are set: want https://", e)
		case strings.HasPrefix(c.Endpoints[0], "https://") != secure:
			return fmt.Errorf("endpoint %q: mix of http:// and https://", e)
		}
	}
	return nil
}

// Close revokes the lease, within about a second. Resolve and Register must have returned.
func (d *Directory) Close() error {
	d.revoke()
	return nil
}
