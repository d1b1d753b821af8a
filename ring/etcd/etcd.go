// Package etcd turns an etcd cluster into the directory in which members stay registered and follow each other.
//
// Each member has two keys on one lease: PREFIX/members/ID is the full record, which Follow reads; PREFIX/ring/ID is
// there only while the member takes requests, in the format of etcd's client/v3/naming/endpoints, so that any gRPC
// client with etcd's stock resolver can find the members, too. DESIGN.md has the faults that this outlives.
package etcd

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/ring"
)

// The defaults of a Config.
const (
	DefaultPrefix   = "/ringside/default"
	DefaultLeaseTTL = 5 * time.Second
)

// Config says which etcd cluster is the directory.
type Config struct {
	// Endpoints are URLs of etcd members (http://host:port, https://host:port); at least one.
	Endpoints []string
	// Prefix is what the keys of this group of members begin with; DefaultPrefix when it is empty.
	Prefix string
	// LegacyPrefix, when it is not empty, has another key LEGACY_PREFIX/ADDR of each member that takes requests, in the
	// format of etcd's client/v3/naming/endpoints: where clients of the cache before Ringside look.
	LegacyPrefix string
	// LeaseTTL is how long etcd keeps a member that it does not hear from: whole seconds, at least 1 s (etcd's own
	// least is about 2 s); DefaultLeaseTTL when it is 0.
	LeaseTTL time.Duration
	// TLS goes with https endpoints.
	TLS TLSFiles
	// Username and PasswordFile are for an etcd with authentication; both or neither. The file is read again when a
	// connection is lost or refused.
	Username, PasswordFile string
	// OnEvent is told, by the goroutines of Follow and Register, when a registration or the list of members is lost
	// (err says why) and held again (err is nil): a few times per outage, not once per attempt. It is also told, by
	// Register or Close, when etcd could not be told of the withdrawal. It may be nil.
	OnEvent func(what string, err error)
}

// Directory is a ring.Directory kept in etcd. It connects when it has to, so that neither Open nor a read of the cache
// waits for etcd. It is safe for concurrent use.
type Directory struct {
	cfg    Config
	timing timing
	// doubted holds a token when there is a reason to list: a registration that was lost (etcd may have forgotten more
	// than that), or a Relist.
	doubted chan struct{}
	counters
}

var _ ring.Directory = (*Directory)(nil)

// timing is apart from Config because only tests have a reason to change it.
type timing struct {
	request  time.Duration // bound of one request to etcd
	goodbye  time.Duration // bound of what is tried on the way out, each of goodbye and revoke
	settle   time.Duration // changes within it are applied together
	list     time.Duration // a full list regardless; see relistAfter
	progress time.Duration // between questions whether the watch is still alive
	stall    time.Duration // a watch that is silent for so long is given up
	verify   time.Duration // between looks whether the own keys are still there
	retryMax time.Duration // upper bound of the wait between attempts
}

func defaultTiming() timing {
	return timing{
		request:  2 * time.Second,
		goodbye:  time.Second,
		settle:   100 * time.Millisecond,
		list:     30 * time.Second,
		progress: 2 * time.Second,
		stall:    5 * time.Second,
		verify:   30 * time.Second,
		retryMax: 5 * time.Second,
	}
}

// Open checks the config and its files. It does not connect.
func Open(cfg Config) (*Directory, error) {
	cfg.Prefix = strings.TrimRight(cmp.Or(cfg.Prefix, DefaultPrefix), "/")
	cfg.LegacyPrefix = strings.TrimRight(cfg.LegacyPrefix, "/")
	cfg.LeaseTTL = cmp.Or(cfg.LeaseTTL, DefaultLeaseTTL)
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	if _, err := cfg.TLS.load(); err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	d := &Directory{cfg: cfg, timing: defaultTiming(), doubted: make(chan struct{}, 1)}
	d.opened, d.registration.what, d.listing.what = time.Now(), "registration", "list of members"
	return d, nil
}

func (c *Config) check() error {
	switch {
	case len(c.Endpoints) == 0:
		return errors.New("no endpoints: name at least one etcd member")
	case !printable(c.Prefix, 1, maxPrefix):
		return fmt.Errorf("prefix %q: want 1 to %d printable ASCII characters", c.Prefix, maxPrefix)
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

// checkEndpoints refuses TLS files beside plain endpoints: the one who set them believes that the connection is safe.
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

// Close revokes the lease, within about a second. Follow and Register must have returned.
func (d *Directory) Close() error {
	d.revoke()
	return nil
}
