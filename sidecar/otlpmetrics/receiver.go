// Package otlpmetrics receives metrics over OTLP, by gRPC and HTTP, and writes their newest points as rows of datasets. Package
// metricrow has the rules; the owners of the keys merge what many sidecars report (package newest).
package otlpmetrics

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/metricrow"
	"github.com/ringside-cache/ringside/sidecar/internal/newest"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

const (
	// largestRequest bounds a request without its compression: that of gRPC servers. The Collector sends 8192 points at a time, which
	// are about 1 MiB.
	largestRequest = 4 << 20
	// requestCost is what a request holds for each of its bytes: itself, and a part of the rows that it makes.
	requestCost = 2
	// rowOverhead is the memory of a row that waits beside its key and value.
	rowOverhead = 200
	// maxAhead is how far in the future the time of a point may be: the row would not change until then.
	maxAhead = 5 * time.Minute
)

// Config describes a Receiver.
type Config struct {
	Rules    *metricrow.Rules
	Datasets api.Datasets
	// Accepted answers as soon as the points wait to be written, not when they are committed.
	Accepted bool
	// Memory bounds what requests and waiting points hold together. They take it from Budget as well.
	Memory int64
	Budget *budget.Budget
	Errors *apierror.Log
}

// Stats are live counters.
type Stats struct {
	Points  [results]atomic.Int64
	Memory  atomic.Int64 // bytes taken now; limit: Config.Memory
	Refused atomic.Int64 // requests, because of the limit of the memory
	Merged  atomic.Int64 // rows not written because a newer one of their key waited, too
}

// Result is what has become of a point.
type Result int

// The results.
const (
	Written  Result = iota // its row, or a newer one of the same key, is committed
	Accepted               // it waits, and the client does not
	Rejected               // it cannot be a row: the client must not send it again
	Failed                 // the client may send it again; or, if it was accepted, it is lost
	results
)

// String returns the result as metrics show it.
func (r Result) String() string { return [...]string{"written", "accepted", "rejected", "failed"}[r] }

// Results returns all results.
func Results() []Result { return []Result{Written, Accepted, Rejected, Failed} }

// Receiver receives metrics. Use New.
type Receiver struct {
	config Config
	stats  Stats
	mu     sync.Mutex // guards the fields below
	queues map[string]*newest.Queue[kv.Result]
	closed bool
}

// New returns a Receiver. Stop it.
func New(c Config) *Receiver {
	return &Receiver{config: c, queues: map[string]*newest.Queue[kv.Result]{}}
}

// Stats returns the live counters.
func (r *Receiver) Stats() *Stats { return &r.stats }

// Limit returns the limit of Stats.Memory.
func (r *Receiver) Limit() int64 { return r.config.Memory }

// MaxRequest is the size of the largest request without its compression. Compressed and unpacked, with a part of its rows, it fits
// into the memory.
func (r *Receiver) MaxRequest() int {
	most := r.config.Memory
	if b := r.config.Budget; b != nil {
		most = min(most, b.Limit(budget.Requests))
	}
	return int(min(largestRequest, most/(3*requestCost)))
}

// Stop waits until the points that wait are written, or ctx ends, and ends the writes that run.
func (r *Receiver) Stop(ctx context.Context) {
	r.mu.Lock()
	r.closed = true
	queues := r.queues
	r.mu.Unlock()
	for _, q := range queues {
		_, _ = q.Do(ctx, nil) //guard:accepted-points-are-lost-at-a-stop
		q.Close()
	}
}

// Take implements newest.Memory: bytes of points that wait.
func (r *Receiver) Take(n int64) bool {
	if r.stats.Memory.Add(n) > r.config.Memory || !r.config.Budget.Take(budget.Requests, n) { //guard:points-without-limit
		r.stats.Memory.Add(-n)
		return false
	}
	return true
}

// Return implements newest.Memory.
func (r *Receiver) Return(n int64) {
	r.stats.Memory.Add(-n)
	r.config.Budget.Return(budget.Requests, n)
}

// loan is memory that one request takes in steps.
type loan struct {
	receiver *Receiver
	bytes    int64
}

func (l *loan) grow(n int64) error {
	if !l.receiver.Take(n) {
		l.receiver.stats.Refused.Add(1)
		return kv.ErrNoMemory
	}
	l.bytes += n
	return nil
}

// shrink returns what exceeds n bytes.
func (l *loan) shrink(n int64) {
	l.receiver.Return(l.bytes - n)
	l.bytes = n
}

func (l *loan) close() { l.shrink(0) }

// received is what a request has for one dataset.
type received struct {
	changes []kv.Change
	points  []int          // of each change
	index   map[string]int // :: key → index in changes
}

func (d *received) add(row metricrow.Row, at int64) {
	i, ok := d.index[row.Key]
	if !ok {
		i = len(d.changes)
		d.index[row.Key] = i
		d.changes, d.points = append(d.changes, kv.Change{Key: row.Key}), append(d.points, 0)
	}
	if d.points[i]++; at > d.changes[i].Observed {
		d.changes[i].Value, d.changes[i].Observed = row.Value, at
	}
}

// outcome is what the response to a request says.
type outcome struct {
	rejected int64
	reasons  reasons
}

// export writes the points of a request, an ExportMetricsServiceRequest. An error means that the client has to send all of it again, if
// the error is temporary: what was written is not written twice.
func (r *Receiver) export(ctx context.Context, message []byte, memory *loan) (outcome, error) {
	e := &export{Receiver: r, ctx: ctx, memory: memory, request: memory.bytes, latest: time.Now().Add(maxAhead).UnixNano()}
	err := (&visitor{rules: r.config.Rules, rejected: e.reject, point: e.point}).walk(message)
	switch {
	case errors.Is(err, errMalformed):
		return e.outcome, api.InvalidRequest(err)
	case err != nil:
		return e.outcome, err
	}
	return e.outcome, e.flush()
}

// maxRows is how many rows a request holds before it writes them: the rows of a large request take many times its bytes.
const maxRows = kv.MaxBatchWrites

// export is one request.
type export struct {
	*Receiver
	outcome
	ctx     context.Context
	memory  *loan
	request int64 // bytes of memory without rows
	latest  int64 // time that a point may have
	rows    int
	sets    map[string]*received // :: dataset → its rows that are not written yet
}

func (e *export) reject(points int, metric string, why error) {
	e.rejected += int64(points)
	e.stats.Points[Rejected].Add(int64(points))
	e.reasons.add(fmt.Sprintf("metric %s: %v", metric, why), points)
}

func (e *export) point(p *metricrow.Point) error {
	if p.Time > e.latest { //guard:point-of-the-future-blocks-its-row
		e.reject(1, p.Metric, errFuture)
		return nil
	}
	row, err := e.config.Rules.Row(p)
	if err != nil {
		e.reject(1, p.Metric, err)
		return nil
	}
	if err := e.memory.grow(int64(len(row.Key) + len(row.Value) + rowOverhead)); err != nil {
		return err
	}
	set := e.sets[row.Dataset]
	if set == nil {
		if set = (&received{index: map[string]int{}}); e.sets == nil {
			e.sets = map[string]*received{}
		}
		e.sets[row.Dataset] = set
	}
	set.add(row, p.Time)
	if e.rows++; e.rows == maxRows { //guard:rows-of-a-large-request-use-up-the-memory
		return e.flush()
	}
	return nil
}

// flush writes the rows, and returns their memory. An error is temporary.
func (e *export) flush() (failed error) {
	for name, set := range e.sets {
		if err := e.writeSet(e.ctx, name, set, &e.outcome); failed == nil {
			failed = err
		}
	}
	e.sets, e.rows = nil, 0
	e.memory.shrink(e.request)
	return failed
}

var errFuture = fmt.Errorf("the time of the point is more than %v in the future; compare the clocks", maxAhead)

var errNoDataset = errors.New("the dataset of its rule is not configured any more")

// writeSet writes the rows of one dataset. An error is temporary.
func (r *Receiver) writeSet(ctx context.Context, name string, set *received, o *outcome) error {
	d, ok := r.config.Datasets.Lookup(name)
	if !ok {
		r.rejectAll(set, errNoDataset, o)
		return nil
	}
	who, err := d.Gate.Authorize(caller.From(ctx), access.Write, access.AuthorizationFrom(ctx)) //guard:points-without-permission
	if err != nil {
		r.count(Failed, set)
		return err
	}
	list, err := d.ObserveFor(&who, set.changes, func() ([]kv.Result, error) { return r.observe(ctx, name, set.changes) })
	switch {
	case err != nil:
		r.count(Failed, set)
		return temporary(err)
	case list == nil:
		r.count(Accepted, set)
		return nil
	}
	var failed error
	for i, one := range list {
		n := int64(set.points[i])
		switch {
		case one.Err == nil:
			r.stats.Points[Written].Add(n)
		case permanent(one.Err):
			r.stats.Points[Rejected].Add(n)
			o.rejected += n
			o.reasons.add(fmt.Sprintf("key %s of dataset %s: %s", set.changes[i].Key, name, apierror.From(one.Err, r.config.Errors.Report).Detail), set.points[i])
		default:
			r.stats.Points[Failed].Add(n)
			failed = temporary(one.Err)
		}
	}
	return failed
}

// temporary makes an unknown outcome an error after which clients send again: a point is not written twice.
func temporary(err error) error {
	if kv.KindOf(err) == kv.KindUnknown { //guard:points-of-unknown-outcome-are-not-sent-again
		return &kv.Error{Kind: kv.KindUnavailable, RetryAfter: kv.RetryAfter(err), Err: err}
	}
	return err
}

func (r *Receiver) count(result Result, set *received) {
	for _, n := range set.points {
		r.stats.Points[result].Add(int64(n))
	}
}

func (r *Receiver) rejectAll(set *received, why error, o *outcome) {
	for i, n := range set.points {
		o.rejected += int64(n)
		o.reasons.add(fmt.Sprintf("key %s: %v", set.changes[i].Key, why), n)
	}
	r.count(Rejected, set)
}

// permanent reports whether a write fails each time.
func permanent(err error) bool {
	switch kv.KindOf(err) {
	case kv.KindInvalidKey, kv.KindInvalidValue, kv.KindReadOnly, kv.KindDataError, kv.KindConflict:
		return true
	}
	return false
}

// observe waits until rows are committed, or, with Config.Accepted, only until they wait to be written; then the list is nil.
func (r *Receiver) observe(ctx context.Context, name string, cs []kv.Change) (list []kv.Result, err error) {
	q := r.queue(name)
	switch {
	case q == nil:
		err = newest.ErrClosed
	case r.config.Accepted:
		err = q.Add(cs)
	default:
		list, err = q.Do(ctx, cs)
	}
	switch {
	case err == nil:
		return list, nil
	case errors.Is(err, newest.ErrFull):
		r.stats.Refused.Add(1)
		return nil, kv.ErrNoMemory
	case errors.Is(err, context.DeadlineExceeded):
		return nil, &kv.Error{Kind: kv.KindDeadline, Err: fmt.Errorf("dataset %s: the points were not written in time", name)}
	}
	return nil, &kv.Error{Kind: kv.KindCanceled, Err: fmt.Errorf("dataset %s: %w", name, err)}
}

// queue returns the queue of a dataset; nil after Stop.
func (r *Receiver) queue(name string) *newest.Queue[kv.Result] {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	q := r.queues[name]
	if q == nil {
		q = newest.New(func(ctx context.Context, cs []kv.Change) []kv.Result { return r.write(ctx, name, cs) }, r, &r.stats.Merged)
		r.queues[name] = q
	}
	return q
}

// write writes rows through their owners.
func (r *Receiver) write(ctx context.Context, name string, cs []kv.Change) []kv.Result {
	d, ok := r.config.Datasets.Lookup(name)
	list := make([]kv.Result, len(cs))
	if !ok {
		for i := range list {
			list[i].Err = &kv.Error{Kind: kv.KindReadOnly, Err: errNoDataset}
		}
		return list
	}
	list = d.WriteMany(ctx, cs)
	if r.config.Accepted {
		for _, one := range list {
			if one.Err != nil {
				r.stats.Points[Failed].Add(1)
				r.config.Errors.Report(one.Err)
			}
		}
	}
	return list
}

// reasons are why points were rejected, with the number of points: the first few, so that the response is small.
type reasons struct {
	list   []string
	points map[string]int
	others int
}

const maxReasons = 5

func (r *reasons) add(why string, points int) {
	why = printable.Text(why)
	switch _, known := r.points[why]; {
	case known:
	case len(r.list) == maxReasons:
		r.others += points
		return
	case r.points == nil:
		r.points = map[string]int{}
		fallthrough
	default:
		r.list = append(r.list, why)
	}
	r.points[why] += points
}

func (r *reasons) String() (s string) {
	for _, why := range r.list {
		if s != "" {
			s += "; "
		}
		s += fmt.Sprintf("%d points: %s", r.points[why], why)
	}
	if r.others > 0 {
		s += fmt.Sprintf("; %d points for other reasons", r.others)
	}
	return s
}
