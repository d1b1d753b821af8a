package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"text/template"
	"time"
)

const sidecarBinary = "ringside"

// sidecar is one member of the demo's ring, with the counts of the demo's reads.
type sidecar struct {
	id     string
	ports  ports
	binary string
	config string // path
	log    string // path

	mu      sync.Mutex // guards process
	process *process   // the one started last

	answered  atomic.Int64 // reads that returned a value or "not found"
	failed    atomic.Int64 // reads that returned another error, or timed out, while the sidecar ran
	unreached atomic.Int64 // reads while the sidecar did not run
}

var configTemplate = template.Must(template.New("config").Parse(`node:
  id: {{.ID}}
  advertise: 127.0.0.1:{{.Peer}}
listen:
  http: 127.0.0.1:{{.HTTP}}
  grpc: 127.0.0.1:{{.GRPC}}
  peer: 127.0.0.1:{{.Peer}}
  metrics: 127.0.0.1:{{.Metrics}}
  admin: 127.0.0.1:{{.Admin}}
memory: 64MiB
peer_tls: {insecure: true} # every process of the demo is on this machine
membership:
  etcd:
    endpoints: [{{printf "%q" .Etcd}}]
    prefix: /ringside/demo
    lease_ttl: 3s
origins:
  metrics-db:
    driver: sqlite
    dsn: {{printf "%q" .Database}}
datasets:
  cnf-metrics:
    origin: metrics-db
    table: cnf_metrics
    key: cnf_id
    version: ver
    writable: true
    ttl: 5s
    stale_if_error: 10m
cnf_metrics: cnf-metrics
log:
  format: console
`))

// newSidecar writes the configuration of a sidecar to dir.
func newSidecar(id string, p ports, binary, dir, etcd, database string) (*sidecar, error) {
	s := &sidecar{
		id: id, ports: p, binary: binary,
		config: filepath.Join(dir, id+".yaml"), log: filepath.Join(dir, id+".log"),
	}
	f, err := os.OpenFile(s.config, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write the configuration of %s: %w", id, err)
	}
	defer f.Close()
	err = configTemplate.Execute(f, map[string]any{
		"ID": id, "HTTP": p.http, "GRPC": p.grpc, "Peer": p.peer, "Metrics": p.metrics, "Admin": p.admin,
		"Etcd": etcd, "Database": database,
	})
	if err != nil {
		return nil, fmt.Errorf("write the configuration of %s: %w", id, err)
	}
	return s, nil
}

func (s *sidecar) start(l *launcher) error {
	p, err := l.start(s.log, s.binary, "run", "--config", s.config)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process = p
	return nil
}

// current returns the process that was started last, or nil.
func (s *sidecar) current() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process
}

// restartOnExit restarts the sidecar each time it has exited, after a pause, until ctx is done.
func (s *sidecar) restartOnExit(ctx context.Context, l *launcher, pause time.Duration, note func(string)) {
	for {
		p := s.current()
		select {
		case <-p.done:
		case <-ctx.Done():
			return
		}
		note(fmt.Sprintf("%s (pid %d) exited: %s. It restarts in %s.", s.id, p.pid(), p.cmd.ProcessState, pause))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		if err := s.start(l); err != nil {
			note(err.Error())
			return
		}
		note(fmt.Sprintf("%s runs again, with pid %d.", s.id, s.current().pid()))
	}
}

// awaitRing waits until the sidecar is ready and its ring has the given number of members.
func (s *sidecar) awaitRing(ctx context.Context, client *http.Client, members int) error {
	for {
		err := s.check(ctx, client, members)
		if err == nil {
			return nil
		}
		if p := s.current(); !p.running() {
			return fmt.Errorf("%s exited: %s; the end of its log:\n%s", s.id, p.cmd.ProcessState, tail(s.log))
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; the end of its log:\n%s", s.id, err, tail(s.log))
		}
	}
}

func (s *sidecar) check(ctx context.Context, client *http.Client, members int) error {
	if err := getJSON(ctx, client, "http://"+loopback(s.ports.metrics)+"/readyz", nil); err != nil {
		return err
	}
	var ring struct{ Members []struct{} }
	if err := getJSON(ctx, client, "http://"+loopback(s.ports.admin)+"/api/ring", &ring); err != nil {
		return err
	}
	if len(ring.Members) != members {
		return fmt.Errorf("its ring has %d members; want %d", len(ring.Members), members)
	}
	return nil
}

// getJSON decodes the response to a GET into v, unless v is nil. A status other than 200 is an error.
func getJSON(ctx context.Context, client *http.Client, url string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	case v == nil:
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(v)
}

// tail returns the end of a log.
func tail(path string) string {
	const most = 2000 // bytes: about ten lines
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-most):])
}
