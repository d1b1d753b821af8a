package local

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
)

func TestUnixSocketSpeaksBothProtocols(t *testing.T) {
	s := start(t, Config{})
	st, err := os.Stat(s.unix)
	if err != nil || st.Mode().Perm() != socketMode {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	stub := client(t, "unix:"+s.unix)
	c := dial(t, "unix", s.unix)
	for range 2 { // the second time on the same connections
		got, err := stub.Get(t.Context(), &ringsidev1.GetRequest{Dataset: "blobs", Key: "x/y"})
		if err != nil || string(got.GetValue()) != "slash" {
			t.Errorf("%v, %v", got, err)
		}
		c.send("GET /v1/blobs/x/y HTTP/1.1\r\nHost: whatever.example\r\n\r\n")
		if resp, body := c.answer("GET"); resp.StatusCode != 200 || body != "slash" {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}
	if count, _, _ := s.Stats().Unix.Duration.Snapshot(); count != 4 || s.Stats().Unix.Conns.Open.Load() != 2 {
		t.Errorf("%d requests and %d connections counted", count, s.Stats().Unix.Conns.Open.Load())
	}
}

// The preface may arrive in pieces, and so may a request that begins with the same letters.
func TestUnixSocketSniffsByteByByte(t *testing.T) {
	s := start(t, Config{})
	for _, request := range []string{
		"POST /v1/failing:batchGet HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{\"keys\":[\"a\"]}",
		"PRI / HTTP/1.1\r\nHost: x\r\n\r\n", "G / HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		c := dial(t, "unix", s.unix)
		for i := range len(request) {
			c.send(request[i : i+1])
		}
		if resp, body := c.answer("POST"); resp.StatusCode != 200 && resp.StatusCode != 405 {
			t.Errorf("%.10q: %d %s", request, resp.StatusCode, body)
		}
	}
	c := dial(t, "unix", s.unix)
	for _, b := range []byte(listen.HTTP2Preface + "\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00") {
		c.send(string(b))
	}
	frame := make([]byte, 9) // the server's SETTINGS: length 3, type 1, flags 1, stream 4
	if _, err := c.r.Read(frame); err != nil || frame[3] != 4 {
		t.Errorf("not HTTP/2: % x, %v", frame, err)
	}
}

func TestUnixSocketOfADeadProcessIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	_ = dead.Close()
	ln, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	if ln.Addr().String() != path {
		t.Errorf("address %s", ln.Addr())
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestUnixSocketOfALivingProcessIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := ListenUnix(path); err == nil || !strings.Contains(err.Error(), "another process listens there") {
		t.Errorf("%v", err)
	}
	dial(t, "unix", path)
}

func TestUnixSocketDoesNotReplaceAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenUnix(path); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("%v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("%q, %v", b, err)
	}
}

// The one that stops last must not remove the socket of the one that took its place.
func TestUnixSocketOfASuccessorSurvivesTheClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	_ = first.Close()
	dial(t, "unix", path)
}

func TestUnixSocketIsRemovedAtStop(t *testing.T) {
	s := start(t, Config{})
	c := dial(t, "unix", s.unix)
	c.send(get("/"))
	c.answer("GET")         // it is serving
	dial(t, "unix", s.unix) // says nothing, and holds nobody up
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(s.unix); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
}
