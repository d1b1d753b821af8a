//go:build linux

package sidecar

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"go.uber.org/zap"
)

const (
	fewFiles    = 256 // limit of open files of the sidecar
	idleClients = 400
)

// With few files, idle connections to any listener leave files for reads and probes. Before all listeners had limits,
// reads and probes hung while idle clients of the metrics, admin or xds listener stayed connected.
func TestIdleClientsLeaveFilesForReadsAndProbes(t *testing.T) {
	at := startWithFewFiles(t)
	for name, addr := range map[string]string{
		"http": at.HTTP, "grpc": at.GRPC, "peer": at.Peer, "metrics": at.Metrics, "xds": at.XDS, "admin": at.Admin,
	} {
		t.Run(name, func(t *testing.T) {
			waitFor(t, func() bool { // until the connections of the subtest before have been closed
				reads, _ := get(at.HTTP, row)
				ready, _ := get(at.Metrics, "/readyz")
				return reads == 200 && ready == 200
			})
			for range idleClients {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
			}
			if name != "http" {
				wantGet(t, at.HTTP, row, 200, rowJSON)
			}
			if name != "metrics" {
				wantGet(t, at.Metrics, "/readyz", 200, "ok")
			}
		})
	}
}

// startWithFewFiles runs TestServeWithFewFiles in a process of its own, because a limit of files applies to a process.
func startWithFewFiles(t *testing.T) (at Addrs) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestServeWithFewFiles$")
	cmd.Env = append(os.Environ(), "RINGSIDE_TEST_CONFIG="+newFile(t, ""))
	cmd.Stderr = os.Stderr
	stop, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = stop.Close(), cmd.Wait() // the test has its results
	})
	if err := json.NewDecoder(out).Decode(&at); err != nil {
		t.Fatalf("the sidecar with %d files did not print its addresses: %v", fewFiles, err)
	}
	return at
}

// TestServeWithFewFiles is the process of startWithFewFiles: it serves until its standard input ends.
func TestServeWithFewFiles(t *testing.T) {
	file := os.Getenv("RINGSIDE_TEST_CONFIG")
	if file == "" {
		return // not a test by itself
	}
	c := load(t, file)
	c.Listen.Peer, c.Listen.XDS = "127.0.0.1:0", "127.0.0.1:0"
	limit := syscall.Rlimit{Cur: fewFiles, Max: fewFiles}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	err := Run(t.Context(), c, zap.NewNop(), func(a Addrs) {
		_ = json.NewEncoder(os.Stdout).Encode(a) // the parent reports what is missing
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
	})
	t.Errorf("Run returned %v before the end of the test", err)
}
