package rig

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// EtcdServer is an etcd cluster of one member.
type EtcdServer struct {
	*process
	endpoint, metrics string
}

// Etcd starts an etcd and stops it at the end of the test. The binary is .bin/etcd of the repository, or else the one in
// PATH. The flags are added to those that every test needs; with --cert-file the endpoint is https.
func Etcd(t testing.TB, flags ...string) *EtcdServer {
	t.Helper()
	e := newEtcd(t, "127.0.0.1", flags...)
	e.Start()
	return e
}

// newEtcd prepares an etcd at an IP address.
func newEtcd(t testing.TB, ip string, flags ...string) *EtcdServer {
	t.Helper()
	binary := etcdBinary(t)
	address := func() string { return ip + ":" + strconv.Itoa(FreePort(t)) }
	client, peer, metrics := address(), address(), address()
	scheme := "http://"
	if slices.Contains(flags, "--cert-file") {
		scheme = "https://"
	}
	e := &EtcdServer{endpoint: scheme + client, metrics: "http://" + metrics}
	e.process = &process{
		t: t, name: "etcd", path: binary, dir: t.TempDir(), quit: syscall.SIGTERM,
		args: append([]string{
			"--name", "rig", "--data-dir", "data",
			"--listen-client-urls", e.endpoint, "--advertise-client-urls", e.endpoint,
			"--listen-peer-urls", "http://" + peer, "--initial-advertise-peer-urls", "http://" + peer,
			"--initial-cluster", "rig=http://" + peer, "--listen-metrics-urls", e.metrics,
			"--unsafe-no-fsync", "--log-level", "warn",
		}, flags...),
		ready: func(int) error { return e.health() },
	}
	t.Cleanup(e.Kill)
	return e
}

// Endpoint is the URL that clients dial.
func (e *EtcdServer) Endpoint() string { return e.endpoint }

// Metric sums the samples of one of its metrics.
func (e *EtcdServer) Metric(name string, labels ...string) float64 {
	e.t.Helper()
	return metric(e.t, "etcd", e.metrics, name, labels)
}

// Wipe kills the server and deletes its data. The next Start makes a cluster with the same id whose revisions begin at 1
// again, as after the restore of an old backup.
func (e *EtcdServer) Wipe() {
	e.t.Helper()
	e.Kill()
	if err := os.RemoveAll(filepath.Join(e.dir, "data")); err != nil {
		e.t.Fatalf("rig: wipe etcd: %v", err)
	}
}

// Compact compacts all revisions before the current one. It needs an endpoint without TLS.
func (e *EtcdServer) Compact() {
	e.t.Helper()
	var now struct {
		Header struct{ Revision string }
	}
	e.call("/v3/kv/range", map[string]any{"key": "AA=="}, &now)
	e.call("/v3/kv/compaction", map[string]any{"revision": now.Header.Revision, "physical": true}, &struct{}{})
}

// call sends a request to etcd's JSON gateway, so that the rig needs no etcd client.
func (e *EtcdServer) call(path string, request, answer any) {
	e.t.Helper()
	body, err := json.Marshal(request)
	if err != nil {
		e.t.Fatalf("rig: etcd %s: %v", path, err)
	}
	client := http.Client{Timeout: startTimeout}
	resp, err := client.Post(e.endpoint+path, "application/json", bytes.NewReader(body))
	if err != nil {
		e.t.Fatalf("rig: etcd %s: %v", path, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		e.t.Fatalf("rig: etcd %s: %s", path, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		e.t.Fatalf("rig: etcd %s: %v", path, err)
	}
}

func (e *EtcdServer) health() error {
	client := http.Client{Timeout: time.Second}
	resp, err := client.Get(e.metrics + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("readyz: %s", resp.Status)
	}
	return nil
}

func etcdBinary(t testing.TB) string {
	t.Helper()
	if path := filepath.Join(repository(t), ".bin", "etcd"); exists(path) {
		NeedServers(t)
		return path
	}
	return Program(t, "etcd")
}

// repository returns the root of the repository: the nearest folder above the test's own that has .bin or .git. go.mod does
// not mark the root, because there are nested modules.
func repository(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatalf("rig: %v", err)
	}
	for !exists(filepath.Join(dir, ".bin")) && !exists(filepath.Join(dir, ".git")) && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
	}
	return dir
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
