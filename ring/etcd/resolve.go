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
	"github.com/ringside-cache/ringside/ring/record"
)

const (
	// pageSize is the number of records in one request: about 300 kB of ordinary ones.
	pageSize = 1000
	// checkShare extends the time between checks with the number of members, so that etcd counts at most n/checkShare records a
	// second for all of them together.
	checkShare = 30 * time.Millisecond
)

// Resolve implements ring.Directory. apply must be quick: no change is read until it returns. It returns nil.
func (d *Directory) Resolve(ctx context.Context, apply func([]ring.Member)) error {
	r := &watcher{d: d, apply: apply}
	d.keepTrying(ctx, &d.listing, r.session)
	return nil
}

// Relist makes Resolve list all members now instead of at the next planned time. Call it when there is a sign that the
// list may be wrong. It does not block.
func (d *Directory) Relist() {
	select {
	case d.relist <- struct{}{}:
	default:
	}
}

// watcher is the state of one Resolve, used by its goroutine only.
type watcher struct {
	d     *Directory
	apply func([]ring.Member)

	table    *record.Table
	cluster  uint64        // from which the table was read
	revision int64         // up to which the table is complete
	applied  []ring.Member // by the last call of apply; nil before the first
}

// session lists the members and watches them until there is a reason for another list (nil) or an error.
func (r *watcher) session(ctx context.Context, c *clientv3.Client) error {
	if err := r.list(ctx, c); err != nil {
		return fmt.Errorf("list %s: %w", r.d.membersPrefix(), err)
	}
	r.d.lists.Add(1)
	r.d.hold(&r.d.listing)
	r.publish()
	err := r.watch(ctx, c)
	r.publish() // changes that waited for others; the next list may take long
	if err != nil {
		r.d.watchErrors.Add(1)
		return fmt.Errorf("watch %s: %w", r.d.membersPrefix(), err)
	}
	return nil
}

// publish applies the table unless it is unchanged since the last time.
func (r *watcher) publish() {
	members := r.table.Members()
	r.d.members.Store(int64(len(members)))
	if r.applied != nil && slices.Equal(members, r.applied) {
		return
	}
	r.applied = slices.Clone(members) // apply owns the list
	r.apply(members)
}

// list reads the whole directory into a new table, page by page. All pages have the revision of the first.
func (r *watcher) list(ctx context.Context, c *clientv3.Client) error {
	prefix := r.d.membersPrefix()
	t := record.NewTable(prefix, r.d.rejectRecord)
	from, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	var revision int64 // of the first page
	for limit := int64(pageSize); ; {
		page, err := r.page(ctx, c, from, clientv3.WithRange(end), clientv3.WithLimit(limit), clientv3.WithRev(revision))
		if codeOf(err) == codes.ResourceExhausted && limit > 1 {
			limit /= 2 // the page was larger than maxMessage: there are records that are far too large
			continue
		}
		if err != nil {
			return err
		}
		if revision == 0 {
			revision, r.cluster = page.Header.Revision, page.Header.ClusterId
		}
		for _, kv := range page.Kvs {
			t.Put(string(kv.Key), kv.Value, kv.ModRevision)
		}
		if !page.More || len(page.Kvs) == 0 {
			break
		}
		from = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00"
	}
	r.table, r.revision = t, revision
	r.d.recordContact()
	return nil
}

func (r *watcher) page(ctx context.Context, c *clientv3.Client, from string, opts ...clientv3.OpOption) (
	*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, r.d.timing.request)
	defer cancel()
	return c.Get(ctx, from, opts...)
}

// checkAfter returns the time until the next check.
func (r *watcher) checkAfter() time.Duration {
	due := max(r.d.timing.check, time.Duration(r.table.Len())*checkShare)
	return due - rand.N(due/5+1) // so that the members do not check at the same time
}

// complete reports whether etcd has as many records as this watch has seen. It is a second way to find what a watch misses, and
// costs a number instead of all records. A record that is changing at this moment costs a list for nothing.
func (r *watcher) complete(ctx context.Context, c *clientv3.Client) (bool, error) {
	count, err := r.page(ctx, c, r.d.membersPrefix(), clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return false, err
	}
	r.d.recordContact()
	r.d.checks.Add(1)
	return count.Header.ClusterId == r.cluster && count.Count == int64(r.table.Keys()), nil
}

var errStalled = errors.New("no response from etcd")

// errReconnected and errIncomplete end a watch, so that another list follows.
var (
	errReconnected = errors.New("the connection was interrupted")
	errIncomplete  = errors.New("the watch has missed changes")
)

// watch applies the changes since the list. It returns nil when there is a reason for another list.
func (r *watcher) watch(ctx context.Context, c *clientv3.Client) error {
	ctx, stop := context.WithCancelCause(clientv3.WithRequireLeader(ctx))
	defer stop(nil)
	go func() {
		if r.d.dialer.Interrupted(ctx, c) { //guard:watch-resumes-at-a-later-revision
			stop(errReconnected)
		}
	}()
	stall := time.AfterFunc(r.d.timing.stall, func() { stop(errStalled) })
	defer stall.Stop()

	// From the revision of the list, not the next one: while a watch waits for a future revision, etcd does not answer
	// progress requests. The changes of that revision are already in the table, and applying them again has no effect.
	changes := c.Watch(ctx, r.d.membersPrefix(), clientv3.WithPrefix(), clientv3.WithFragment(), clientv3.WithRev(r.revision))
	err := r.consume(ctx, c, changes, func() { stall.Reset(r.d.timing.stall) })
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if errors.Is(err, errIncomplete) {
		return nil
	}
	return err
}

// consume applies changes to the table until the watch ends. It returns nil when a list is requested. Changes within
// timing.settle are published together.
func (r *watcher) consume(ctx context.Context, c *clientv3.Client, changes clientv3.WatchChan, alive func()) error {
	progress := time.NewTicker(r.d.timing.progress)
	defer progress.Stop()
	check := time.NewTimer(r.checkAfter())
	defer check.Stop()
	var settled <-chan time.Time
	for {
		select {
		case change, ok := <-changes:
			if !ok {
				return errors.New("watch ended")
			}
			if err := r.applyChange(change); err != nil {
				return err
			}
			alive()
			if len(change.Events) > 0 && settled == nil {
				settled = time.After(r.d.timing.settle)
			}
		case <-r.d.relist:
			return nil
		case <-settled:
			settled = nil
			r.publish()
		case <-check.C:
			complete, err := r.complete(ctx, c)
			if err != nil {
				return fmt.Errorf("check: %w", err)
			}
			if !complete { //guard:missed-changes-stay-missed
				return errIncomplete
			}
			check.Reset(r.checkAfter())
		case <-progress.C:
			if err := c.RequestProgress(ctx); err != nil {
				return fmt.Errorf("request progress: %w", err)
			}
		}
	}
}

// applyChange applies the events of one change to the table. An error is a reason to list.
func (r *watcher) applyChange(change clientv3.WatchResponse) error {
	if err := change.Err(); err != nil {
		return err
	}
	if change.Header.ClusterId != r.cluster {
		return fmt.Errorf("cluster id is %x, was %x", change.Header.ClusterId, r.cluster)
	}
	if change.Header.Revision < r.revision {
		return fmt.Errorf("revision went back from %d to %d", r.revision, change.Header.Revision)
	}
	r.revision = change.Header.Revision
	r.d.recordContact()
	for _, e := range change.Events {
		r.applyEvent(e)
	}
	return nil
}

func (r *watcher) applyEvent(e *clientv3.Event) {
	key := string(e.Kv.Key)
	if e.Type == clientv3.EventTypePut {
		r.table.Put(key, e.Kv.Value, e.Kv.ModRevision)
		return
	}
	if r.table.Leaving(key) {
		r.publish() // without waiting: apply must see the member as leaving before it is gone
	}
	r.table.Delete(key)
}
