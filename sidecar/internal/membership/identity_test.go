package membership

import (
	"fmt"
	"net"
	"testing"
)

func TestAdvertisedAddress(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	for advertise, want := range map[string]string{
		"":                fmt.Sprintf("127.0.0.1:%d", port),
		"10.1.2.3:0":      fmt.Sprintf("10.1.2.3:%d", port),
		"10.1.2.3:7072":   "10.1.2.3:7072",
		"[2001:db8::1]:0": fmt.Sprintf("[2001:db8::1]:%d", port),
	} {
		if got, err := advertisedAddress(advertise, ln.Addr()); err != nil || got != want {
			t.Errorf("advertise %q: got %s, %v, want %s", advertise, got, err, want)
		}
	}
}
