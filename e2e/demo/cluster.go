package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

const (
	collectorBinary = "ringside-collector"
	sidecars        = 3
	firstPort       = 7070 // of the first sidecar; the next sidecar has this plus portStep
	portStep        = 10
	startTimeout    = 30 * time.Second
	requestTimeout  = 2 * time.Second
	topProcesses    = "40" // that the collector reports, so that there are enough keys to see the ring at work
)

// cluster is everything that the demo starts.
type cluster struct {
	options
	dir string
	out io.Writer

	client   *http.Client
	launcher *launcher
	etcd     *embed.Etcd // nil before its start
	collect  *process    // nil before its start
	keys     *keys       // nil before the database is open
	sidecars []*sidecar
	cancel   context.CancelFunc // of tasks; nil before their start
	tasks    sync.WaitGroup     // load, list of keys, restarts

	mu    sync.Mutex // guards notes
	notes []string   // events that the view has not shown
}

func newCluster(o options, dir string, out io.Writer) *cluster {
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	return &cluster{
		options: o, dir: dir, out: out, launcher: newLauncher(),
		client: &http.Client{Transport: transport, Timeout: requestTimeout},
	}
}

// start starts everything and returns when all sidecars are ready and on one ring.
func (c *cluster) start(ctx context.Context) error {
	starting, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	database := filepath.Join(c.dir, "metrics.db")
	if err := c.startCollector(starting, database); err != nil {
		return err
	}
	var endpoint string
	var err error
	if c.etcd, endpoint, err = startEtcd(starting, c.dir); err != nil {
		return err
	}
	if err := c.startSidecars(endpoint, database); err != nil {
		return err
	}
	for _, s := range c.sidecars {
		if err := s.awaitRing(starting, c.client, sidecars); err != nil {
			return err
		}
	}
	c.startTasks()
	return nil
}

func (c *cluster) startCollector(ctx context.Context, database string) (err error) {
	log, program := filepath.Join(c.dir, "collector.log"), filepath.Join(c.bin, collectorBinary)
	c.collect, err = c.launcher.start(log, program,
		"--driver", "sqlite", "--dsn", database, "--create", "--interval", "1s", "--top", topProcesses)
	if err != nil {
		return err
	}
	if c.keys, err = openKeys(database); err != nil {
		return err
	}
	return c.keys.await(ctx, c.collect, log)
}

func (c *cluster) startSidecars(etcd, database string) error {
	for i := range sidecars {
		id := "sidecar-" + strconv.Itoa(i+1)
		p, err := choosePorts(c.out, id, firstPort+i*portStep)
		if err != nil {
			return err
		}
		s, err := newSidecar(id, p, filepath.Join(c.bin, sidecarBinary), c.dir, etcd, database)
		if err != nil {
			return err
		}
		if err := s.start(c.launcher); err != nil {
			return err
		}
		c.sidecars = append(c.sidecars, s)
	}
	return nil
}

func (c *cluster) startTasks() {
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.tasks.Go(func() { c.keys.refreshLoop(ctx) })
	for _, s := range c.sidecars {
		c.tasks.Go(func() { generateLoad(ctx, c.client, s, c.keys, float64(c.rate)/sidecars) })
		c.tasks.Go(func() { s.restartOnExit(ctx, c.launcher, c.revive, c.note) })
	}
}

// stop stops everything that was started: the load first, then all sidecars at once, and last what they depend on.
func (c *cluster) stop() {
	if c.cancel != nil {
		c.cancel()
	}
	c.tasks.Wait()
	c.client.CloseIdleConnections()
	var stopping sync.WaitGroup
	for _, s := range c.sidecars {
		stopping.Go(s.current().stop)
	}
	stopping.Wait()
	if c.keys != nil {
		_ = c.keys.db.Close()
	}
	if c.collect != nil {
		c.collect.stop()
	}
	if c.etcd != nil {
		c.etcd.Close()
	}
	c.launcher.close()
}

func (c *cluster) note(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notes = append(c.notes, text)
}

// takeNotes returns the notes since the last call.
func (c *cluster) takeNotes() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	notes := c.notes
	c.notes = nil
	return notes
}

func (c *cluster) printGuide(out io.Writer) {
	list := c.keys.list()
	first, victim := c.sidecars[0], c.sidecars[1]
	key, program := list[0], shortest(filepath.Join(c.bin, sidecarBinary))
	var http, admin string
	if first.ports.http != firstPort {
		http = " --http " + loopback(first.ports.http)
	}
	if first.ports.admin != portsFrom(firstPort).admin {
		admin = " --admin " + loopback(first.ports.admin)
	}
	fmt.Fprintf(out, `Three sidecars on one ring, a database with %d rows of live telemetry of this machine, %d reads per second.

  Console   http://%s/
  Logs      %s

Try in another terminal:

  curl -i %s
  %s get cnf-metrics %s%s
  %s explain cnf-metrics %s%s
  %s watch cnf-metrics %s%s
  %s put cnf-metrics %s '{"status": "warn"}'%s     # lasts until the collector writes the next measurement
  %s ring%s
  kill -9 %d     # kills %s: the others keep serving; it restarts after %s

Ctrl-C stops everything and removes its files.

`, len(list), c.rate, loopback(first.ports.admin), c.dir, first.url(key), program, key, http, program, key, admin,
		program, key, http, program, key, http, program, admin, victim.current().pid(), victim.id, c.revive)
}

// shortest returns the shortest spelling of path for a shell in the current folder.
func shortest(path string) string {
	if found, err := exec.LookPath(filepath.Base(path)); err == nil && found == path {
		return filepath.Base(path)
	}
	if wd, err := filepath.Abs("."); err == nil {
		if rel, err := filepath.Rel(wd, path); err == nil && !strings.HasPrefix(rel, "..") {
			return rel
		}
	}
	return path
}

// printSummary prints the number of reads by outcome.
func (c *cluster) printSummary(out io.Writer) {
	fmt.Fprintln(out)
	for _, s := range c.sidecars {
		fmt.Fprintf(out, "%s: %d reads answered, %d failed, %d while it did not run.\n",
			s.id, s.answered.Load(), s.failed.Load(), s.unreached.Load())
	}
}
