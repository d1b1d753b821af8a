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
	firstPort       = 7070 // of the first sidecar; the others follow in steps of portStep
	portStep        = 10
	startTimeout    = 30 * time.Second
	requestTimeout  = 2 * time.Second
	topProcesses    = "40" // that the collector reports: enough keys for a ring to be worth looking at
)

// cluster is everything that the demo starts.
type cluster struct {
	options
	dir string
	out io.Writer

	client   *http.Client
	nursery  *nursery
	etcd     *embed.Etcd // nil until it runs
	collect  *process    // nil until it runs
	keys     *keys       // nil until the database is open
	sidecars []*sidecar
	ended    context.CancelFunc // ends tasks; nil until there are any
	tasks    sync.WaitGroup     // load, and the ones that start dead sidecars again

	mu    sync.Mutex // guards notes
	notes []string   // what happened; the view takes them
}

func newCluster(o options, dir string, out io.Writer) *cluster {
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	return &cluster{
		options: o, dir: dir, out: out, nursery: newNursery(),
		client: &http.Client{Transport: transport, Timeout: requestTimeout},
	}
}

// start returns when all sidecars are ready, on one ring, and under load.
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
	c.collect, err = c.nursery.start(log, program,
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
		if err := s.start(c.nursery); err != nil {
			return err
		}
		c.sidecars = append(c.sidecars, s)
	}
	return nil
}

func (c *cluster) startTasks() {
	ctx, cancel := context.WithCancel(context.Background())
	c.ended = cancel
	c.tasks.Go(func() { c.keys.follow(ctx) })
	for _, s := range c.sidecars {
		c.tasks.Go(func() { read(ctx, c.client, s, c.keys, float64(c.rate)/sidecars) })
		c.tasks.Go(func() { s.keep(ctx, c.nursery, c.revive, c.note) })
	}
}

// stop ends whatever was started: the load first, then the sidecars all at once, as a rollout of pods would not, and
// last what they depend on.
func (c *cluster) stop() {
	if c.ended != nil {
		c.ended()
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
	c.nursery.close()
}

func (c *cluster) note(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notes = append(c.notes, text)
}

// takeNotes returns what was noted since it was asked last.
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
	fmt.Fprintf(out, `Three sidecars, one ring, a database of %d rows of live telemetry of this machine, %d reads a second.

  Console   http://%s/
  Logs      %s

Try, in another terminal:

  curl -i %s
  %s get cnf-metrics %s%s
  %s explain cnf-metrics %s%s
  %s watch cnf-metrics %s%s
  %s put cnf-metrics %s '{"status": "warn"}'%s     # until the collector measures it again
  %s ring%s
  kill -9 %d     # %s: the others answer on; it is started again after %s

Ctrl-C ends everything and leaves nothing behind.

`, len(list), c.rate, loopback(first.ports.admin), c.dir, first.url(key), program, key, http, program, key, admin,
		program, key, http, program, key, http, program, admin, victim.current().pid(), victim.id, c.revive)
}

// shortest is path as a shell in this folder may spell it.
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

// printSummary says what became of the reads.
func (c *cluster) printSummary(out io.Writer) {
	fmt.Fprintln(out)
	for _, s := range c.sidecars {
		fmt.Fprintf(out, "%s answered %d reads, failed %d; %d found nobody there.\n",
			s.id, s.answered.Load(), s.failed.Load(), s.unreached.Load())
	}
}
