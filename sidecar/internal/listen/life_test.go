package listen

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"
)

func TestLifeEndsBeforeTheFirstCertificateExpires(t *testing.T) {
	accepted := time.Unix(1000, 0)
	for _, test := range []struct {
		expiries   []time.Duration // of the chain, after the connection was accepted
		drain, end time.Duration
	}{
		{nil, time.Hour, time.Hour + Grace},
		{[]time.Duration{24 * time.Hour}, time.Hour, time.Hour + Grace},
		{[]time.Duration{24 * time.Hour, 10 * time.Minute}, 10*time.Minute - Grace, 10 * time.Minute},
		{[]time.Duration{40 * time.Second}, 20 * time.Second, 40 * time.Second},
		{[]time.Duration{-time.Second}, -time.Second / 2, -time.Second},
	} {
		var state tls.ConnectionState
		for _, d := range test.expiries {
			state.PeerCertificates = append(state.PeerCertificates, &x509.Certificate{NotAfter: accepted.Add(d)})
		}
		got := LifeOf(accepted, &state)
		if drain, end := got.Drain.Sub(accepted), got.End.Sub(accepted); drain != test.drain || end != test.end {
			t.Errorf("%v: got drain %v, end %v; want %v, %v", test.expiries, drain, end, test.drain, test.end)
		}
	}
}
