package ring

import (
	"context"
	"fmt"
	"slices"
)

// Directory is where members find each other.
type Directory interface {
	// Follow calls apply with the complete list of members as soon as it is known and after each change, never
	// concurrently, until ctx is done; then it returns nil. Members that say goodbye are in the list with Leaving set.
	// The list is apply's to keep. Any other return is an error that trying again would not mend.
	Follow(ctx context.Context, apply func([]Member)) error
	// Register keeps self published until ctx is done, then withdraws it, so that the others' rings move at once. It
	// blocks, and returns nil only after the withdrawal was tried, for a bounded time. Any other return is an error
	// that trying again would not mend.
	Register(ctx context.Context, self Member) error
}

// Static is the Directory of a cluster whose members are listed in the config of each of them. It never changes.
type Static []Member

// NewStatic lists the members with the given addresses (host:port). The address is each one's id and hash key, too.
func NewStatic(addrs []string) Static {
	s := make(Static, len(addrs))
	for i, addr := range addrs {
		s[i] = Member{ID: addr, HashKey: addr, Addr: addr}
	}
	return s
}

// Follow implements Directory.
func (s Static) Follow(ctx context.Context, apply func([]Member)) error {
	apply(slices.Clone(s))
	<-ctx.Done()
	return nil
}

// Register implements Directory. A list cannot publish anybody: it fails at once when self's hash key is not listed.
func (s Static) Register(ctx context.Context, self Member) error {
	listed := func(m Member) bool { return m.Key() == self.Key() }
	if !slices.ContainsFunc(s, listed) {
		return fmt.Errorf("register %q: the static list of members does not have it: add it to the list of each member",
			self.Key())
	}
	<-ctx.Done()
	return nil
}
