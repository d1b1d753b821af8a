package membership

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/audit"
	"github.com/ringside-cache/ringside/sidecar/peer/mtls"
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

func TestRejectedConnectionsAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.WarnLevel)
		var audited strings.Builder
		trail := audit.New(&audited, func(err error) { t.Error(err) })
		r := rejectionLog{log: zap.New(core), audit: trail}
		addr := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}
		reject := func() { r.add(addr, mtls.ReasonIdentity, errors.New("valid for \x1b[31mevil\n, not m")) }
		for range 50 {
			reject()
		}
		time.Sleep(time.Second)
		reject()
		all := logs.All()
		if len(all) != 2 || all[1].ContextMap()["more_since_the_last_line"] != int64(49) {
			t.Fatalf("got %d lines, want 2, of which the second counts 49 more: %v", len(all), all)
		}
		if got := all[0].ContextMap()["error"]; got != "valid for  [31mevil , not m" {
			t.Errorf("got the error %q, want it without controls", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := trail.Run(ctx); err != nil {
			t.Fatal(err)
		}
		const want = `"action":"handshake","result":"identity","caller":"unknown","address":"10.0.0.1:1"`
		if n := strings.Count(audited.String(), want); n != 51 {
			t.Errorf("got %d lines, want 51 with %s: %s", n, want, audited.String())
		}
	})
}

func TestSelfIDIsThatOfTheConfiguration(t *testing.T) {
	static := config.Membership{Static: []string{"10.0.0.1:7072"}}
	for _, test := range []struct {
		config config.Config
		want   string
	}{
		{config.Config{Node: config.Node{ID: "a"}}, "a"},
		{config.Config{Node: config.Node{ID: "a", Advertise: "10.0.0.1:7072"}, Membership: static}, "10.0.0.1:7072"},
		{config.Config{Node: config.Node{Advertise: "10.0.0.1:0"}, Membership: static}, ""},
		{config.Config{Membership: static}, ""},
	} {
		if got := SelfID(test.config); got != test.want {
			t.Errorf("%+v: got %q, want %q", test.config, got, test.want)
		}
	}
}
