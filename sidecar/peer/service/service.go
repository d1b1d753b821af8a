// Package service answers the calls of other members, within limits, and streams invalidations to them.
package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer/invalidationlog"
	"github.com/ringside-cache/ringside/sidecar/peer/memberlist"
	"github.com/ringside-cache/ringside/sidecar/peer/peererror"
	"github.com/ringside-cache/ringside/sidecar/peer/quota"
	"github.com/ringside-cache/ringside/sidecar/peer/wire"
)

// Dataset serves the calls about one dataset. *cache.Dataset implements it.
type Dataset interface {
	// Serve answers from memory or with a load, and calls another member only if q asks for that (Relay, Zone).
	Serve(ctx context.Context, q kv.Query) (kv.Answer, error)
	// ServeHit is Serve where an entry in memory, with a value of at most the given size and without a data error, answers at
	// once. Otherwise it reports false, and counts nothing. The strings of q are the caller's, who reuses their memory.
	ServeHit(q kv.Query, most int) (kv.Answer, bool)
	// ServeMany answers many queries as Serve does, with as few loads as possible. The values are limited; queries beyond
	// get kv.ErrBatchBytes.
	ServeMany(ctx context.Context, qs []kv.Query, limit kv.BatchLimit) []kv.Result
	// ServeWrite makes a change, and never calls another member.
	ServeWrite(ctx context.Context, c kv.Change) (kv.Answer, error)
	// ServeWriteMany makes changes of distinct keys in one transaction, if the origin can. The results have no values.
	ServeWriteMany(ctx context.Context, cs []kv.Change) []kv.Result
	Stats() *kv.Stats
}

// Ring says which keys this member owns. *peer.Pool implements it.
type Ring interface {
	RingID() uint64
	Owns(dataset, key string) bool
}

// Config configures a Service.
type Config struct {
	// Node is the node id of this member.
	Node string
	// Datasets finds a dataset by name.
	Datasets func(name string) (Dataset, bool)
	// Ring is this member's view of the ring.
	Ring Ring
	// Inspect describes this member; the Service fills in node and ring_id.
	Inspect func() *peerv1.InspectResponse
	// Explain describes what this member has of a key, in JSON. Nil: the call is UNIMPLEMENTED, as in releases without it.
	Explain func(dataset, key string) (state []byte)
	// History returns what this member recorded after an interval, in JSON. Nil: the call is UNIMPLEMENTED.
	History func(after int64) []byte
	// MaxInFlight limits the concurrent fetches of all callers together; 20 000 by default.
	MaxInFlight int64
	// Log is what subscribers receive: the log of this member's Pool. With nil they receive heartbeats only.
	Log *invalidationlog.Log
	// RelayFeeds is called before a client gets the change feeds that other members read, and its result when it gets them no longer. Log must
	// have the changes meanwhile, and its feeds be those that this member hears without a gap. With nil this member relays none.
	RelayFeeds func(ctx context.Context) (end func())
	// Invalidate drops entries of any dataset from this member's memory, and ignores datasets that it does not have.
	Invalidate func([]kv.Invalidation)
	// MaxWrites limits the concurrent writes of all callers together; 512 by default. Each may hold a value of 1 MiB, or as much of
	// many rows.
	MaxWrites int64
	// MaxSubscribers limits the streams of Subscribe; 4096 by default.
	MaxSubscribers int64
	// Tracer traces the fetches that Fast answers; nil: none.
	Tracer *tracing.Tracer
	// Budget limits the bytes that callers make the process use; nil means no limit.
	Budget *budget.Budget
	// ReachBack pings the member with a node id, within ReachBackTimeout. known is false if this member does not know its address.
	// Nil: callers are not told.
	ReachBack func(ctx context.Context, node string) (known bool, err error)
	// Record returns this member as it describes itself (package record); nothing while this sidecar is a client of the ring.
	Record func() []byte
	// Members is the list that clients of the ring get; with nil there are none.
	Members *memberlist.Feed
	// MaxClients limits the clients that get it; 1024 by default.
	MaxClients int64
	// Changed is called with the advertised address of each member that announces that it has joined or is leaving. It must be
	// quick. May be nil.
	Changed func(addr string)
}

// Service answers the calls of other members.
type Service struct {
	peerv1.UnimplementedPeerServer
	config   Config
	leaving  atomic.Bool
	inFlight atomic.Int64
	writing  atomic.Int64
	reaching atomic.Int64 // pings of callers that run

	quotas    quota.Members
	inspected inspected

	invalidationsMerged, invalidationsRefused       atomic.Int64
	refused, writesRefused, ringMismatch            atomic.Int64
	subscribers, subscribersRefused, subscribersCut atomic.Int64
	clients, clientsRefused                         atomic.Int64
}

// New returns a Service for Register.
func New(c Config) *Service {
	c.MaxInFlight = cmp.Or(c.MaxInFlight, 20_000)
	c.MaxWrites = cmp.Or(c.MaxWrites, 512)
	c.MaxSubscribers = cmp.Or(c.MaxSubscribers, 4096)
	c.MaxClients = cmp.Or(c.MaxClients, 1024)
	if c.Log == nil {
		c.Log = invalidationlog.New(1)
	}
	return &Service{config: c}
}

// Register registers s with a server.
func (s *Service) Register(server grpc.ServiceRegistrar) { peerv1.RegisterPeerServer(server, s) }

// Leave makes each following pong say that this member is leaving. It keeps answering, and its subscribers receive
// invalidations until its server stops.
func (s *Service) Leave() { s.leaving.Store(true) }

var (
	errTooManyFetches = errors.New("the limit of concurrent fetches is reached")
	errTooManyWrites  = errors.New("the limit of concurrent writes is reached")
)

// Fetch implements peerv1.PeerServer.
func (s *Service) Fetch(ctx context.Context, req *peerv1.FetchRequest) (*peerv1.FetchResponse, error) {
	defer s.inFlight.Add(-1)
	dataset, owns, err := s.admit(req)
	if err != nil {
		return nil, err
	}
	q := wire.Query(req)
	a, err := dataset.Serve(ctx, q)
	if err == nil {
		err = unknownToCaller(a, req)
	}
	if err != nil {
		return nil, peererror.ToStatus(err)
	}
	resp := s.respond(a, owns, req.GetMaxBytes())
	resp.EntryOf = s.entryOf(q, a)
	if size := len(resp.GetValue()); size > prepaidBytes {
		memory := s.config.Budget.Loan(budget.Responses)
		if !memory.Grow(int64(size)) { //guard:large-responses-to-members-take-no-memory
			return nil, peererror.ToStatus(kv.ErrNoMemory)
		}
		context.AfterFunc(ctx, memory.Close) // once the response is sent
	}
	return resp, nil
}

// unknownToCaller returns the error in the place of an answer that the caller's release does not know; nil if it does.
func unknownToCaller(a kv.Answer, req *peerv1.FetchRequest) error {
	if req.GetDataErrors() {
		return nil
	}
	return a.Err(req.GetDataset()) //guard:older-release-takes-a-data-error-for-an-empty-value
}

// prepaidBytes is the size of a value for which connections have paid.
const prepaidBytes = 8 << 10

// respond returns the response to a fetch. It has the size of the value instead of the value where the caller has no memory
// for it.
func (s *Service) respond(a kv.Answer, owns bool, maxBytes int64) *peerv1.FetchResponse {
	size := int64(len(a.Value))
	omitted := maxBytes > 0 && size > maxBytes //guard:value-exceeds-callers-memory
	if omitted {
		a.Value = nil
	}
	resp := wire.FetchResponse(a, s.config.Ring.RingID(), owns)
	if omitted {
		resp.OmittedBytes = size
	}
	return resp
}

// entryOf returns FetchResponse.entry_of.
func (s *Service) entryOf(q kv.Query, a kv.Answer) string {
	if !q.Zone {
		return ""
	}
	return cmp.Or(a.Owner, s.config.Node)
}

// admit counts a fetch as in flight, even if it refuses it, and returns its dataset and whether this member owns its key.
func (s *Service) admit(req *peerv1.FetchRequest) (dataset Dataset, owns bool, err error) {
	if s.inFlight.Add(1) > s.config.MaxInFlight { //guard:fetches-of-callers-without-limit
		s.refused.Add(1)
		return nil, false, peererror.ToStatus(peererror.Overloaded(errTooManyFetches))
	}
	if err := wire.CheckFetch(req); err != nil {
		return nil, false, peererror.ToStatus(err)
	}
	if dataset, err = s.dataset(req.GetDataset()); err != nil {
		return nil, false, err
	}
	return dataset, s.owns(req, dataset), nil
}

func (s *Service) dataset(name string) (Dataset, error) {
	dataset, ok := s.config.Datasets(name)
	if !ok {
		return nil, status.Errorf(codes.NotFound, "no dataset %q: is the configuration of this member older than the caller's?", name)
	}
	return dataset, nil
}

// keyRequest is a request about one key.
type keyRequest interface {
	GetDataset() string
	GetKey() string
	GetRingId() uint64
}

// owns reports whether this member owns the key, and counts differences between the caller's ring and its own.
func (s *Service) owns(req keyRequest, dataset Dataset) bool {
	if req.GetRingId() != s.config.Ring.RingID() {
		s.ringMismatch.Add(1)
	}
	owns := s.config.Ring.Owns(req.GetDataset(), req.GetKey())
	if !owns {
		dataset.Stats().NotOwner.Add(1)
	}
	return owns
}

// batchedBytes is what each request of a batch takes beside its message and its value: the decoded request and its outcome.
const batchedBytes = 512

// FetchBatch implements peerv1.PeerServer.
func (s *Service) FetchBatch(ctx context.Context, req *peerv1.FetchBatchRequest) (*peerv1.FetchBatchResponse, error) {
	requests := req.GetRequests()
	if len(requests) > kv.MaxBatchKeys {
		return nil, peererror.ToStatus(&kv.Error{Kind: kv.KindInvalidKey, Err: fmt.Errorf(
			"%d keys in one request; at most %d are allowed", len(requests), kv.MaxBatchKeys)})
	}
	memory := s.config.Budget.Loan(budget.Responses)
	// Returned once the response is sent, and not before the last value: a caller that resets its request ends ctx earlier.
	defer func() { context.AfterFunc(ctx, memory.Close) }() //guard:reset-batch-keeps-its-memory
	if !memory.Grow(int64(len(requests) * batchedBytes)) {  //guard:requests-of-a-batch-take-no-memory
		return nil, peererror.ToStatus(kv.ErrNoMemory)
	}
	outcomes := make([]*peerv1.FetchOutcome, len(requests))
	batches := map[string]*batch{} // :: dataset → its requests; callers send those of one
	for i, r := range requests {
		defer s.inFlight.Add(-1)
		dataset, owns, err := s.admit(r)
		if err != nil {
			outcomes[i] = failedOutcome(err)
			continue
		}
		b := batches[r.GetDataset()]
		if b == nil {
			b = &batch{dataset: dataset}
			batches[r.GetDataset()] = b
		}
		b.at, b.owns, b.queries = append(b.at, i), append(b.owns, owns), append(b.queries, wire.Query(r))
	}
	bytes, most := 0, wire.MaxBatchResponseBytes
	if limit := req.GetMaxBytes(); limit > 0 {
		most = int(min(limit, wire.MaxBatchResponseBytes)) //guard:batch-exceeds-callers-memory
	}
	for _, b := range batches {
		//guard:batch-response-exceeds-callers-limit guard:batches-of-members-take-no-memory
		for n, result := range b.dataset.ServeMany(ctx, b.queries, kv.BatchLimit{Bytes: most - bytes, Memory: &memory}) {
			if req.GetMaxBytes() > 0 && bytes+len(result.Answer.Value) > most {
				result = kv.Result{Err: kv.ErrBatchBytes} // a single larger one
			}
			if result.Err == nil {
				result.Err = unknownToCaller(result.Answer, requests[b.at[n]])
			}
			outcomes[b.at[n]] = s.outcome(result, b.owns[n], s.entryOf(b.queries[n], result.Answer))
			bytes += len(result.Answer.Value)
		}
	}
	return &peerv1.FetchBatchResponse{Outcomes: outcomes}, nil
}

// batch is the requests for one dataset.
type batch struct {
	dataset Dataset
	at      []int // :: index in queries → index in the request
	owns    []bool
	queries []kv.Query
}

// outcome returns the answer to one request of a batch.
func (s *Service) outcome(r kv.Result, owns bool, entryOf string) *peerv1.FetchOutcome {
	switch {
	case errors.Is(r.Err, kv.ErrBatchBytes):
		return &peerv1.FetchOutcome{Outcome: &peerv1.FetchOutcome_Alone{Alone: true}}
	case r.Err != nil:
		return failedOutcome(peererror.ToStatus(r.Err))
	}
	resp := wire.FetchResponse(r.Answer, s.config.Ring.RingID(), owns)
	resp.EntryOf = entryOf
	return &peerv1.FetchOutcome{Outcome: &peerv1.FetchOutcome_Response{Response: resp}}
}

func failedOutcome(err error) *peerv1.FetchOutcome {
	return &peerv1.FetchOutcome{Outcome: &peerv1.FetchOutcome_Error{Error: peererror.ToFetchError(err)}}
}

// Write implements peerv1.PeerServer.
func (s *Service) Write(ctx context.Context, req *peerv1.WriteRequest) (*peerv1.WriteResponse, error) {
	defer s.writing.Add(-1)
	if s.writing.Add(1) > s.config.MaxWrites { //guard:writes-of-callers-without-limit
		s.writesRefused.Add(1)
		return nil, peererror.ToStatus(peererror.Overloaded(errTooManyWrites))
	}
	if err := wire.CheckWrite(req); err != nil {
		return nil, peererror.ToStatus(err)
	}
	dataset, err := s.dataset(req.GetDataset())
	if err != nil {
		return nil, err
	}
	owns := s.owns(req, dataset)
	a, err := dataset.ServeWrite(ctx, wire.Change(req))
	if err != nil {
		return nil, peererror.ToStatus(err)
	}
	return &peerv1.WriteResponse{Entry: wire.FetchResponse(a, s.config.Ring.RingID(), owns)}, nil
}

// WriteBatch implements peerv1.PeerServer.
func (s *Service) WriteBatch(ctx context.Context, req *peerv1.WriteBatchRequest) (*peerv1.WriteBatchResponse, error) {
	defer s.writing.Add(-1)
	if s.writing.Add(1) > s.config.MaxWrites { //guard:batches-of-writes-of-callers-without-limit
		s.writesRefused.Add(1)
		return nil, peererror.ToStatus(peererror.Overloaded(errTooManyWrites))
	}
	cs, err := wire.Changes(req)
	if err != nil {
		return nil, peererror.ToStatus(err)
	}
	dataset, err := s.dataset(req.GetDataset())
	if err != nil {
		return nil, err
	}
	outcomes := make([]*peerv1.WriteOutcome, len(cs))
	for i, r := range dataset.ServeWriteMany(ctx, cs) {
		outcomes[i] = &peerv1.WriteOutcome{Version: r.Answer.Version, Absent: r.Answer.NotFound}
		if r.Err != nil {
			outcomes[i].Status = peererror.Encode(r.Err)
		}
		outcomes[i].NotOwner = !s.config.Ring.Owns(req.GetDataset(), cs[i].Key)
	}
	return &peerv1.WriteBatchResponse{Outcomes: outcomes, RingId: s.config.Ring.RingID()}, nil
}

var errTooManyInvalidations = errors.New("the limit of concurrent calls of Invalidate is reached")

// Invalidate implements peerv1.PeerServer. A caller beyond its quota waits, and gets less exact invalidations; an error
// means that nothing was invalidated.
func (s *Service) Invalidate(
	ctx context.Context, req *peerv1.InvalidateRequest,
) (*peerv1.InvalidateResponse, error) {
	limits, exit, ok := s.quotas.Enter(callerOf(ctx))
	if !ok {
		s.invalidationsRefused.Add(1)
		return nil, peererror.ToStatus(peererror.Overloaded(errTooManyInvalidations))
	}
	defer exit()
	list, err := wire.Invalidations(req.GetInvalidations())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	admitted, err := s.admitInvalidations(ctx, limits, list)
	if err != nil {
		return nil, peererror.ToStatus(err)
	}
	s.config.Invalidate(admitted)
	s.config.Log.Relay(admitted) //guard:clients-miss-what-others-invalidate
	return &peerv1.InvalidateResponse{}, nil
}

func (s *Service) admitInvalidations(ctx context.Context, limits *quota.Member, list []kv.Invalidation) ([]kv.Invalidation, error) {
	if err := limits.Message(ctx); err != nil {
		return nil, peererror.Overloaded(err)
	}
	admitted, merged, err := limits.Admit(ctx, list) //guard:invalidations-of-callers-without-quota
	if merged {
		s.invalidationsMerged.Add(1)
	}
	if err != nil {
		return nil, peererror.Overloaded(err)
	}
	return admitted, nil
}

// callerOf names the caller of a request for its quota: its verified identity, or its address.
func callerOf(ctx context.Context) string {
	if c := caller.From(ctx); c.ID != "" {
		return c.String()
	}
	p, ok := grpcpeer.FromContext(ctx)
	if !ok {
		return ""
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return p.Addr.String()
	}
	return host
}

// Ping implements peerv1.PeerServer.
func (s *Service) Ping(ctx context.Context, req *peerv1.PingRequest) (*peerv1.PingResponse, error) {
	if addr := req.GetChanged(); addr != "" && s.config.Changed != nil {
		s.config.Changed(addr)
	}
	log := s.log(req)
	pong := &peerv1.PingResponse{
		Node: s.config.Node, RingId: s.config.Ring.RingID(), Leaving: s.leaving.Load(),
		Epoch: log.Epoch(), Sequence: log.Published(),
	}
	if req.GetDescribe() && s.config.Record != nil {
		pong.Record = s.config.Record()
	}
	if node := req.GetReachBack(); node != "" && len(node) <= maxNodeBytes && s.config.ReachBack != nil {
		s.reachBack(ctx, node, pong)
	}
	return pong, nil
}

const (
	// maxReachBacks limits the pings at once that callers ask for.
	maxReachBacks = 16
	// ReachBackTimeout limits each.
	ReachBackTimeout = time.Second
	// maxNodeBytes limits a node id, maxReasonBytes a PingResponse.reach_error.
	maxNodeBytes, maxReasonBytes = 256, 256
)

// reachBack pings a caller, at the address that this member knows: it connects to no address that a request names.
func (s *Service) reachBack(ctx context.Context, node string, pong *peerv1.PingResponse) {
	defer s.reaching.Add(-1)
	if s.reaching.Add(1) > maxReachBacks { //guard:pings-for-callers-without-limit
		return
	}
	ctx, cancel := context.WithTimeout(ctx, ReachBackTimeout)
	defer cancel()
	known, err := s.config.ReachBack(ctx, node)
	switch {
	case !known:
	case err == nil:
		pong.ReachedBack = peerv1.ReachedBack_REACHED_BACK_YES
	default:
		text := printable.Text(err.Error())
		pong.ReachedBack = peerv1.ReachedBack_REACHED_BACK_NO
		pong.ReachError = strings.ToValidUTF8(text[:min(len(text), maxReasonBytes)], "")
	}
}

// inspectTTL is how long a report is reused, so that calls of Inspect in any number cost little.
const inspectTTL = 200 * time.Millisecond

// inspected is the latest report.
type inspected struct {
	mu     sync.Mutex // held while a report is made
	at     time.Time
	report *peerv1.InspectResponse
}

// Inspect implements peerv1.PeerServer.
func (s *Service) Inspect(context.Context, *peerv1.InspectRequest) (*peerv1.InspectResponse, error) {
	s.inspected.mu.Lock()
	defer s.inspected.mu.Unlock()
	if s.inspected.report == nil || time.Since(s.inspected.at) >= inspectTTL { //guard:each-inspect-makes-a-report
		report := s.config.Inspect()
		report.Node, report.RingId = s.config.Node, s.config.Ring.RingID()
		s.inspected.report, s.inspected.at = report, time.Now()
	}
	return s.inspected.report, nil
}

// Explain implements peerv1.PeerServer. It has a share of MaxInFlight: it costs about as much as a fetch.
func (s *Service) Explain(ctx context.Context, req *peerv1.ExplainRequest) (*peerv1.ExplainResponse, error) {
	if s.config.Explain == nil {
		return s.UnimplementedPeerServer.Explain(ctx, req)
	}
	defer s.inFlight.Add(-1)
	if s.inFlight.Add(1) > s.config.MaxInFlight { //guard:explanations-without-limit
		s.refused.Add(1)
		return nil, peererror.ToStatus(peererror.Overloaded(errTooManyFetches))
	}
	if err := wire.CheckExplain(req); err != nil {
		return nil, peererror.ToStatus(err)
	}
	if _, err := s.dataset(req.GetDataset()); err != nil {
		return nil, err
	}
	state := s.config.Explain(req.GetDataset(), req.GetKey())
	return &peerv1.ExplainResponse{Leaving: s.leaving.Load(), State: state}, nil
}

// History implements peerv1.PeerServer. It has a share of MaxInFlight, as Explain.
func (s *Service) History(ctx context.Context, req *peerv1.HistoryRequest) (*peerv1.HistoryResponse, error) {
	if s.config.History == nil {
		return s.UnimplementedPeerServer.History(ctx, req)
	}
	defer s.inFlight.Add(-1)
	if s.inFlight.Add(1) > s.config.MaxInFlight { //guard:histories-without-limit
		s.refused.Add(1)
		return nil, peererror.ToStatus(peererror.Overloaded(errTooManyFetches))
	}
	return &peerv1.HistoryResponse{History: s.config.History(req.GetAfter())}, nil
}
