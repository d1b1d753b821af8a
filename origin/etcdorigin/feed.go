package etcdorigin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/ring/printable"
)

const (
	// answerTimeout is how long etcd may be silent; then the feed has broken. It is that of the feeds of databases.
	answerTimeout = 1500 * time.Millisecond
	// progressInterval is the time between two requests that etcd answers as soon as it has sent all changes.
	progressInterval = 500 * time.Millisecond
	// beginInterval is the same until the first answer: etcd begins a watch that has changes to catch up with within 100 ms.
	beginInterval = 100 * time.Millisecond
)

// Feed implements origin.FeedSource.
func (s *source) Feed(ds origin.Dataset, c origin.FeedConfig) (origin.Feed, error) {
	d, err := s.dataset(ds)
	if err != nil {
		return nil, err
	}
	if c.Kind != origin.FeedWatch || len(c.Tables) > 0 {
		return nil, &origin.FieldError{Field: "feed", Err: fmt.Errorf("want {kind: %s}, without tables", origin.FeedWatch)}
	}
	return &feed{dataset: d}, nil
}

// CheckFeed implements origin.FeedSource. A watch needs the same rights as a read of the prefix.
func (s *source) CheckFeed(ctx context.Context, ds origin.Dataset, c origin.FeedConfig) error {
	if _, err := s.Feed(ds, c); err != nil {
		return err
	}
	err := s.Check(ctx, ds)
	if isDenied(err) {
		err = fmt.Errorf("%w: %w", origin.ErrFeedUnavailable, err)
	}
	return err
}

// feed is the change feed of a prefix: a watch on a connection of its own. It uses the stream of etcd's protocol, because the watch of the
// client keeps any amount of changes in memory, and continues by itself after etcd was restored to an earlier revision.
type feed struct {
	*dataset

	following sync.Mutex // held while Follow runs; guards the rest
	next      int        // of the endpoints
	position  position
	pending   pending
}

// position is a state of a cluster.
type position struct {
	cluster, term uint64
	// revision is the one up to which all changes are in pending, or reported; 0: none.
	revision int64
}

// mayPrecede reports whether h may be of a later state of the same data. It is not if etcd was restored from a backup.
func (p position) mayPrecede(h *pb.ResponseHeader) bool {
	return p.revision > 0 && h.GetClusterId() == p.cluster && h.GetRevision() >= p.revision && h.GetRaftTerm() >= p.term
}

var (
	errFollowed = errors.New("another Follow of this feed is already running")
	errSilent   = fmt.Errorf("etcd has not answered for %v", answerTimeout)
)

// Follow implements origin.Feed.
func (f *feed) Follow(ctx context.Context, handle func(origin.Changes)) error {
	err := f.follow(ctx, handle)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return f.explain(fmt.Errorf("feed: %w", err))
}

func (f *feed) follow(ctx context.Context, handle func(origin.Changes)) error {
	if !f.following.TryLock() {
		return errFollowed
	}
	defer f.following.Unlock()
	endpoint := f.endpoints[f.next%len(f.endpoints)]
	f.next++
	client, err := f.begin(ctx, endpoint)
	if err != nil {
		return safe(err)
	}
	defer client.Close() // nothing was written that an error could concern
	return safe(f.watch(ctx, client, handle))
}

// begin connects, and checks that the changes since the position are those of the same data.
func (f *feed) begin(ctx context.Context, endpoint string) (*clientv3.Client, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, errSilent)
	defer cancel()
	client, err := f.dial(ctx, endpoint)
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	now, err := client.Get(ctx, f.prefix, clientv3.WithPrefix(), clientv3.WithLimit(1), clientv3.WithKeysOnly())
	if err != nil {
		_ = client.Close() // the error of the request says more
		return nil, causeOf(ctx, err)
	}
	if !f.position.mayPrecede(now.Header) { //guard:feed-waits-for-a-revision-of-the-past
		f.pending.miss()
		f.position = position{cluster: now.Header.ClusterId, revision: now.Header.Revision}
	}
	f.position.term = now.Header.RaftTerm
	return client, nil
}

// causeOf returns why ctx is done, and otherwise err.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// watch passes the changes since the position on, until the watch ends.
func (f *feed) watch(ctx context.Context, client *clientv3.Client, handle func(origin.Changes)) error {
	ctx, cancel := context.WithCancelCause(clientv3.WithRequireLeader(ctx))
	silence := time.AfterFunc(answerTimeout, func() { cancel(errSilent) })
	var requests sync.WaitGroup
	defer requests.Wait()
	defer cancel(nil)
	defer silence.Stop()
	stream, err := pb.NewWatchClient(client.ActiveConnection()).Watch(ctx, grpc.WaitForReady(false))
	if err != nil {
		return causeOf(ctx, err)
	}
	// From the position, not the revision after it: while a watch waits for a revision of the future, etcd reports no progress.
	create := &pb.WatchCreateRequest{
		Key: []byte(f.prefix), RangeEnd: []byte(clientv3.GetPrefixRangeEnd(f.prefix)), StartRevision: f.position.revision, Fragment: true,
	}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		return causeOf(ctx, err)
	}
	live := make(chan struct{})
	requests.Go(func() { requestProgress(ctx, stream, live) })
	for isLive := false; ; {
		resp, err := stream.Recv()
		if codeOf(err) == codes.ResourceExhausted { // it would be too large the next time, too
			f.position = position{}
		}
		if err != nil {
			return causeOf(ctx, err)
		}
		silence.Stop() // handle is not etcd
		synced, err := f.receive(resp)
		if err != nil {
			return err
		}
		if synced && !isLive {
			isLive = true
			close(live)
			if f.pending.isEmpty() {
				handle(origin.Changes{}) // the feed misses nothing from here on
			}
		}
		if isLive { //guard:feed-of-etcd-is-live-before-it-has-caught-up
			f.pending.report(handle)
		}
		silence.Reset(answerTimeout)
	}
}

// requestProgress asks for the progress of all watches of a stream until ctx is done: often until live is closed.
func requestProgress(ctx context.Context, stream pb.Watch_WatchClient, live <-chan struct{}) {
	ticker := time.NewTicker(beginInterval)
	defer ticker.Stop()
	progress := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
	for {
		select {
		case <-ctx.Done():
			return
		case <-live:
			ticker.Reset(progressInterval)
			live = nil
		case <-ticker.C:
			if stream.Send(progress) != nil {
				return // Recv returns the error
			}
		}
	}
}

// receive adds the changes of a response to pending. It reports whether etcd has sent all changes.
func (f *feed) receive(resp *pb.WatchResponse) (synced bool, err error) {
	h := resp.GetHeader()
	switch {
	case resp.GetCompactRevision() != 0: //guard:compacted-changes-are-not-missed
		from := f.position.revision
		f.position = position{}
		return false, fmt.Errorf("etcd has compacted changes since revision %d", from)
	case resp.GetCanceled():
		return false, canceled(resp.GetCancelReason())
	case resp.GetCreated():
		return false, nil
	case !f.position.mayPrecede(h):
		f.position = position{}
		return false, errors.New("etcd has changed to another cluster, or an earlier revision")
	}
	last := f.position.revision
	for _, e := range resp.GetEvents() {
		if e.GetKv().GetModRevision() > f.position.revision { // the position was reported before
			f.add(e)
			last = max(last, e.Kv.ModRevision)
		}
	}
	synced = len(resp.GetEvents()) == 0
	if synced {
		last = h.GetRevision()
	}
	if !resp.GetFragment() { //guard:position-within-a-revision
		f.position.revision = last
	}
	return synced, nil
}

func (f *feed) add(e *mvccpb.Event) {
	key, ok := strings.CutPrefix(string(e.Kv.Key), f.prefix)
	if !ok || checkKey(key) != nil {
		return // no such key can be requested
	}
	version := e.Kv.ModRevision
	if e.Type == mvccpb.Event_DELETE {
		version = 0
	}
	f.pending.add(key, version)
}

// canceled returns the error of a watch that etcd has ended.
func canceled(reason string) error {
	if reason == rpctypes.ErrorDesc(rpctypes.ErrGRPCPermissionDenied) {
		return fmt.Errorf("%w: %w", origin.ErrFeedUnavailable, rpctypes.ErrPermissionDenied)
	}
	return fmt.Errorf("etcd has ended the watch: %s", printable.Text(reason))
}

const (
	// maxPending limits the keys that wait to be reported. If more have changed, it costs less to report that any may have.
	maxPending = 10_000
	// maxRows limits the rows of one origin.Changes.
	maxRows = 1000
)

// pending are changes that wait to be reported.
type pending struct {
	missed   bool
	versions map[string]int64 // :: key → version of its value now; 0: it has none
}

// miss records that any key may have changed, and forgets which did.
func (p *pending) miss() { p.missed, p.versions = true, nil }

func (p *pending) isEmpty() bool { return !p.missed && len(p.versions) == 0 }

func (p *pending) add(key string, version int64) {
	if p.missed {
		return
	}
	if p.versions == nil {
		p.versions = make(map[string]int64)
	}
	if p.versions[key] = version; len(p.versions) > maxPending { //guard:pending-changes-of-etcd-without-limit
		p.miss()
	}
}

// report passes the changes on in pieces, and forgets them.
func (p *pending) report(handle func(origin.Changes)) {
	missed, versions := p.missed, p.versions
	*p = pending{}
	if missed {
		handle(origin.Changes{Missed: true})
	}
	var rows []origin.Changed
	for key, version := range versions {
		rows = append(rows, origin.Changed{Key: key, Version: version})
		if len(rows) == maxRows {
			handle(origin.Changes{Rows: rows})
			rows = nil
		}
	}
	if len(rows) > 0 {
		handle(origin.Changes{Rows: rows})
	}
}
