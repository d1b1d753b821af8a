package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync/atomic"
	"syscall"
	"time"

	_ "modernc.org/sqlite" // the driver of the keys' database
)

// keys is a recent list of the keys in the database.
type keys struct {
	db  *sql.DB
	now atomic.Pointer[[]string]
}

func openKeys(path string) (*keys, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro&_pragma=busy_timeout(2000)")
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return &keys{db: db}, nil
}

func (k *keys) list() []string { return *k.now.Load() }

// refresh reads the keys. It fails if there are none.
func (k *keys) refresh(ctx context.Context) error {
	rows, err := k.db.QueryContext(ctx, "SELECT cnf_id FROM cnf_metrics ORDER BY cnf_id")
	if err != nil {
		return fmt.Errorf("list the keys of the database: %w", err)
	}
	defer rows.Close()
	var list []string
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return fmt.Errorf("list the keys of the database: %w", err)
		}
		list = append(list, key)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("list the keys of the database: %w", err)
	}
	if len(list) == 0 {
		return errors.New("the database has no rows yet")
	}
	k.now.Store(&list)
	return nil
}

// await waits until the collector has written the first rows.
func (k *keys) await(ctx context.Context, collector *process, log string) error {
	for {
		err := k.refresh(ctx)
		switch {
		case err == nil:
			return nil
		case !collector.running():
			return fmt.Errorf("the collector exited: %s; the end of its log:\n%s", collector.cmd.ProcessState, tail(log))
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the collector has written no telemetry: %w; the end of its log:\n%s", err, tail(log))
		}
	}
}

// refreshLoop keeps the list current. After a failure the list stays as it is.
func (k *keys) refreshLoop(ctx context.Context) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_ = k.refresh(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// perReader is the maximum of reads per second of one goroutine, so that slow responses do not lower the rate.
const perReader = 100

// generateLoad reads from s at a rate per second until ctx is done. The popularity of keys follows Zipf's law.
func generateLoad(ctx context.Context, client *http.Client, s *sidecar, k *keys, rate float64) {
	readers := int(rate/perReader) + 1
	done := make(chan struct{})
	for range readers {
		go func() {
			readEvery(ctx, client, s, k, time.Duration(float64(readers)/rate*float64(time.Second)))
			done <- struct{}{}
		}()
	}
	for range readers {
		<-done
	}
}

func readEvery(ctx context.Context, client *http.Client, s *sidecar, k *keys, pause time.Duration) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	random := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	var law *rand.Zipf
	size := 0
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		list := k.list()
		if len(list) != size {
			size = len(list)
			law = rand.NewZipf(random, 1.1, 1, uint64(size-1))
		}
		readOne(ctx, client, s, list[law.Uint64()])
	}
}

func readOne(ctx context.Context, client *http.Client, s *sidecar, key string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url(key), nil)
	if err != nil {
		s.failed.Add(1)
		return
	}
	resp, err := client.Do(req)
	switch {
	case ctx.Err() != nil:
	case err != nil && s.exited(err):
		s.unreached.Add(1)
	case err != nil:
		s.failed.Add(1)
	case resp.StatusCode == http.StatusOK || resp.StatusCode == http.StatusNotFound:
		s.answered.Add(1)
	default:
		s.failed.Add(1)
	}
	if err == nil {
		_, _ = io.Copy(io.Discard, resp.Body) // to reuse the connection
		_ = resp.Body.Close()
	}
}

func (s *sidecar) url(key string) string {
	return "http://" + loopback(s.ports.http) + "/v1/cnf-metrics/" + url.PathEscape(key)
}

// exitDelay bounds the time between the end of a process's connections and the end of Wait.
const exitDelay = 200 * time.Millisecond

// exited reports whether err occurred because the sidecar does not run. Such a read does not count as failed: when a pod dies, its
// application dies as well.
func (s *sidecar) exited(err error) bool {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return true
	}
	select {
	case <-s.current().done:
		return true
	case <-time.After(exitDelay):
		return false
	}
}
