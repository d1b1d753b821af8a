package local_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

// FuzzUnixConnection sends any bytes into the socket on which both protocols are spoken: the connection is answered or
// ends, and the next one is served.
func FuzzUnixConnection(f *testing.F) {
	preface := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	settings, ping := "\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"
	for _, s := range []string{
		localtest.Get("/v1/blobs/a"), preface + settings, preface + settings + ping, "PRI * HTTP/1.1\r\nHost: a\r\n\r\n", "PRI", "P",
		"",
		preface + settings + "\x00\x00\x04\x01\x05\x00\x00\x00\x01\x82\x84\x86\x41",
		preface + "\xff\xff\xff\x00\x00\x00\x00\x00\x01",
		preface + settings + "\x00\x00\x04\x08\x00\x00\x00\x00\x00\xff\xff\xff\xff",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
	} {
		f.Add([]byte(s))
	}
	s := localtest.Start(f, local.Config{MaxHeaderBytes: 512, MaxBodyBytes: 512, ReadTimeout: 200 * time.Millisecond},
		local.Served{Dataset: localtest.NewDataset(f, "blobs", origintest.New(localtest.Rows()))})
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: s.Unix, Net: "unix"})
		if err != nil {
			t.Fatalf("%q: the next connection: %v", raw, err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err = c.Write(raw)
		if err == nil {
			err = c.CloseWrite()
		}
		if err == nil {
			_, err = io.Copy(io.Discard, c)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q: the connection stays open though its client has said all", raw)
		}
		if n := s.Config().Errors.Defects(); n != 0 {
			t.Fatalf("%q: %d defects", raw, n)
		}
	})
}

func TestUnixSocketSpeaksBothProtocols(t *testing.T) {
	s := localtest.Start(t, local.Config{})
	st, err := os.Stat(s.Unix)
	if err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	stub := localtest.Client(t, "unix:"+s.Unix)
	c := localtest.Dial(t, "unix", s.Unix)
	for range 2 { // the second time on the same connections
		got, err := stub.Get(t.Context(), &ringsidev1.GetRequest{Dataset: "blobs", Key: "x/y"})
		if err != nil || string(got.GetValue()) != "slash" {
			t.Errorf("%v, %v", got, err)
		}
		c.Send("GET /v1/blobs/x/y HTTP/1.1\r\nHost: whatever.example\r\n\r\n")
		if resp, body := c.Response("GET"); resp.StatusCode != 200 || body != "slash" {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}
	if count, _, _ := s.Stats().Unix.Duration.Snapshot(); count != 4 || s.Stats().Unix.Conns.Open.Load() != 2 {
		t.Errorf("%d requests and %d connections counted", count, s.Stats().Unix.Conns.Open.Load())
	}
}

// The preface may arrive in pieces, and so may a request that begins with the same letters.
func TestUnixSocketSniffsByteByByte(t *testing.T) {
	s := localtest.Start(t, local.Config{})
	for _, request := range []string{
		"POST /v1/failing:batchGet HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{\"keys\":[\"a\"]}",
		"PRI / HTTP/1.1\r\nHost: x\r\n\r\n", "G / HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		c := localtest.Dial(t, "unix", s.Unix)
		for i := range len(request) {
			c.Send(request[i : i+1])
		}
		if resp, body := c.Response("POST"); resp.StatusCode != 200 && resp.StatusCode != 405 {
			t.Errorf("%.10q: %d %s", request, resp.StatusCode, body)
		}
	}
	c := localtest.Dial(t, "unix", s.Unix)
	for _, b := range []byte(listen.HTTP2Preface + "\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00") {
		c.Send(string(b))
	}
	frame := make([]byte, 9) // the server's SETTINGS: length 3, type 1, flags 1, stream 4
	if _, err := c.Reader.Read(frame); err != nil || frame[3] != 4 {
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
	ln, err := local.ListenUnix(path)
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
	first, err := local.ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := local.ListenUnix(path); err == nil || !strings.Contains(err.Error(), "another process listens there") {
		t.Errorf("%v", err)
	}
	localtest.Dial(t, "unix", path)
}

func TestUnixSocketDoesNotReplaceAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := local.ListenUnix(path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("%v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "content" {
		t.Errorf("%q, %v", b, err)
	}
}

// A process that stops must not remove the socket of its successor.
func TestCloseKeepsUnixSocketOfSuccessor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	first, err := local.ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := local.ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	_ = first.Close()
	localtest.Dial(t, "unix", path)
}

func TestUnixSocketIsRemovedAtStop(t *testing.T) {
	s := localtest.Start(t, local.Config{})
	c := localtest.Dial(t, "unix", s.Unix)
	c.Send(localtest.Get("/"))
	c.Response("GET")                 // it is serving
	localtest.Dial(t, "unix", s.Unix) // a silent connection does not delay Shutdown
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(s.Unix); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
}
