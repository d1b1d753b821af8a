package verify

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/origins"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

const (
	// maxAudit bounds the time of one audit: the admin listener ends a response after a minute.
	maxAudit = 45 * time.Second
	// maxFindings bounds the findings that an audit names.
	maxFindings = 1000
	// maxFailed is how many statements in a row may fail before an audit ends.
	maxFailed = 3
)

var errAuditing = errors.New("another audit is running in this sidecar; one runs at a time")

// Audit compares the entries of a dataset that this member owns: all of them, or keys at random if that is not 0. It ends when ctx
// does, or after 45 s: what it has compared until then is in the result. The error has a Kind.
func (v *Verifier) Audit(ctx context.Context, d *cache.Dataset, keys int) (a adminapi.Audit, err error) {
	if !v.auditing.CompareAndSwap(false, true) { //guard:audits-run-all-at-once
		return a, &kv.Error{Kind: kv.KindOverloaded, RetryAfter: time.Second, Err: errAuditing}
	}
	defer v.auditing.Store(false)
	rows, ok := v.Rows(d.Name())
	if !ok {
		return a, &kv.Error{Kind: kv.KindCanceled, RetryAfter: time.Second, Err: fmt.Errorf("dataset %s was removed", d.Name())}
	}
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, maxAudit)
	defer cancel()
	one := &audit{Audit: adminapi.Audit{
		Dataset: d.Name(), Node: v.Node, Counts: adminapi.NewCounts(), Findings: []adminapi.Finding{},
	}, left: keys, all: keys == 0}
	one.checker = v.newChecker(d, one.add)
	d.Wake(limited)
	one.stop(one.parts(limited, rows))
	one.end(limited)
	one.Took = time.Since(began)
	return one.Audit, ctx.Err()
}

// audit is one call of Audit.
type audit struct {
	*checker
	adminapi.Audit
	left     int // entries to compare, unless all
	all      bool
	failed   int // statements in a row
	suspects []suspect
}

// stop says why not all entries were compared.
func (a *audit) stop(err error) {
	switch {
	case err == nil:
		a.Complete = true
	case errors.Is(err, context.DeadlineExceeded):
		a.Stopped = fmt.Sprintf("not all entries were compared within %v", maxAudit)
	default:
		a.Stopped = err.Error()
	}
}

// add counts a verdict and names the entry, broken promises before all others.
func (a *audit) add(f adminapi.Finding, verdict kv.Verdict) {
	a.Counts.Add(verdict, 1)
	if verdict == kv.Same || verdict == kv.ChangedMeanwhile {
		return
	}
	if f.Cached.Fresh {
		a.WorstAge = max(a.WorstAge, f.Cached.Age)
	}
	switch {
	case len(a.Findings) < maxFindings:
		a.Findings = append(a.Findings, f)
		return
	case verdict.Broken():
		for i := range a.Findings {
			if a.Findings[i].Result == kv.StaleWithinPromise.String() { //guard:broken-promise-is-omitted
				a.Findings[i] = f
				break
			}
		}
	}
	a.FindingsOmitted++
}

// parts compares the entries of one part of the memory after another, in random order.
func (a *audit) parts(ctx context.Context, rows origins.Rows) error {
	_, n := a.dataset.AllKeys(-1)
	for _, part := range rand.Perm(n) {
		keys, _ := a.dataset.AllKeys(part)
		rand.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		if err := a.keys(ctx, rows, keys); err != nil {
			return err
		}
		if !a.all && a.left == 0 {
			return nil
		}
	}
	return nil
}

// keys compares those of keys whose entries reads may get.
func (a *audit) keys(ctx context.Context, rows origins.Rows, keys []string) error {
	var next []string
	for i, key := range keys {
		if _, ok := a.dataset.Promise(key); ok && (a.all || a.left > 0) {
			next = append(next, key)
			a.left--
		}
		if len(next) > 0 && (len(next) == rows.Batch || i == len(keys)-1) {
			if err := a.statement(ctx, rows, next); err != nil {
				return err
			}
			next = nil
		}
	}
	return nil
}

var (
	errUnhealthy = errors.New("the circuit breaker of the dataset is open: the database fails")
	errFailing   = errors.New("the database failed: the log of the sidecar has the reason")
)

// statement compares keys in one statement, which waits until no read needs it.
func (a *audit) statement(ctx context.Context, rows origins.Rows, keys []string) error {
	if len(a.suspects) >= maxFindings {
		a.suspects = a.wait(ctx, a.suspects)
	}
	if !rows.Healthy() {
		return errUnhealthy
	}
	leave, err := rows.Turn(ctx)
	if err != nil {
		return err
	}
	defer leave()
	found, err := a.compare(ctx, rows.Origin, keys)
	a.suspects = append(a.suspects, found...)
	switch {
	case err == nil:
		a.failed = 0
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		a.failed++
		a.Failed += len(keys)
	}
	if a.failed == maxFailed {
		return errFailing
	}
	return nil
}

// end settles what is left. What could not be settled in time was not compared.
func (a *audit) end(ctx context.Context) {
	a.suspects = a.wait(ctx, a.suspects)
	if len(a.suspects) > 0 || a.Failed > 0 {
		a.Complete = false
		if a.Stopped == "" {
			a.Stopped = fmt.Sprintf("%d entries could not be compared", len(a.suspects)+a.Failed)
		}
	}
}
