package simulation

import (
	"context"
	"io"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// etcdServer is an etcd in memory: the requests that ring/etcd makes, with revisions, leases and watches as those of etcd.
type etcdServer struct {
	mu          sync.Mutex // guards the rest
	store       store
	watches     map[*watch]struct{}
	interrupted chan struct{} // closed when the server goes down; nil while it is down
	load        load
}

// store is what a backup has.
type store struct {
	cluster  uint64
	revision int64
	granted  int64    // leases
	keys     []string // sorted
	values   map[string]*mvccpb.KeyValue
	leases   map[int64]*lease
	history  []*clientv3.Event
}

type lease struct {
	ttl    time.Duration
	keys   map[string]bool
	expiry *time.Timer
}

// load is what the server has done.
type load struct {
	Clients, Watches, Requests, Bytes, Events, EventBytes int64
	perSecond                                             map[int64]int64 // :: Unix time → requests
}

func newEtcdServer() *etcdServer {
	return &etcdServer{
		store:   store{cluster: 1, revision: 1, values: map[string]*mvccpb.KeyValue{}, leases: map[int64]*lease{}},
		watches: map[*watch]struct{}{}, interrupted: make(chan struct{}), load: load{perSecond: map[int64]int64{}},
	}
}

// stop makes the server unavailable. Its leases do not expire meanwhile.
func (s *etcdServer) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.interrupted)
	s.interrupted = nil
	for w := range s.watches {
		w.cancel()
	}
	for _, l := range s.store.leases {
		l.expiry.Stop()
	}
}

// start makes the server available again, with its own data, or with those of a backup. As etcd does, it gives all leases their
// full time.
func (s *etcdServer) start(backup *store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if backup != nil {
		s.store = *backup
		s.store.cluster++
	}
	s.interrupted = make(chan struct{})
	for id, l := range s.store.leases {
		s.expireLocked(id, l)
	}
}

// backup copies the data.
func (s *etcdServer) backup() *store {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.store
	c.keys, c.values, c.history = slices.Clone(c.keys), maps.Clone(c.values), nil
	c.leases = make(map[int64]*lease, len(s.store.leases))
	for id, l := range s.store.leases {
		c.leases[id] = &lease{ttl: l.ttl, keys: maps.Clone(l.keys)}
	}
	return &c
}

// snapshot returns the load so far.
func (s *etcdServer) snapshot() load {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.load
	l.Watches, l.perSecond = int64(len(s.watches)), maps.Clone(l.perSecond)
	return l
}

func (s *etcdServer) expireLocked(id int64, l *lease) {
	l.expiry = time.AfterFunc(l.ttl, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.store.leases[id] == l {
			s.revokeLocked(id)
		}
	})
}

func (s *etcdServer) revokeLocked(id int64) {
	l := s.store.leases[id]
	if l == nil {
		return
	}
	l.expiry.Stop()
	delete(s.store.leases, id)
	s.store.revision++
	for _, key := range slices.Sorted(maps.Keys(l.keys)) {
		s.deleteLocked(key)
	}
}

// deleteLocked deletes a key at the present revision.
func (s *etcdServer) deleteLocked(key string) {
	old := s.store.values[key]
	if old == nil {
		return
	}
	delete(s.store.values, key)
	at, _ := slices.BinarySearch(s.store.keys, key)
	s.store.keys = slices.Delete(s.store.keys, at, at+1)
	if l := s.store.leases[old.Lease]; l != nil {
		delete(l.keys, key)
	}
	s.publishLocked(&clientv3.Event{Type: clientv3.EventTypeDelete, Kv: &mvccpb.KeyValue{Key: []byte(key), ModRevision: s.store.revision}})
}

// putLocked writes a key at the present revision.
func (s *etcdServer) putLocked(r *pb.PutRequest) error {
	key, id := string(r.Key), r.Lease
	old := s.store.values[key]
	next := &mvccpb.KeyValue{Key: r.Key, Value: r.Value, CreateRevision: s.store.revision, ModRevision: s.store.revision, Version: 1}
	if old != nil {
		next.CreateRevision, next.Version = old.CreateRevision, old.Version+1
		if r.IgnoreLease {
			id = old.Lease
		}
		if l := s.store.leases[old.Lease]; l != nil {
			delete(l.keys, key)
		}
	} else {
		at, _ := slices.BinarySearch(s.store.keys, key)
		s.store.keys = slices.Insert(s.store.keys, at, key)
	}
	next.Lease = id
	if l := s.store.leases[id]; l != nil {
		l.keys[key] = true
	} else if id != 0 {
		return status.Error(codes.NotFound, "etcdserver: requested lease not found")
	}
	s.store.values[key] = next
	s.publishLocked(&clientv3.Event{Type: clientv3.EventTypePut, Kv: next})
	return nil
}

func (s *etcdServer) publishLocked(e *clientv3.Event) {
	s.store.history = append(s.store.history, e)
	for w := range s.watches {
		s.sendLocked(w, e)
	}
}

func (s *etcdServer) sendLocked(w *watch, e *clientv3.Event) {
	if strings.HasPrefix(string(e.Kv.Key), w.prefix) {
		n := int64(proto.Size((*mvccpb.Event)(e)))
		s.load.Events++
		s.load.EventBytes += n
		w.pod.counts.etcdEvents.Add(1)
		w.pod.counts.etcdBytes.Add(n)
		w.queueLocked(e)
	}
}

// admit counts a request and waits for its way to the server and back. It fails if that is not possible.
func (s *etcdServer) admit(ctx context.Context, p *pod, request proto.Message) error {
	if err := p.cluster.travel(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.interrupted == nil || p.dead() {
		return status.Error(codes.Unavailable, "connection refused")
	}
	s.countLocked(p, proto.Size(request))
	s.load.Requests++
	s.load.perSecond[time.Now().Unix()]++
	p.counts.etcdRequests.Add(1)
	return nil
}

func (s *etcdServer) countLocked(p *pod, payload int) {
	n := int64(payload + overhead)
	s.load.Bytes += n
	p.counts.etcdBytes.Add(n)
}

// answer counts a response.
func answer[M proto.Message](s *etcdServer, p *pod, response M) (M, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.countLocked(p, proto.Size(response))
	return response, nil
}

func (s *etcdServer) headerLocked() *pb.ResponseHeader {
	return &pb.ResponseHeader{ClusterId: s.store.cluster, MemberId: 1, Revision: s.store.revision, RaftTerm: 2}
}

func (s *etcdServer) rangeLocked(r *pb.RangeRequest) *pb.RangeResponse {
	from := sort.SearchStrings(s.store.keys, string(r.Key))
	to := from
	switch end := string(r.RangeEnd); end {
	case "":
		if from < len(s.store.keys) && s.store.keys[from] == string(r.Key) {
			to++
		}
	default:
		to = sort.SearchStrings(s.store.keys, end)
	}
	found := &pb.RangeResponse{Header: s.headerLocked(), Count: int64(max(to-from, 0))}
	if r.CountOnly {
		return found
	}
	for _, key := range s.store.keys[from:max(to, from)] {
		if r.Limit > 0 && int64(len(found.Kvs)) == r.Limit {
			found.More = true
			break
		}
		found.Kvs = append(found.Kvs, s.store.values[key])
	}
	return found
}

func (s *etcdServer) holdsLocked(c *pb.Compare) bool {
	kv := s.store.values[string(c.Key)]
	if kv == nil {
		kv = &mvccpb.KeyValue{}
	}
	switch c.Target {
	case pb.Compare_MOD:
		return kv.ModRevision == c.GetModRevision()
	case pb.Compare_LEASE:
		return kv.Lease == c.GetLease()
	case pb.Compare_VALUE:
		return string(kv.Value) == string(c.GetValue())
	}
	panic("the simulated etcd does not compare " + c.Target.String())
}

func (s *etcdServer) txnLocked(r *pb.TxnRequest) (*pb.TxnResponse, error) {
	held := !slices.ContainsFunc(r.Compare, func(c *pb.Compare) bool { return !s.holdsLocked(c) })
	ops := r.Failure
	if held {
		ops = r.Success
	}
	done := &pb.TxnResponse{Succeeded: held}
	for _, op := range ops {
		var response pb.ResponseOp
		switch r := op.Request.(type) {
		case *pb.RequestOp_RequestRange:
			response.Response = &pb.ResponseOp_ResponseRange{ResponseRange: s.rangeLocked(r.RequestRange)}
		case *pb.RequestOp_RequestPut:
			if err := s.putLocked(r.RequestPut); err != nil {
				return nil, err
			}
			response.Response = &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}
		case *pb.RequestOp_RequestDeleteRange:
			s.deleteLocked(string(r.RequestDeleteRange.Key))
			response.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: &pb.DeleteRangeResponse{}}
		case *pb.RequestOp_RequestTxn:
			nested, err := s.txnLocked(r.RequestTxn)
			if err != nil {
				return nil, err
			}
			response.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: nested}
		}
		done.Responses = append(done.Responses, &response)
	}
	done.Header = s.headerLocked()
	return done, nil
}

// remote is the server as one pod reaches it: the KVClient, the LeaseClient and the Watcher of its client.
type remote struct {
	pb.KVClient
	pb.LeaseClient
	*etcdServer
	pod *pod
}

// Dial implements etcd.Dialer. KV and leases are etcd's own client; its watcher waits for a channel of the whole process, which
// stops virtual time.
func (r *remote) Dial(ctx context.Context, _ string) (*clientv3.Client, error) {
	r.mu.Lock()
	r.load.Clients++
	r.mu.Unlock()
	c := clientv3.NewCtxClient(ctx)
	c.KV, c.Lease = clientv3.NewKVFromKVClient(r, c), clientv3.NewLeaseFromLeaseClient(r, c, 2*time.Second)
	c.Watcher = &watcher{remote: r}
	return c, nil
}

// Interrupted implements etcd.Dialer.
func (r *remote) Interrupted(ctx context.Context, _ *clientv3.Client) bool {
	r.mu.Lock()
	interrupted := r.interrupted
	r.mu.Unlock()
	if interrupted == nil {
		return true
	}
	select {
	case <-interrupted:
		return true
	case <-ctx.Done():
		return false
	}
}

// Range implements pb.KVClient.
func (r *remote) Range(ctx context.Context, in *pb.RangeRequest, _ ...grpc.CallOption) (*pb.RangeResponse, error) {
	if err := r.admit(ctx, r.pod, in); err != nil {
		return nil, err
	}
	r.mu.Lock()
	out := r.rangeLocked(in)
	r.mu.Unlock()
	return answer(r.etcdServer, r.pod, out)
}

// Txn implements pb.KVClient.
func (r *remote) Txn(ctx context.Context, in *pb.TxnRequest, _ ...grpc.CallOption) (*pb.TxnResponse, error) {
	if err := r.admit(ctx, r.pod, in); err != nil {
		return nil, err
	}
	r.mu.Lock()
	events := len(r.store.history)
	r.store.revision++
	out, err := r.txnLocked(in)
	if len(r.store.history) == events {
		r.store.revision-- // it has written nothing
	}
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return answer(r.etcdServer, r.pod, out)
}

// LeaseGrant implements pb.LeaseClient.
func (r *remote) LeaseGrant(ctx context.Context, in *pb.LeaseGrantRequest, _ ...grpc.CallOption) (*pb.LeaseGrantResponse, error) {
	if err := r.admit(ctx, r.pod, in); err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.store.granted++
	id, l := r.store.granted<<8|int64(r.store.cluster), &lease{ttl: time.Duration(in.TTL) * time.Second, keys: map[string]bool{}}
	r.store.leases[id] = l
	r.expireLocked(id, l)
	out := &pb.LeaseGrantResponse{Header: r.headerLocked(), ID: id, TTL: in.TTL}
	r.mu.Unlock()
	return answer(r.etcdServer, r.pod, out)
}

// LeaseRevoke implements pb.LeaseClient.
func (r *remote) LeaseRevoke(ctx context.Context, in *pb.LeaseRevokeRequest, _ ...grpc.CallOption) (*pb.LeaseRevokeResponse, error) {
	if err := r.admit(ctx, r.pod, in); err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.revokeLocked(in.ID)
	out := &pb.LeaseRevokeResponse{Header: r.headerLocked()}
	r.mu.Unlock()
	return answer(r.etcdServer, r.pod, out)
}

// LeaseKeepAlive implements pb.LeaseClient.
func (r *remote) LeaseKeepAlive(ctx context.Context, _ ...grpc.CallOption) (grpc.BidiStreamingClient[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse], error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.interrupted == nil || r.pod.dead() {
		return nil, status.Error(codes.Unavailable, "connection refused")
	}
	return &keepAlive{remote: r, ctx: ctx, interrupted: r.interrupted, answers: make(chan *pb.LeaseKeepAliveResponse, 16)}, nil
}

type keepAlive struct {
	grpc.ClientStream
	*remote
	ctx         context.Context
	interrupted chan struct{}
	answers     chan *pb.LeaseKeepAliveResponse
}

// Send implements the stream.
func (k *keepAlive) Send(in *pb.LeaseKeepAliveRequest) error {
	if err := k.admit(k.ctx, k.pod, in); err != nil {
		return io.EOF
	}
	k.mu.Lock()
	out := &pb.LeaseKeepAliveResponse{Header: k.headerLocked(), ID: in.ID}
	if l := k.store.leases[in.ID]; l != nil {
		l.expiry.Reset(l.ttl)
		out.TTL = int64(l.ttl / time.Second)
	}
	k.mu.Unlock()
	_, err := answer(k.etcdServer, k.pod, out)
	k.answers <- out
	return err
}

// Context implements the stream.
func (k *keepAlive) Context() context.Context { return k.ctx }

// CloseSend implements the stream.
func (*keepAlive) CloseSend() error { return nil }

// Recv implements the stream.
func (k *keepAlive) Recv() (*pb.LeaseKeepAliveResponse, error) {
	select {
	case out := <-k.answers:
		return out, nil
	case <-k.interrupted:
		return nil, status.Error(codes.Unavailable, "connection lost")
	case <-k.ctx.Done():
		return nil, status.FromContextError(k.ctx.Err()).Err()
	}
}

// watcher is a clientv3.Watcher of one pod.
type watcher struct {
	remote *remote
	watch  *watch // the latest
}

// watch is a watch of the keys with a prefix.
type watch struct {
	prefix string
	pod    *pod
	cancel context.CancelFunc
	queue  []*clientv3.Event // that are on their way
	news   chan struct{}     // has a token if there are some, or a progress notification
}

func (w *watch) queueLocked(events ...*clientv3.Event) {
	w.queue = append(w.queue, events...)
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// Watch implements clientv3.Watcher.
func (w *watcher) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	s, from := w.remote.etcdServer, clientv3.OpGet(key, opts...).Rev()
	ctx, cancel := context.WithCancel(ctx)
	one := &watch{prefix: key, pod: w.remote.pod, cancel: cancel, news: make(chan struct{}, 1)}
	out := make(chan clientv3.WatchResponse)
	s.mu.Lock()
	w.watch = one
	if s.interrupted == nil {
		cancel()
	}
	s.watches[one] = struct{}{}
	for _, e := range s.store.history {
		if e.Kv.ModRevision >= from {
			s.sendLocked(one, e)
		}
	}
	s.mu.Unlock()
	go s.deliver(ctx, one, out)
	return out
}

func (s *etcdServer) deliver(ctx context.Context, w *watch, out chan<- clientv3.WatchResponse) {
	defer func() {
		s.mu.Lock()
		delete(s.watches, w)
		s.mu.Unlock()
		w.cancel()
		close(out)
	}()
	for {
		select {
		case <-w.news:
		case <-ctx.Done():
			return
		}
		if w.pod.cluster.travel(ctx) != nil || w.pod.dead() {
			return
		}
		s.mu.Lock()
		response := clientv3.WatchResponse{Header: s.headerLocked(), Events: w.queue}
		w.queue = nil
		s.countLocked(w.pod, proto.Size(response.Header))
		s.mu.Unlock()
		select {
		case out <- response:
		case <-ctx.Done():
			return
		}
	}
}

// RequestProgress implements clientv3.Watcher.
func (w *watcher) RequestProgress(ctx context.Context) error {
	if err := w.remote.admit(ctx, w.remote.pod, &pb.WatchProgressRequest{}); err != nil {
		return err
	}
	w.remote.mu.Lock()
	defer w.remote.mu.Unlock()
	w.watch.queueLocked()
	return nil
}

// Close implements clientv3.Watcher.
func (w *watcher) Close() error { return nil }
