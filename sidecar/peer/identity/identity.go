// Package identity maps SPIFFE ids to the members and clients of a cluster. The path of an id says which role its holder has,
// in which cluster, and which member it is.
package identity

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ringside-cache/ringside/sidecar/internal/caller"
)

// The default patterns of the paths.
const (
	DefaultMemberPath = "/ringside/{cluster}/member/{id}"
	DefaultClientPath = "/ringside/{cluster}/client/{name}"
)

// Placeholders of patterns. Each is a whole segment.
const (
	cluster = "{cluster}" // the id of the cluster
	id      = "{id}"      // the id of a member on the ring
	name    = "{name}"    // the name of a client: one or more segments at the end
)

// Config says which ids belong to a cluster. Everything except Cluster has a default.
type Config struct {
	// TrustDomain is that of all members and clients. If it is empty, Scheme.In sets it.
	TrustDomain string
	// Cluster replaces {cluster} in the patterns.
	Cluster string
	// MemberPath and ClientPath are patterns of paths.
	MemberPath, ClientPath string
}

// Scheme tells the ids of members and clients of one cluster from all others. It is immutable.
type Scheme struct {
	domain         spiffeid.TrustDomain
	member, client []string // segments
}

// New returns the scheme of c. The error names the wrong field, as it is called in the configuration.
func New(c Config) (*Scheme, error) {
	s := &Scheme{}
	var errs []error
	if c.TrustDomain != "" {
		domain, err := spiffeid.TrustDomainFromString(c.TrustDomain)
		if err != nil || strings.Contains(c.TrustDomain, "/") {
			errs = append(errs, fmt.Errorf("trust_domain: want a name such as example.org, of lower-case letters, digits, '.', '-' and '_'; got %q", c.TrustDomain))
		}
		s.domain = domain
	}
	if spiffeid.ValidatePathSegment(c.Cluster) != nil {
		errs = append(errs, fmt.Errorf("cluster: want letters, digits, '.', '-' and '_'; got %q", c.Cluster))
	}
	var err error
	if s.member, err = compile(cmp.Or(c.MemberPath, DefaultMemberPath), id, c.Cluster); err != nil {
		errs = append(errs, fmt.Errorf("member_path: %w", err))
	}
	if s.client, err = compile(cmp.Or(c.ClientPath, DefaultClientPath), name, c.Cluster); err != nil {
		errs = append(errs, fmt.Errorf("client_path: %w", err))
	}
	return s, errors.Join(errs...)
}

// compile returns the segments of a pattern with one placeholder.
func compile(pattern, placeholder, clusterID string) ([]string, error) {
	path, ok := strings.CutPrefix(pattern, "/")
	segments := strings.Split(path, "/")
	found := 0
	for i, segment := range segments {
		switch {
		case segment == placeholder:
			found++
		case segment == cluster:
			segments[i] = clusterID
		case spiffeid.ValidatePathSegment(segment) != nil:
			ok = false
		}
	}
	if !ok || found != 1 || placeholder == name && segments[len(segments)-1] != name {
		return nil, fmt.Errorf("want a path such as /ringside/%s/…/%s with one %s as a whole segment; got %q", cluster, placeholder, placeholder, pattern)
	}
	return segments, nil
}

// In returns the scheme in a trust domain, unless it has one already.
func (s *Scheme) In(domain spiffeid.TrustDomain) *Scheme {
	if !s.domain.IsZero() {
		return s
	}
	in := *s
	in.domain = domain
	return &in
}

// ErrForeign is the error for an id that is not one of the cluster.
var ErrForeign = errors.New("is neither a member nor a client of this cluster")

// Identify returns the role of an id, caller.Member or caller.Client, and for a member its id on the ring, as Segment writes
// it.
func (s *Scheme) Identify(of spiffeid.ID) (role caller.Kind, member string, err error) {
	if s.domain.IsZero() || !of.MemberOf(s.domain) { //guard:other-trust-domain-is-accepted
		return caller.Unknown, "", s.foreign(of)
	}
	segments := strings.Split(strings.TrimPrefix(of.Path(), "/"), "/")
	if member, ok := match(s.member, segments, id); ok {
		return caller.Member, member, nil
	}
	if _, ok := match(s.client, segments, name); ok {
		return caller.Client, "", nil
	}
	return caller.Unknown, "", s.foreign(of)
}

func (s *Scheme) foreign(of spiffeid.ID) error {
	return fmt.Errorf("%s %w: want %s or %s", of, ErrForeign, s.Member(id), s.uri(s.client, name, name))
}

// match returns the segment of the placeholder. {name} stands for the rest of the path.
func match(pattern, segments []string, placeholder string) (value string, ok bool) {
	if len(segments) < len(pattern) || len(segments) > len(pattern) && placeholder != name {
		return "", false
	}
	for i, want := range pattern {
		switch {
		case want == placeholder:
			value = segments[i]
		case want != segments[i]:
			return "", false
		}
	}
	return value, value != ""
}

// Member returns the SPIFFE id of the member that has the given id on the ring.
func (s *Scheme) Member(member string) string { return s.uri(s.member, id, Segment(member)) }

func (s *Scheme) uri(pattern []string, placeholder, value string) string {
	path := strings.ReplaceAll("/"+strings.Join(pattern, "/"), placeholder, value)
	return "spiffe://" + cmp.Or(s.domain.Name(), "{trust domain}") + path
}

// segment is for the addresses of static members, which are their ids. No two addresses become the same segment.
var segment = strings.NewReplacer(":", "_", "[", "_", "]", "_")

// Segment returns how the id of a member is written in a path, in which ':' and brackets are not allowed.
func Segment(member string) string { return segment.Replace(member) }

// Cluster returns the id of the cluster whose members are below a prefix in etcd: default for /ringside/default, and the whole
// path with dots for others.
func Cluster(prefix string) string {
	return strings.ReplaceAll(strings.TrimPrefix(strings.TrimPrefix(prefix, "/ringside/"), "/"), "/", ".")
}
