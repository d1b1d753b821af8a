package rig

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig/proc"
)

// Sidecar is one `ringside run`. It has the same addresses after a restart.
type Sidecar struct {
	*process
	ID                               string
	HTTP, GRPC, Peer, Metrics, Admin string // host:port
	XDS                              string // host:port; empty unless PublishXDS was called
	Redis, OTLP                      string // host:port
	Unix                             string // path
}

// Sidecars starts n sidecars and waits until each is ready. They end with the test. config is the part of ringside.yaml that
// they share: membership, origins, datasets. Their ids are sidecar-1, sidecar-2, …; config has them as {{id}}.
func Sidecars(t testing.TB, n int, config string) []*Sidecar {
	t.Helper()
	sidecars := make([]*Sidecar, n)
	for i := range sidecars {
		sidecars[i] = NewSidecar(t, "sidecar-"+strconv.Itoa(i+1), config)
		sidecars[i].Start()
	}
	AwaitRing(t, sidecars)
	return sidecars
}

// XDSSidecars is Sidecars that also publish the ring to proxies.
func XDSSidecars(t testing.TB, n int, config string) []*Sidecar {
	t.Helper()
	sidecars := make([]*Sidecar, n)
	for i := range sidecars {
		sidecars[i] = NewSidecar(t, "sidecar-"+strconv.Itoa(i+1), config)
		sidecars[i].PublishXDS()
		sidecars[i].Start()
	}
	AwaitRing(t, sidecars)
	return sidecars
}

// StaticSidecars is Sidecars with static membership: config gets the list of the members' addresses, as YAML has it.
func StaticSidecars(t testing.TB, n int, config func(members string) string) []*Sidecar {
	t.Helper()
	NeedServers(t)
	peers := make([]string, n)
	for i := range peers {
		peers[i] = FreeAddress(t)
	}
	sidecars := make([]*Sidecar, n)
	for i := range sidecars {
		sidecars[i] = newSidecar(t, "sidecar-"+strconv.Itoa(i+1), peers[i], config(`"`+strings.Join(peers, `", "`)+`"`))
		sidecars[i].Start()
	}
	AwaitRing(t, sidecars)
	return sidecars
}

// NewSidecar prepares a sidecar and does not start it.
func NewSidecar(t testing.TB, id, config string) *Sidecar {
	t.Helper()
	return newSidecar(t, id, FreeAddress(t), config)
}

func newSidecar(t testing.TB, id, peer, config string) *Sidecar {
	t.Helper()
	NeedServers(t)
	dir := t.TempDir()
	address := func() string { return FreeAddress(t) }
	s := &Sidecar{
		ID: id, HTTP: address(), GRPC: address(), Peer: peer, Metrics: address(), Admin: address(), Redis: address(), OTLP: address(),
		Unix: filepath.Join(dir, "ringside.sock"),
	}
	file := filepath.Join(dir, "ringside.yaml")
	own := fmt.Sprintf("node: {id: %s, advertise: %q}\nlisten: {http: %q, grpc: %q, redis: %q, unix: %q, peer: %q, metrics: %q, admin: %q}\n",
		s.ID, s.Peer, s.HTTP, s.GRPC, s.Redis, s.Unix, s.Peer, s.Metrics, s.Admin)
	if strings.Contains(config, "otlp:") {
		own = strings.Replace(own, "listen: {", fmt.Sprintf("listen: {otlp: %q, ", s.OTLP), 1)
	}
	config = strings.ReplaceAll(config, "{{id}}", id)
	if !strings.Contains(config, "peer_tls:") {
		own += "peer_tls: {insecure: true}\n"
	}
	if err := os.WriteFile(file, []byte(own+config), 0o600); err != nil {
		t.Fatalf("rig: %v", err)
	}
	s.process = &process{
		t: t, name: id, path: Binary(t), args: []string{"run", "-c", file}, dir: dir, quit: syscall.SIGTERM,
		ready: func(int) error { return s.Ready() },
	}
	t.Cleanup(s.Kill)
	return s
}

// Reconfigure replaces text of the configuration file, which a running sidecar then reads again.
func (s *Sidecar) Reconfigure(old, replacement string) {
	s.t.Helper()
	file := s.ConfigFile()
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), old) {
		s.t.Fatalf("rig: %s: %v; want %q in it", file, err, old)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), old, replacement, 1)), 0o600); err != nil {
		s.t.Fatalf("rig: %v", err)
	}
	if s.running() {
		s.signalAll(syscall.SIGHUP)
	}
}

// Supervise makes a sidecar that has not been started run in a child process.
func (s *Sidecar) Supervise() { s.args = append(s.args, "--supervise") }

// Signal sends a signal to the process that was started, not to its child.
func (s *Sidecar) Signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("rig: %v", err)
	}
}

// Child returns the id of the child process of a supervised sidecar; 0 while there is none.
func (s *Sidecar) Child() int {
	children, err := proc.Children(s.Pid())
	if err != nil || len(children) == 0 {
		return 0
	}
	return children[0]
}

// Restart runs `ringside restart` for a supervised sidecar, and returns what it prints.
func (s *Sidecar) Restart() (output string, err error) {
	out, err := exec.Command(s.path, "restart", "--pid", strconv.Itoa(s.Pid())).CombinedOutput()
	return string(out), err
}

// Replace replaces the child process of a supervised sidecar; the new one is ready then.
func (s *Sidecar) Replace() {
	s.t.Helper()
	old := s.Child()
	if out, err := s.Restart(); err != nil || s.Child() == old {
		s.t.Fatalf("rig: restart of process %d: %v; the child was %d and is %d: %s", s.Pid(), err, old, s.Child(), out)
	}
}

// Crash kills the child process of a supervised sidecar, and waits until the next one is ready.
func (s *Sidecar) Crash() {
	s.t.Helper()
	old := s.Child()
	_ = syscall.Kill(old, syscall.SIGKILL) // it fails if the child has just crashed by itself
	Eventually(s.t, startTimeout, func() error {
		if now := s.Child(); now == 0 || now == old {
			return fmt.Errorf("the child is %d; it was %d", now, old)
		}
		return s.Ready()
	})
}

// PublishXDS makes a sidecar that has not been started publish the ring to proxies.
func (s *Sidecar) PublishXDS() {
	s.XDS = FreeAddress(s.t)
	s.args = append(s.args, "--set", "listen.xds="+s.XDS)
}

// PublishXDSAt is PublishXDS at another IPv4 address of this host, which the peer listener has then, too.
func (s *Sidecar) PublishXDSAt(ip string) {
	s.XDS = strings.Replace(FreeAddress(s.t), "127.0.0.1", ip, 1)
	s.Peer = strings.Replace(s.Peer, "127.0.0.1", ip, 1)
	s.args = append(s.args, "--set", "listen.xds="+s.XDS, "--set", "listen.peer="+s.Peer, "--set", "node.advertise="+s.Peer)
}

// ListenForPeers moves the peer listener of a sidecar that has not been started to another address of this host.
func (s *Sidecar) ListenForPeers(addr string) {
	s.Peer = addr
	s.args = append(s.args, "--set", "listen.peer="+addr, "--set", "node.advertise="+addr)
}

// RoleClient gives a sidecar that has not been started the role client: it has no peer listener, and gets its ring by xDS.
func (s *Sidecar) RoleClient() { s.args = append(s.args, "--set", "listen.peer=off") }

// Role sets the role of a sidecar that has not been started.
func (s *Sidecar) Role(role string) { s.args = append(s.args, "--set", "membership.role="+role) }

// InZone sets the zone of a sidecar that has not been started.
func (s *Sidecar) InZone(zone string) { s.args = append(s.args, "--set", "node.zone="+zone) }

// LimitFiles sets the limit of open files of a sidecar that has not been started.
func (s *Sidecar) LimitFiles(n int) {
	s.args = append([]string{"--nofile=" + strconv.Itoa(n), s.path}, s.args...)
	s.path = Program(s.t, "prlimit")
}

// ConfigFile returns the path of the configuration file.
func (s *Sidecar) ConfigFile() string { return filepath.Join(s.dir, "ringside.yaml") }

// Ready returns nil if /readyz reports that the sidecar is ready.
func (s *Sidecar) Ready() error {
	_, err := s.Readyz()
	return err
}

// Readyz returns the text of /readyz, and an error unless the sidecar is ready.
func (s *Sidecar) Readyz() (text string, err error) { return fetch("http://" + s.Metrics + "/readyz") }

// URL returns the address of a key. The key is not escaped.
func (s *Sidecar) URL(dataset, key string) string {
	return "http://" + s.HTTP + "/v1/" + dataset + "/" + key
}

// Running reports whether the process runs.
func (s *Sidecar) Running() bool { return s.running() }

// Log returns the log of the sidecar so far.
func (s *Sidecar) Log() string {
	b, err := os.ReadFile(s.logPath())
	if err != nil {
		s.t.Fatalf("rig: %v", err)
	}
	return string(b)
}

// Metric returns the sum of a metric's samples that carry each of the labels, such as `result="load"`.
func (s *Sidecar) Metric(name string, labels ...string) float64 {
	s.t.Helper()
	return metric(s.t, s.ID, "http://"+s.Metrics, name, labels)
}

// metric sums the samples at a server that have the name and the labels.
func metric(t testing.TB, id, url, name string, labels []string) (sum float64) {
	t.Helper()
	text, err := fetch(url + "/metrics")
	if err != nil {
		t.Fatalf("rig: metrics of %s: %v", id, err)
	}
	for line := range strings.Lines(text) {
		sample, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || !matches(sample, name, labels) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("rig: metric %s of %s: %v", sample, id, err)
		}
		sum += v
	}
	return sum
}

func matches(sample, name string, labels []string) bool {
	metric, rest, _ := strings.Cut(sample, "{")
	if metric != name {
		return false
	}
	for _, label := range labels {
		if !strings.Contains(rest, label) {
			return false
		}
	}
	return true
}

// RingID returns the id of the ring that the sidecar uses, and its number of members.
func (s *Sidecar) RingID() (id string, members int, err error) {
	body, err := fetch("http://" + s.Admin + "/api/ring")
	if err != nil {
		return "", 0, err
	}
	var ring struct {
		ID      string            `json:"id"`
		Members []json.RawMessage `json:"members"`
	}
	if err = json.Unmarshal([]byte(body), &ring); err == nil && ring.ID == "" {
		err = fmt.Errorf("the ring of %s has no id", s.ID) // all rings would look the same
	}
	return ring.ID, len(ring.Members), err
}

// Owner returns the id of the member that owns a key on the sidecar's ring. The key is not escaped.
func (s *Sidecar) Owner(dataset, key string) string {
	s.t.Helper()
	body, err := fetch("http://" + s.Admin + "/api/explain?dataset=" + dataset + "&key=" + key)
	var explanation struct{ Owner string }
	if err == nil {
		err = json.Unmarshal([]byte(body), &explanation)
	}
	if err != nil {
		s.t.Fatalf("rig: ask %s for the owner of %s of %s: %v", s.ID, key, dataset, err)
	}
	return explanation.Owner
}

// AwaitRing waits until the ring of each of the sidecars has exactly these sidecars.
func AwaitRing(t testing.TB, sidecars []*Sidecar) {
	t.Helper()
	Eventually(t, startTimeout, func() error {
		first := ""
		for _, s := range sidecars {
			id, members, err := s.RingID()
			switch {
			case err != nil:
				return err
			case members != len(sidecars):
				return fmt.Errorf("the ring of %s has %d members; want %d", s.ID, members, len(sidecars))
			case first != "" && id != first:
				return fmt.Errorf("%s has ring %s; want %s", s.ID, id, first)
			}
			first = id
		}
		return nil
	})
}

// Eventually polls check until it returns nil, and fails the test with the last error after d.
func Eventually(t testing.TB, d time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(d)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("rig: after %v: %v", d, err)
		}
		time.Sleep(pollEvery)
	}
}

// Binary builds the sidecar, once per test program, and returns its path.
func Binary(t testing.TB) string {
	t.Helper()
	NeedServers(t)
	path, err := build(repository(t))
	if err != nil {
		t.Fatalf("rig: build the sidecar: %v", err)
	}
	return path
}

var (
	buildOnce sync.Once
	buildErr  error
)

func build(repository string) (path string, err error) {
	path = filepath.Join(repository, ".bin", "ringside")
	buildOnce.Do(func() {
		cmd := exec.Command("go", "build", "-trimpath", "-tags", "grpcnotrace", "-ldflags", "-s -w", "-o", path, "./sidecar/cmd/ringside")
		cmd.Dir, cmd.Env = repository, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			buildErr = fmt.Errorf("%w\n%s", err, out)
		}
	})
	return path, buildErr
}

func fetch(url string) (body string, err error) {
	client := http.Client{Timeout: stopTimeout}
	defer client.CloseIdleConnections()
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	request.Host = "localhost" // listeners in a Network know no other name
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status + ": " + string(b))
	}
	return string(b), err
}
