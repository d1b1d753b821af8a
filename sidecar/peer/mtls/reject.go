package mtls

import (
	"errors"
	"net"
	"sync"
)

// Reason says why a connection was rejected. It is a label of a metric.
type Reason string

// The reasons.
const (
	ReasonProtocol      Reason = "protocol"       // not TLS, an old version, a handshake that fails or takes too long
	ReasonNoCertificate Reason = "no_certificate" // the other side sent none
	ReasonUntrusted     Reason = "untrusted"      // it does not chain to the CA
	ReasonExpired       Reason = "expired"        // it has expired, or is not yet valid
	ReasonUsage         Reason = "usage"          // it is a CA, or not for this side of a connection
	ReasonWeakKey       Reason = "weak_key"       // RSA below 2048 bits, or a curve below P-256
	ReasonIdentity      Reason = "identity"       // another trust domain, cluster or name
	ReasonRole          Reason = "role"           // a client that uses the members' protocol
	ReasonMember        Reason = "member"         // another member than the one that was called
)

// Reasons returns all reasons.
func Reasons() []Reason {
	return []Reason{
		ReasonProtocol, ReasonNoCertificate, ReasonUntrusted, ReasonExpired, ReasonUsage, ReasonWeakKey, ReasonIdentity,
		ReasonRole, ReasonMember,
	}
}

// Rejection is the error of a connection that was rejected.
type Rejection struct {
	Reason Reason
	Err    error
}

func rejected(r Reason, err error) error { return &Rejection{r, err} }

// Error implements error.
func (r *Rejection) Error() string { return r.Err.Error() }

// Unwrap returns the cause.
func (r *Rejection) Unwrap() error { return r.Err }

// rejections counts by reason.
type rejections struct {
	mu       sync.Mutex // guards byReason
	byReason map[Reason]int64
}

func (r *rejections) count(reason Reason) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byReason == nil {
		r.byReason = make(map[Reason]int64)
	}
	r.byReason[reason]++
}

// counts returns a count for each reason, also where it is 0.
func (r *rejections) counts() map[Reason]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[Reason]int64)
	for _, reason := range Reasons() {
		all[reason] = r.byReason[reason]
	}
	return all
}

// reject counts err, which may be nil, and returns it.
func (creds *Credentials) reject(conn net.Conn, err error) error {
	var r *Rejection
	if !errors.As(err, &r) {
		return err
	}
	creds.identity.rejected.count(r.Reason)
	if creds.config.OnReject != nil {
		var addr net.Addr
		if conn != nil {
			addr = conn.RemoteAddr()
		}
		creds.config.OnReject(addr, r.Reason, r.Err)
	}
	return err
}

// failed counts a handshake of a server that failed with err. It ignores rejections, which are counted already.
func (creds *Credentials) failed(conn net.Conn, err error) {
	var r *Rejection
	if err != nil && !errors.As(err, &r) {
		_ = creds.reject(conn, rejected(ReasonProtocol, err)) // the server has closed the connection
	}
}
