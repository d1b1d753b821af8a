package rig

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// EtcdServer is a cluster of one etcd.
type EtcdServer struct {
	*process
	endpoint, metrics string
}

// Etcd starts an etcd that lives as long as the test, and waits until it answers. The binary is $RINGSIDE_ETCD, or
// .bin/etcd of the repository, or the one in PATH. The flags are added to those that every test needs; with --cert-file
// the endpoint is https.
func Etcd(t testing.TB, flags ...string) *EtcdServer {
	t.Helper()
	client, peer, metrics := loopback(freePort(t)), loopback(freePort(t)), loopback(freePort(t))
	scheme := "http://"
	if slices.Contains(flags, "--cert-file") {
		scheme = "https://"
	}
	e := &EtcdServer{endpoint: scheme + client, metrics: "http://" + metrics}
	e.process = &process{
		t: t, name: "etcd", path: etcdBinary(t), dir: t.TempDir(), quit: syscall.SIGTERM,
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
	e.Start()
	return e
}

// Endpoint is the URL that clients dial.
func (e *EtcdServer) Endpoint() string { return e.endpoint }

// Wipe kills the server and deletes all that it knew. The cluster that the next Start makes has the same id, but its
// revisions begin anew, as after a restore of an old backup.
func (e *EtcdServer) Wipe() {
	e.t.Helper()
	e.Kill()
	if err := os.RemoveAll(filepath.Join(e.dir, "data")); err != nil {
		e.t.Fatalf("rig: wipe etcd: %v", err)
	}
}

// Compact forgets every revision before the current one. It needs an endpoint without TLS.
func (e *EtcdServer) Compact() {
	e.t.Helper()
	var now struct {
		Header struct{ Revision string }
	}
	e.call("/v3/kv/range", map[string]any{"key": "AA=="}, &now)
	e.call("/v3/kv/compaction", map[string]any{"revision": now.Header.Revision, "physical": true}, &struct{}{})
}

// call asks etcd's JSON gateway, so that the rig needs no etcd client.
func (e *EtcdServer) call(path string, request, answer any) {
	e.t.Helper()
	body, err := json.Marshal(request)
	if err != nil {
		e.t.Fatalf("rig: etcd %s: %v", path, err)
	}
	client := http.Client{Timeout: startGrace}
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
	if path := os.Getenv("RINGSIDE_ETCD"); path != "" {
		return path
	}
	if path := filepath.Join(repository(t), ".bin", "etcd"); exists(path) {
		return path
	}
	path, err := exec.LookPath("etcd")
	if err != nil {
		t.Fatal("rig: etcd is in neither $RINGSIDE_ETCD, .bin of the repository nor PATH: run make setup")
	}
	return path
}

// repository is the nearest folder above the test's own whose .bin or .git marks it as the root: go.mod does not, for
// there are nested modules.
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

func loopback(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }
