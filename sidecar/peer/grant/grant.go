// Package grant takes memory for the answers of other members before they are requested.
package grant

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

const (
	// leastGrant is the size of the values for which a fetch takes memory even if all others of the dataset were smaller,
	// and leastValue that of each value of a batch.
	leastGrant, leastValue = 8 << 10, 1 << 10
	// grantWait is how long a fetch waits for the memory of others, most of which last for a millisecond.
	grantWait = 250 * time.Millisecond
	// answerBytes is what the rest of an answer may add to its values, and outcomeBytes what each outcome adds: its fields, or
	// the text of an error.
	answerBytes, outcomeBytes = 2 << 10, 512
	// largest is more than any value; a member may claim anything.
	largest = 1 << 30
	// maxAttempts bounds the requests for a value that grows between them, and batchRounds those for a batch: the second one
	// knows how large the values are.
	maxAttempts, batchRounds = 3, 2
)

// Grants takes memory. A member sends no value for which its caller has no memory: it
// sends the size, and the caller asks again. So that this is rare, Grants knows how large the values of each dataset are.
type Grants struct {
	Budget *budget.Budget // nil: no limit
	sizes  sync.Map       // :: name of a dataset of the configuration → *atomic.Int64
}

// Expect returns how many bytes of values to take memory for at first, for n keys.
func (g *Grants) Expect(dataset string, n int) int64 {
	seen := int64(0)
	if size, ok := g.sizes.Load(dataset); ok {
		seen = size.(*atomic.Int64).Load()
	}
	return max(int64(n)*max(seen+seen/4, leastValue), leastGrant)
}

// Observe remembers the size of a value: larger ones at once, and smaller ones over time.
func (g *Grants) Observe(dataset string, size int64) {
	at, ok := g.sizes.Load(dataset)
	if !ok {
		at, _ = g.sizes.LoadOrStore(dataset, new(atomic.Int64))
	}
	seen := at.(*atomic.Int64)
	if old := seen.Load(); size > old {
		seen.Store(size) // a lost update does not matter
	} else {
		seen.Store(old - (old-size)/64)
	}
}

// Grant is the memory of one answer.
type Grant struct {
	Values int64 // bytes of all values together; 0 means no limit
	loan   budget.Loan
	limit  int // of the encoded answer
}

// Take takes the memory of an answer to n queries with values of at most bytes together. Where that much is not free, it
// takes less for a batch, whose other values are then fetched alone, and waits otherwise.
func (g *Grants) Take(ctx context.Context, n int, bytes int64) (*Grant, error) {
	if g.Budget == nil {
		return &Grant{}, nil
	}
	rest, least := answerBytes+int64(n)*outcomeBytes, bytes
	if n > 1 {
		least = min(bytes, leastGrant)
	}
	taken := &Grant{loan: g.Budget.Loan(budget.Calls)}
	for began := time.Now(); ; {
		for values := bytes; values >= least; values /= 2 {
			if taken.loan.Grow(2*values + rest) { // encoded and decoded //guard:answers-of-members-take-no-memory
				taken.Values, taken.limit = values, int(values+rest)
				return taken, nil
			}
		}
		if time.Since(began) > grantWait || !backoff.Sleep(ctx, 5*time.Millisecond) {
			return nil, kv.ErrNoMemory
		}
	}
}

// Option limits the answer to what there is memory for; without a limit it is otherwise.
func (g *Grant) Option(otherwise grpc.CallOption) grpc.CallOption {
	if g.Values == 0 {
		return otherwise
	}
	return grpc.MaxCallRecvMsgSize(g.limit)
}

// Close returns the memory.
func (g *Grant) Close() { g.loan.Close() }

// Requester sends one request to a member. *peer.peer implements it.
type Requester interface {
	// FetchWithin asks for one key. The value of the answer is within g, or else empty, and omitted is its size.
	FetchWithin(ctx context.Context, q kv.Query, g *Grant) (a kv.Answer, omitted int64, err error)
	// FetchBatchWithin asks for many keys, and returns the outcome of each, in their order.
	FetchBatchWithin(ctx context.Context, qs []kv.Query, g *Grant) ([]kv.Outcome, error)
}

// Fetch asks for one key until there is memory for its value.
func (g *Grants) Fetch(ctx context.Context, to Requester, q kv.Query) (kv.Answer, error) {
	began, bytes := time.Now(), g.Expect(q.Dataset, 1)
	for range maxAttempts {
		a, omitted, err := g.fetchOnce(ctx, to, q, bytes)
		if err != nil {
			return kv.Answer{}, err
		}
		g.Observe(q.Dataset, max(omitted, int64(len(a.Value))))
		if omitted == 0 {
			return a, nil
		}
		bytes, q = omitted, again(q, began)
	}
	return kv.Answer{}, fmt.Errorf("the value grows with each request: %w", kv.ErrNoMemory)
}

func (g *Grants) fetchOnce(ctx context.Context, to Requester, q kv.Query, bytes int64) (a kv.Answer, omitted int64, err error) {
	taken, err := g.Take(ctx, 1, bytes)
	if err != nil {
		return kv.Answer{}, 0, err
	}
	defer taken.Close()
	a, omitted, err = to.FetchWithin(ctx, q, taken)
	if taken.Values == 0 || omitted <= taken.Values { // nothing was omitted, whatever the member says
		omitted = 0
	}
	return a, min(omitted, largest), err
}

// again is the query for a value that the member has loaded since the first one began.
func again(q kv.Query, began time.Time) kv.Query {
	if q.NoCache { //guard:large-value-is-loaded-twice
		q.NoCache, q.MaxAge = false, time.Since(began)
	}
	return q
}

// FetchBatch asks for many keys as far as there is memory for their values, of at most the given size together. Those that
// are left are to be fetched alone. An error is that of all keys.
func (g *Grants) FetchBatch(ctx context.Context, to Requester, qs []kv.Query, most int64) ([]kv.Outcome, error) {
	began, outcomes, left := time.Now(), make([]kv.Outcome, len(qs)), make([]int, len(qs))
	for i := range qs {
		left[i] = i
	}
	for round := 1; len(left) > 0 && round <= batchRounds; round++ {
		bytes := min(g.Expect(qs[0].Dataset, len(left)), most)
		taken, err := g.Take(ctx, len(left), bytes)
		if err == nil {
			defer taken.Close() // the values of all rounds are in use until the end
			err = g.fetchSome(ctx, to, qs, left, outcomes, taken)
		}
		if err != nil && round == 1 {
			return nil, err
		}
		rest, received := alone(left, outcomes)
		if most -= received; err != nil || received == 0 || g.Budget == nil || bytes >= most {
			break
		}
		left, qs = rest, slices.Clone(qs)
		for _, i := range left {
			qs[i] = again(qs[i], began)
		}
	}
	return outcomes, nil
}

// fetchSome asks for those of qs with the indices at, and sets their outcomes.
func (g *Grants) fetchSome(ctx context.Context, to Requester, qs []kv.Query, at []int, outcomes []kv.Outcome, taken *Grant) error {
	some := make([]kv.Query, len(at))
	for n, i := range at {
		some[n] = qs[i]
	}
	results, err := to.FetchBatchWithin(ctx, some, taken)
	if err != nil {
		return err
	}
	for n, i := range at {
		outcomes[i] = results[n]
		if results[n].Err == nil && !results[n].Alone {
			g.Observe(some[n].Dataset, int64(len(results[n].Answer.Value)))
		}
	}
	return nil
}

// alone returns those of at whose outcomes were not sent, and the bytes of the others.
func alone(at []int, outcomes []kv.Outcome) (left []int, received int64) {
	for _, i := range at {
		if outcomes[i].Alone {
			left = append(left, i)
		}
		received += int64(len(outcomes[i].Answer.Value))
	}
	return left, received
}
