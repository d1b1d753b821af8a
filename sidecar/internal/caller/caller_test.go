package caller

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"testing"
)

type wrapped struct{ net.Conn }

func (w wrapped) NetConn() net.Conn { return w.Conn }

// pair returns the two ends of a connection.
func pair(t *testing.T, network, address string) (dialed, accepted net.Conn) {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if dialed, err = net.Dial(network, ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if accepted, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = dialed.Close(), accepted.Close() })
	return dialed, accepted
}

func TestConnectionsShowTheirCaller(t *testing.T) {
	_, c := pair(t, "unix", filepath.Join(t.TempDir(), "s"))
	want := Caller{Kind: Unix, UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), PID: int32(os.Getpid())}
	if got := Of(wrapped{wrapped{c}}); got != want {
		t.Errorf("unix: got %+v, want %+v", got, want)
	}
	dialed, c := pair(t, "tcp", "127.0.0.1:0")
	if got, want := Of(wrapped{c}), (Caller{Kind: Loopback, Addr: dialed.LocalAddr().String()}); got != want {
		t.Errorf("loopback: got %+v, want %+v", got, want)
	}
	// The address decides nothing where a certificate does.
	if got, want := Of(wrapped{tls.Server(c, nil)}), (Caller{Kind: Unknown, Addr: dialed.LocalAddr().String()}); got != want {
		t.Errorf("TLS: got %+v, want %+v", got, want)
	}
}

func TestAddresses(t *testing.T) {
	for ip, want := range map[string]Kind{
		"127.0.0.1": Loopback, "127.9.9.9": Loopback, "::1": Loopback, "::ffff:127.0.0.1": Loopback, "10.0.0.1": Unknown, "0.0.0.0": Unknown,
		"::": Unknown, "fe80::1": Unknown, "128.0.0.1": Unknown,
	} {
		if got := OfAddr(&net.TCPAddr{IP: net.ParseIP(ip), Port: 1}); got.Kind != want {
			t.Errorf("%s: got %s, want %s", ip, got.Kind, want)
		}
	}
	if got := OfAddr(nil); got != (Caller{}) {
		t.Errorf("no address: got %+v", got)
	}
}

func TestUnknownProcessIsNobody(t *testing.T) {
	_, accepted := pair(t, "unix", filepath.Join(t.TempDir(), "s"))
	if err := accepted.Close(); err != nil {
		t.Fatal(err)
	}
	if got, want := Of(accepted), (Caller{Kind: Unix, UID: noID, GID: noID}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
