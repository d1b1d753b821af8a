package address

import (
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	for addr, want := range map[string]struct {
		host string
		port uint16
		ok   bool
	}{
		"127.0.0.1:7070": {"127.0.0.1", 7070, true}, "[::1]:0": {"::1", 0, true}, ":80": {"", 80, true},
		"a.example:65535": {"a.example", 65535, true}, "a.example": {}, "a:65536": {}, "a:http": {}, "a b:1": {}, "": {},
	} {
		host, port, err := Split(addr)
		if host != want.host || port != want.port || (err == nil) != want.ok {
			t.Errorf("%q: got %q, %d, %v; want %+v", addr, host, port, err, want)
		}
	}
}

func TestLoopbackAndUnspecifiedHosts(t *testing.T) {
	for host, want := range map[string][2]bool{ // loopback, unspecified
		"127.0.0.1": {true, false}, "127.8.0.1": {true, false}, "::1": {true, false}, "localhost": {true, false},
		"0.0.0.0": {false, true}, "::": {false, true}, "": {false, true}, "10.0.0.1": {}, "a.example": {},
	} {
		if got := [2]bool{IsLoopback(host), IsUnspecified(host)}; got != want {
			t.Errorf("%q: got loopback %t, unspecified %t, want %v", host, got[0], got[1], want)
		}
	}
}

func TestIPv6AddressWithoutBracketsIsExplained(t *testing.T) {
	_, _, err := Split("2001:db8::1:7072")
	if err == nil || !strings.Contains(err.Error(), "[2001:db8::1]:7072") {
		t.Errorf("got %v; want an error that shows the brackets", err)
	}
}
