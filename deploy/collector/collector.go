package main

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/ringside-cache/ringside/deploy/collector/table"
	"github.com/ringside-cache/ringside/deploy/collector/telemetry"
	"go.uber.org/zap"
)

const (
	keepGone     = time.Minute      // how long a row with status gone is kept
	writeTimeout = 5 * time.Second  // for one batch
	maxPause     = 30 * time.Second // between attempts while the database is unavailable
)

// collector writes samples into a table. It is not safe for concurrent use.
type collector struct {
	sampler  *telemetry.Sampler
	census   *telemetry.Census
	table    *table.Table
	log      *zap.Logger
	prefix   string
	interval time.Duration
	create   bool

	known     bool          // the census matches the table
	awaySince time.Time     // zero while writes succeed
	pause     time.Duration // before the next attempt while they fail
	unread    string        // the unreadable values, as last logged
}

// once measures over one interval and writes the result.
func (c *collector) once(ctx context.Context) error {
	c.measure(ctx) // baseline of the rates
	if !sleep(ctx, c.interval) {
		return ctx.Err()
	}
	return c.write(ctx, c.measure(ctx))
}

// run measures and writes until ctx is done.
func (c *collector) run(ctx context.Context) {
	c.measure(ctx)
	for wait := c.interval; sleep(ctx, wait); {
		began := time.Now()
		err := c.write(ctx, c.measure(ctx))
		if ctx.Err() != nil {
			return
		}
		// Pause even if a measurement takes longer than the interval.
		wait = max(c.interval-time.Since(began), c.interval/10)
		if err != nil {
			wait = c.away(err)
		} else {
			c.back()
		}
	}
}

// sleep waits for d and reports whether ctx is still valid.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// measure logs unreadable values only when they change.
func (c *collector) measure(ctx context.Context) []telemetry.Row {
	rows, err := c.sampler.Sample(ctx)
	unread := ""
	if err != nil {
		unread = err.Error()
	}
	if unread != c.unread && unread != "" && ctx.Err() == nil {
		c.log.Warn("some values of this machine cannot be read", zap.String("error", unread))
	}
	c.unread = unread
	return rows
}

// write brings the table up to date. After a failure it reads the table again, which may have been replaced.
func (c *collector) write(ctx context.Context, rows []telemetry.Row) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err := c.prepare(ctx)
	if err == nil {
		err = c.apply(ctx, c.census.Plan(rows, time.Now()))
	}
	c.known = err == nil
	return err
}

// prepare creates the table if allowed, and reads the rows of an earlier run.
func (c *collector) prepare(ctx context.Context) error {
	if c.known {
		return nil
	}
	if c.create {
		if err := c.table.Create(ctx); err != nil {
			return err
		}
	}
	families := telemetry.Families()
	for i := range families {
		families[i] = c.prefix + families[i]
	}
	held, err := c.table.Held(ctx, families)
	if err != nil {
		return err
	}
	c.census.Adopt(held, time.Now())
	return nil
}

func (c *collector) apply(ctx context.Context, p telemetry.Plan) error {
	if err := c.table.Upsert(ctx, p.Write); err != nil {
		return err
	}
	if err := c.table.Delete(ctx, p.Drop); err != nil {
		return err
	}
	c.census.Done(p)
	return nil
}

// away logs an outage once and returns the pause before the next attempt, which grows and is randomized.
func (c *collector) away(err error) time.Duration {
	if c.awaySince.IsZero() {
		c.awaySince, c.pause = time.Now(), c.interval
		c.log.Warn("the database does not accept rows; retrying", zap.Error(err))
	}
	c.pause = min(2*c.pause, maxPause)
	return c.pause/2 + rand.N(c.pause/2)
}

func (c *collector) back() {
	if c.awaySince.IsZero() {
		return
	}
	c.log.Info("the database accepts rows again", zap.Duration("after", time.Since(c.awaySince).Round(time.Second)))
	c.awaySince = time.Time{}
}
