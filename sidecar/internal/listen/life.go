package listen

import (
	"crypto/tls"
	"net"
	"time"
)

const (
	// MaxLife makes clients authenticate again: an authority that is no longer trusted, and an identity that is not renewed, are
	// out after this time.
	MaxLife = time.Hour
	// Grace is how long running requests may take after a client was asked to reconnect.
	Grace = 30 * time.Second
)

// Life limits a connection with TLS. From Drain on, the client is asked to reconnect; the connection ends at End.
type Life struct{ Drain, End time.Time }

// LifeOf returns the limits of a connection that was accepted at a time: MaxLife, and before the first of the client's
// certificates expires.
func LifeOf(accepted time.Time, s *tls.ConnectionState) Life {
	end := accepted.Add(MaxLife + Grace)
	for _, c := range s.PeerCertificates {
		if c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	// A certificate that expires soon still serves half of its time.
	return Life{Drain: end.Add(-min(Grace, end.Sub(accepted)/2)), End: end}
}

// TLSState returns the TLS state of a connection on which the handshake is complete; nil without TLS.
func TLSState(c net.Conn) *tls.ConnectionState {
	if secure, ok := As[interface{ ConnectionState() tls.ConnectionState }](c); ok {
		state := secure.ConnectionState()
		return &state
	}
	return nil
}
