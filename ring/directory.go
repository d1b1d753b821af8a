package ring

import (
	"context"
	"fmt"
	"slices"
)

// Directory lists the members.
type Directory interface {
	// Resolve calls apply with the complete list of members when it is first known and after each change, never
	// concurrently, until ctx is done; then it returns nil. Members that are shutting down are in the list with Leaving
	// set. apply owns the list. Any other return is an error that a retry would not fix.
	Resolve(ctx context.Context, apply func([]Member)) error
	// Register keeps self in the directory until ctx is done and then deregisters it, so that the other members change
	// their rings immediately. It blocks, and returns nil after it has tried to deregister, for a limited time. Any other
	// return is an error that a retry would not fix.
	Register(ctx context.Context, self Member) error
}

// Static is the Directory of a cluster whose members are listed in the configuration of each member. It never changes.
type Static []Member

// NewStatic lists the members with the given addresses (host:port). The address of a member is also its id and hash key.
func NewStatic(addrs []string) Static {
	s := make(Static, len(addrs))
	for i, addr := range addrs {
		s[i] = Member{ID: addr, HashKey: addr, Addr: addr}
	}
	return s
}

// Resolve implements Directory.
func (s Static) Resolve(ctx context.Context, apply func([]Member)) error {
	apply(slices.Clone(s))
	<-ctx.Done()
	return nil
}

// Register implements Directory. It fails immediately when the list does not have the hash key of self.
func (s Static) Register(ctx context.Context, self Member) error {
	listed := func(m Member) bool { return m.Key() == self.Key() }
	if !slices.ContainsFunc(s, listed) {
		return fmt.Errorf("register %q: not in the static list of members: add it to the list of each member",
			self.Key())
	}
	<-ctx.Done()
	return nil
}
