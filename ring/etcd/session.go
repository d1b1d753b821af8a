package etcd

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ringside-cache/ringside/ring/backoff"
)

const (
	retryMin = 100 * time.Millisecond
	// steady is how long a client must have worked for the backoff to start again.
	steady = 5 * time.Second
)

// condition is the goal of a loop: this member is registered, or the list of members is up to date.
type condition struct {
	what  string
	holds atomic.Bool
}

// A session works toward a condition with one client. It returns nil at its planned end.
type session func(context.Context, *clientv3.Client) error

// maxReasons limits the reported reasons of one outage: each error text may be different.
const maxReasons = 8

// reasons are the reported reasons of one outage.
type reasons map[string]bool

// add reports whether err is a new reason to report.
func (r reasons) add(err error) bool {
	if r[err.Error()] || len(r) >= maxReasons { //guard:changing-reasons-fill-log
		return false
	}
	r[err.Error()] = true
	return true
}

// keepTrying runs sessions until ctx is done. After an error it waits, longer after each session that fails soon, and
// continues with another client.
func (d *Directory) keepTrying(ctx context.Context, c *condition, run session) {
	wait := backoff.Backoff{First: retryMin, Longest: d.timing.retryMax}
	reported := reasons{}
	for turn, first := d.randomTurn(), true; ctx.Err() == nil; turn, first = turn+1, false {
		began := time.Now()
		err := d.runSessions(ctx, turn, run)
		if ctx.Err() != nil {
			break
		}
		steadied := first || time.Since(began) > steady
		if steadied {
			wait.Reset()
		}
		if c.holds.Swap(false) || steadied {
			reported = reasons{}
		}
		if reported.add(err) {
			d.event(c.what+" lost, retrying", err)
		}
		wait.Wait(ctx)
	}
	c.holds.Store(false)
}

// runSessions runs sessions with one client until one fails. The error names the endpoint.
func (d *Directory) runSessions(ctx context.Context, turn int, run session) error {
	c, err := d.dial(ctx, turn)
	if err != nil {
		return fmt.Errorf("%s: %w", d.endpoint(turn), err)
	}
	defer c.Close() // nobody uses the connection again, so its error does not matter
	for err == nil && ctx.Err() == nil {
		err = run(ctx, c)
	}
	return fmt.Errorf("%s: %w", d.endpoint(turn), err)
}

func (d *Directory) endpoint(turn int) string { return d.cfg.Endpoints[turn%len(d.cfg.Endpoints)] }

// randomTurn spreads the members over the endpoints.
func (d *Directory) randomTurn() int { return rand.IntN(len(d.cfg.Endpoints)) }

// hold records that the condition holds.
func (d *Directory) hold(c *condition) {
	if !c.holds.Swap(true) {
		d.event(c.what+" established", nil)
	}
}

func (d *Directory) event(what string, err error) {
	if d.cfg.OnEvent != nil {
		d.cfg.OnEvent(what, err)
	}
}
