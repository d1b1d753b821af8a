package e2e

import (
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

// h2specCases is the number of cases of h2spec 2.2.1 with --strict: a run that ends early must not pass.
const h2specCases = 146

const bothProtocols = "the listener serves HTTP/1.1, too: without the preface of HTTP/2 the client gets 400 (RFC 9113, 3.4: an " +
	"invalid preface indicates that the peer does not use HTTP/2)"

// h2specExceptions are the cases that a listener fails on purpose, by name of the listener, section and number, and why.
var h2specExceptions = map[string]string{
	"unix http2/3.5/2":   bothProtocols,
	"routed http2/3.5/2": bothProtocols,
}

// h2specRaces are the cases whose second frame may arrive after the response to the first one, when the server has closed
// the stream and ignores what follows (RFC 9113, 5.1). They are repeated.
var h2specRaces = []string{"http2/6.9.1/3", "http2/8.1/1", "http2/8.1.2.6/1", "http2/8.1.2.6/2"}

// TestHTTP2Conformance runs h2spec against each listener that speaks HTTP/2.
func TestHTTP2Conformance(t *testing.T) {
	rig.NeedServers(t)
	s, routed := localtest.StartRouted(t, local.Config{}, nil)
	for name, address := range map[string]string{"grpc": s.GRPC, "unix": relay(t, "unix", s.Unix), "routed": routed} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runH2spec(t, name, address)
		})
	}
}

// h2specReport is the JUnit report of h2spec.
type h2specReport struct {
	Suites []struct {
		Package string `xml:"package,attr"`
		Cases   []struct {
			Failure *string `xml:"failure"`
			Skipped *string `xml:"skipped"`
			Error   *string `xml:"error"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

func runH2spec(t *testing.T, listener, address string) {
	cases, failed, out := h2spec(t, address)
	for _, id := range slices.Clone(failed) {
		for attempt := 0; attempt < 20 && slices.Contains(h2specRaces, id) && slices.Contains(failed, id); attempt++ {
			if _, again, _ := h2spec(t, address, id); len(again) == 0 {
				failed = slices.DeleteFunc(failed, func(f string) bool { return f == id })
			}
		}
	}
	for _, id := range failed {
		if h2specExceptions[listener+" "+id] == "" {
			t.Errorf("%s fails", id)
		}
	}
	for id, reason := range h2specExceptions {
		if id, ok := strings.CutPrefix(id, listener+" "); ok && !slices.Contains(failed, id) {
			t.Errorf("%s passes; remove the exception (%s)", id, reason)
		}
	}
	if cases != h2specCases {
		t.Errorf("%d cases; want %d", cases, h2specCases)
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

// h2spec runs all cases, or the given ones. It returns their number, those that fail, and the output.
func h2spec(t *testing.T, address string, only ...string) (cases int, failed []string, out []byte) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "report.xml")
	args := append([]string{"--strict", "-h", host, "-p", port, "-j", file}, only...)
	out, failure := exec.Command(rig.Program(t, "h2spec", "../.bin"), args...).CombinedOutput() // it fails if a case does
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("h2spec wrote no report: %v\n%v\n%s", err, failure, out)
	}
	var report h2specReport
	if err := xml.Unmarshal(text, &report); err != nil {
		t.Fatal(err)
	}
	for _, suite := range report.Suites {
		for i, c := range suite.Cases {
			cases++
			if c.Failure != nil || c.Error != nil || len(only) == 0 && c.Skipped != nil {
				failed = append(failed, fmt.Sprintf("%s/%d", suite.Package, i+1))
			}
		}
	}
	return cases, failed, out
}

// relay forwards TCP connections to a socket of another network, for clients that cannot open it.
func relay(t *testing.T, network, address string) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			go forward(client, network, address)
		}
	}()
	return ln.Addr().String()
}

func forward(client net.Conn, network, address string) {
	defer client.Close()
	server, err := net.Dial(network, address)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.(*net.UnixConn).CloseWrite() // the rest of its response may follow
	}()
	_, _ = io.Copy(client, server)
}
