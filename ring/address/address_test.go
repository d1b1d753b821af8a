package address

import (
	"net/netip"
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
		"a.example:65535": {"a.example", 65535, true}, "a.example": {}, "a:65536": {}, "a:http": {}, "a b:1": {}, "": {}, "10.0.0.300:7072": {}, "10.0.0:1": {}, "a..b:1": {}, "1.2.3.4.5:1": {}, "a_b.example:1": {"a_b.example", 1, true},
		"0x7f.1:1": {}, "-a:1": {},
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
		"::ffff:127.0.0.1": {true, false}, "::ffff:0.0.0.0": {false, true},
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

func TestMember(t *testing.T) {
	for addr, want := range map[string]string{ // "" for an error
		"10.0.0.1:7072": "10.0.0.1:7072", "127.0.0.1:1": "127.0.0.1:1", "[2001:DB8:0::1]:7072": "[2001:db8::1]:7072",
		"[::ffff:10.0.0.1]:7072": "10.0.0.1:7072", "10.0.0.1:07072": "10.0.0.1:7072", "[fd00::1]:65535": "[fd00::1]:65535",
		"10.0.0.300:7072": "", "10.0.0.1:0": "", "10.0.0.1:65536": "", "10.0.0.1:http": "", "10.0.0.1": "", ":7072": "",
		"localhost:7072": "", "pod-0.cache:7072": "", "010.0.0.1:7072": "", "0.0.0.0:1": "", "[::]:1": "",
		"[::ffff:0.0.0.0]:1": "", "224.0.0.1:1": "", "[ff02::1]:1": "", "255.255.255.255:1": "", "169.254.169.254:80": "",
		"[::ffff:169.254.169.254]:80": "", "[fe80::1]:1": "", "[fe80::1%eth0]:1": "", "[2001:db8::1%eth0]:1": "",
		"unix:///a:1": "", "a\x1b[2J:1": "", strings.Repeat("1", 300) + ":1": "",
	} {
		got, err := Member(addr)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", addr, got, err, want)
		}
	}
}

func TestLoopbackIsReachableFromLoopbackOnly(t *testing.T) {
	for _, test := range []struct {
		addr, self string
		want       bool
	}{
		{"127.0.0.1:1", "127.0.0.1:2", true}, {"[::1]:1", "127.0.0.1:2", true}, {"10.0.0.1:1", "127.0.0.1:2", true},
		{"127.0.0.1:1", "10.0.0.1:2", false}, {"[::1]:1", "[fd00::1]:2", false}, {"10.0.0.1:1", "10.0.0.2:2", true},
		{"127.0.0.1:1", "", false}, {"127.0.0.1:1", "localhost:2", true},
	} {
		if got := Reachable(test.addr, test.self); got != test.want {
			t.Errorf("%s from %q: got %t, want %t", test.addr, test.self, got, test.want)
		}
	}
}

func FuzzMember(f *testing.F) {
	for _, seed := range []string{
		"10.0.0.1:7072", "[::ffff:10.0.0.1]:7072", "[fe80::1%eth0]:1", "a:1", "[::]:0", "10.0.0.300:1", "\u202e:1", "[a]:1",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, addr string) {
		got, err := Member(addr)
		if err != nil {
			if text := err.Error(); len(text) > 2000 || strings.ContainsFunc(text, func(c rune) bool { return c < ' ' }) {
				t.Errorf("%q: got error %q", addr, text)
			}
			return
		}
		parsed, err := netip.ParseAddrPort(got)
		if err != nil || parsed.Port() == 0 || parsed.Addr().Zone() != "" || parsed.Addr().Is4In6() ||
			!parsed.Addr().IsGlobalUnicast() && !parsed.Addr().IsLoopback() {
			t.Errorf("%q: got %q, which members cannot dial: %v", addr, got, err)
		}
		if again, err := Member(got); again != got || err != nil {
			t.Errorf("%q became %q, then %q, %v", addr, got, again, err)
		}
	})
}
