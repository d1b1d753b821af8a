package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"

	"github.com/ringside-cache/ringside/ring"
)

const (
	// pageSize is how many records one request lists: some 300 kB of usual ones.
	pageSize = 1000
	// listShare stretches the time between full lists with the number of members, so that all of them together ask
	// etcd for no more than n/listShare records a second.
	listShare = 30 * time.Millisecond
)

// Follow implements ring.Directory. apply must be quick: until it returns no change is read. It returns nil.
func (d *Directory) Follow(ctx context.Context, apply func([]ring.Member)) error {
	f := &follower{d: d, apply: apply}
	d.forever(ctx, &d.listing, f.session)
	return nil
}

// Relist makes Follow list all members now, and not wait for the next list that is due: for those who see, by other means
// than a watch, that the list may be wrong. It returns at once.
func (d *Directory) Relist() {
	select {
	case d.doubted <- struct{}{}:
	default:
	}
}

// follower is the state of one Follow, used by its goroutine only.
type follower struct {
	d     *Directory
	apply func([]ring.Member)

	table    *table
	cluster  uint64        // that the table was read from
	revision int64         // up to which the table is complete
	applied  []ring.Member // by the last apply; nil before the first
}

// session lists the members and watches them until the next list is due (nil) or something is odd.
func (f *follower) session(ctx context.Context, c *clientv3.Client) error {
	if err := f.list(ctx, c); err != nil {
		return fmt.Errorf("list %s: %w", f.d.membersPrefix(), err)
	}
	f.d.lists.Add(1)
	f.d.hold(&f.d.listing)
	f.publish()
	err := f.watch(ctx, c)
	f.publish() // what was seen but not settled; the next list may be long in coming
	if err != nil {
		f.d.watchBreaks.Add(1)
		return fmt.Errorf("watch %s: %w", f.d.membersPrefix(), err)
	}
	return nil
}

// publish applies the table unless the last apply said the same.
func (f *follower) publish() {
	members := f.table.members()
	f.d.members.Store(int64(len(members)))
	if f.applied != nil && slices.Equal(members, f.applied) {
		return
	}
	f.applied = slices.Clone(members) // the list is apply's to keep
	f.apply(members)
}

// list reads the whole directory into a new table, page by page, all of them of the revision of the first.
func (f *follower) list(ctx context.Context, c *clientv3.Client) error {
	t := newTable(f.d.membersPrefix(), f.d.refuse)
	from, end := t.prefix, clientv3.GetPrefixRangeEnd(t.prefix)
	var revision int64 // of the first page
	for limit := int64(pageSize); ; {
		page, err := f.page(ctx, c, from, clientv3.WithRange(end), clientv3.WithLimit(limit), clientv3.WithRev(revision))
		if codeOf(err) == codes.ResourceExhausted && limit > 1 {
			limit /= 2 // the page was larger than maxMessage: somebody wrote records that are far too large
			continue
		}
		if err != nil {
			return err
		}
		if revision == 0 {
			revision, f.cluster = page.Header.Revision, page.Header.ClusterId
		}
		for _, kv := range page.Kvs {
			t.put(string(kv.Key), kv.Value, kv.ModRevision)
		}
		if !page.More || len(page.Kvs) == 0 {
			break
		}
		from = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
	f.table, f.revision = t, revision
	f.d.heard(revision)
	return nil
}

func (f *follower) page(ctx context.Context, c *clientv3.Client, from string, opts ...clientv3.OpOption) (
	*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, f.d.timing.request)
	defer cancel()
	return c.Get(ctx, from, opts...)
}

// relistAfter is when the next full list is due. The list is there for what no watch tells: the client resumes a watch
// by itself after a reconnect, and on an etcd that was restored to an earlier revision it misses what comes before the
// revision that it waits for.
func (f *follower) relistAfter() time.Duration {
	due := max(f.d.timing.list, time.Duration(len(f.table.listed))*listShare)
	return due - rand.N(due/5+1) // or the members would ask in step
}

var errStalled = errors.New("no answer")

// watch follows the changes since the list. It returns nil when the next list is due.
func (f *follower) watch(ctx context.Context, c *clientv3.Client) error {
	due, cancel := context.WithTimeout(ctx, f.relistAfter())
	defer cancel()
	ctx, stop := context.WithCancelCause(clientv3.WithRequireLeader(due))
	defer stop(nil)
	stall := time.AfterFunc(f.d.timing.stall, func() { stop(errStalled) })
	defer stall.Stop()

	// From the revision of the list, not the next: while a watch waits for a revision that is yet to come, etcd leaves
	// questions for progress unanswered. The changes of that revision are in the table and do it no harm again.
	changes := c.Watch(ctx, f.table.prefix, clientv3.WithPrefix(), clientv3.WithFragment(), clientv3.WithRev(f.revision))
	err := f.consume(ctx, c, changes, func() { stall.Reset(f.d.timing.stall) })
	switch {
	case due.Err() != nil:
		return nil
	case context.Cause(ctx) != nil:
		return context.Cause(ctx)
	}
	return err
}

// consume takes changes into the table until the watch ends, or nil until a list is called for. A change waits
// timing.settle for others to come with it.
func (f *follower) consume(ctx context.Context, c *clientv3.Client, changes clientv3.WatchChan, alive func()) error {
	progress := time.NewTicker(f.d.timing.progress)
	defer progress.Stop()
	var settled <-chan time.Time
	for {
		select {
		case change, ok := <-changes:
			if !ok {
				return errors.New("ended")
			}
			if err := f.take(change); err != nil {
				return err
			}
			alive()
			if len(change.Events) > 0 && settled == nil {
				settled = time.After(f.d.timing.settle)
			}
		case <-f.d.doubted:
			return nil
		case <-settled:
			settled = nil
			f.publish()
		case <-progress.C:
			if err := c.RequestProgress(ctx); err != nil {
				return fmt.Errorf("ask for progress: %w", err)
			}
		}
	}
}

// take puts the events of one change into the table. An error is a reason to list.
func (f *follower) take(change clientv3.WatchResponse) error {
	if err := change.Err(); err != nil {
		return err
	}
	if change.Header.ClusterId != f.cluster {
		return fmt.Errorf("cluster is %x now, was %x", change.Header.ClusterId, f.cluster)
	}
	if change.Header.Revision < f.revision {
		return fmt.Errorf("revision went back from %d to %d", f.revision, change.Header.Revision)
	}
	f.revision = change.Header.Revision
	f.d.heard(f.revision)
	for _, e := range change.Events {
		f.takeEvent(e)
	}
	return nil
}

func (f *follower) takeEvent(e *clientv3.Event) {
	key := string(e.Kv.Key)
	if e.Type == clientv3.EventTypePut {
		f.table.put(key, e.Kv.Value, e.Kv.ModRevision)
		return
	}
	if f.table.leaving(key) {
		f.publish() // a goodbye must not be lost because the keys go within timing.settle after it
	}
	f.table.delete(key)
}
