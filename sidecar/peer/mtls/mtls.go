// Package mtls is mutual TLS of a member: with other members, and with clients that route by the ring. Certificates come from
// files, or from the SPIFFE Workload API, and are renewed without a restart.
package mtls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/peer/identity"
)

// Config says where the identity of this member comes from, and whom it accepts.
type Config struct {
	// CertFile holds the certificate of this member, followed by its intermediates, and KeyFile its private key. All files are
	// PEM.
	CertFile, KeyFile string
	// CAFile holds the certificates of the authorities that issue certificates to members and clients.
	CAFile string
	// WorkloadAPI is the address of the SPIFFE Workload API, such as unix:///run/spire/agent.sock, instead of the files.
	WorkloadAPI string
	// Scheme says which SPIFFE ids are those of members and clients; nil accepts none.
	Scheme *identity.Scheme
	// Self is the id of this member on the ring, which its own certificate must have; empty accepts any.
	Self string
	// Name is a DNS name that stands for a SPIFFE id: a certificate without a SPIFFE id is accepted if it has this name. Its
	// holder has both roles and may be every member. Empty accepts none.
	Name string
	// OnReject is called for each rejected connection. addr may be nil. It must be quick. May be nil.
	OnReject func(addr net.Addr, reason Reason, err error)
}

// Credentials are mutual TLS, 1.2 or later. Each side accepts the other when its certificate chains to the CA, is valid now
// and for its side (server or client authentication), and has a SPIFFE id of the cluster. Members are called by address, and a
// certificate for an address would not outlive a pod.
//
// A caller needs the role of its protocol: see MembersConfig and ServerConfig. As TransportCredentials, they accept only
// members, at both ends.
type Credentials struct {
	config   Config
	member   string // ForMember
	identity *current
}

var _ credentials.TransportCredentials = (*Credentials)(nil)

// current is the identity in use, shared by all Credentials that ForMember returns.
type current struct {
	source   func() error // reads the files; nil if the Workload API pushes changes
	stop     context.CancelFunc
	stopped  sync.WaitGroup
	rejected rejections

	mu       sync.Mutex // guards the rest
	material material
	failing  bool
	failures int64
}

// New reads the files, or waits for the first answer of the Workload API until ctx ends. The error says what is wrong, or why
// other members would reject the certificate.
func New(ctx context.Context, c Config) (*Credentials, error) {
	creds := &Credentials{config: c, identity: &current{stop: func() {}}}
	if c.WorkloadAPI != "" {
		if err := creds.watch(ctx); err != nil {
			creds.Close()
			return nil, err
		}
		return creds, nil
	}
	creds.identity.source = creds.readFilesLocked
	if err := creds.readFilesLocked(); err != nil {
		return nil, err
	}
	return creds, nil
}

// Close ends the connection to the Workload API. The identity stays usable until it expires.
func (creds *Credentials) Close() {
	creds.identity.stop()
	creds.identity.stopped.Wait()
}

// ForMember returns credentials for connections to one member: its certificate must have its id on the ring.
func (creds *Credentials) ForMember(id string) credentials.TransportCredentials {
	return &Credentials{config: creds.config, member: id, identity: creds.identity}
}

var (
	members   = []caller.Kind{caller.Member}
	everyRole = []caller.Kind{caller.Member, caller.Client}
)

// Stats are counts since the start, and the state of the identity.
type Stats struct {
	// ReloadFailures is the number of handshakes that used an older identity because the files are invalid, and of invalid
	// answers of the Workload API. Failing means that the latest one was.
	ReloadFailures int64
	Failing        bool
	// Expires is when the certificate of this member, or one that it needs in its chain, expires, and Lifetime how long that
	// one is valid altogether.
	Expires  time.Time
	Lifetime time.Duration
	// Rejected has the connections that were rejected, in either direction.
	Rejected map[Reason]int64
}

// Stats returns a snapshot.
func (creds *Credentials) Stats() Stats {
	i := creds.identity
	i.mu.Lock()
	defer i.mu.Unlock()
	first := i.material.first
	return Stats{
		ReloadFailures: i.failures, Failing: i.failing, Expires: first.NotAfter, Lifetime: first.NotAfter.Sub(first.NotBefore),
		Rejected: i.rejected.counts(),
	}
}

func (creds *Credentials) current() material {
	i := creds.identity
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.source != nil {
		i.failedLocked(i.source())
	}
	return i.material
}

func (i *current) failedLocked(err error) {
	i.failing = err != nil
	if i.failing {
		i.failures++
	}
}

// MembersConfig is for servers of the members' protocol: a caller must be a member.
func (creds *Credentials) MembersConfig() *tls.Config {
	return creds.serverConfig([]string{"h2"}, members)
}

// ServerConfig is for servers that clients may use, too. It offers HTTP/2 and HTTP/1.1.
func (creds *Credentials) ServerConfig() *tls.Config {
	return creds.serverConfig([]string{"h2", "http/1.1"}, everyRole)
}

// ClientsConfig is for servers of HTTP/2 alone that clients may use, too.
func (creds *Credentials) ClientsConfig() *tls.Config {
	return creds.serverConfig([]string{"h2"}, everyRole)
}

func (creds *Credentials) serverConfig(protocols []string, roles []caller.Kind) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: protocols,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if slices.Max(append(hello.SupportedVersions, 0)) < tls.VersionTLS12 {
				return nil, creds.reject(hello.Conn, rejected(ReasonProtocol, errors.New("the caller does not support TLS 1.2")))
			}
			return creds.handshakeConfig(hello.Conn, protocols, roles), nil
		},
	}
}

// handshakeConfig verifies callers itself instead of in crypto/tls, so that each rejection has a reason.
func (creds *Credentials) handshakeConfig(conn net.Conn, protocols []string, roles []caller.Kind) *tls.Config {
	m := creds.current()
	return &tls.Config{
		Certificates: []tls.Certificate{m.cert},
		ClientCAs:    m.roots,
		ClientAuth:   tls.RequestClientCert, // VerifyConnection requires and verifies it
		VerifyConnection: func(s tls.ConnectionState) error {
			who, err := m.verify(creds.config.Name, s.PeerCertificates, x509.ExtKeyUsageClientAuth)
			if err == nil && !slices.Contains(roles, who.Kind) { //guard:client-uses-protocol-of-members
				err = rejected(ReasonRole, errors.New(who.String()+" is not a member, and only members may use the members' protocol"))
			}
			return creds.reject(conn, err)
		},
		MinVersion: tls.VersionTLS12,
		NextProtos: protocols,
		// Each handshake has its own config and therefore its own ticket key: no ticket could be used.
		SessionTicketsDisabled: true,
	}
}

// clientConfig is for connections to members.
func (creds *Credentials) clientConfig(conn net.Conn) *tls.Config {
	m := creds.current()
	return &tls.Config{
		Certificates:       []tls.Certificate{m.cert},
		ServerName:         serverName,
		InsecureSkipVerify: true, // VerifyConnection verifies: crypto/tls would look for serverName in the certificate
		VerifyConnection: func(s tls.ConnectionState) error {
			return creds.reject(conn, m.verifyMember(creds.config.Name, s.PeerCertificates, creds.member)) //guard:any-server-gets-requests
		},
		MinVersion: tls.VersionTLS12,
	}
}

// serverName is sent to members (SNI), for proxies that route by it.
const serverName = "ringside"

// ClientHandshake implements credentials.TransportCredentials.
func (creds *Credentials) ClientHandshake(ctx context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return credentials.NewTLS(creds.clientConfig(c)).ClientHandshake(ctx, serverName, c)
}

// ServerHandshake implements credentials.TransportCredentials.
func (creds *Credentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secure, info, err := credentials.NewTLS(creds.MembersConfig()).ServerHandshake(c)
	if err != nil {
		creds.failed(c, err)
		return nil, nil, err
	}
	return expire(secure, info), info, nil
}

// Handshake makes the handshake of a server on c, with MembersConfig or ServerConfig, and counts a failure. The server limits
// its time, and the life of the connection (see listen.LifeOf).
func (creds *Credentials) Handshake(c net.Conn, config *tls.Config) (net.Conn, error) {
	secure := tls.Server(c, config)
	if err := secure.Handshake(); err != nil {
		creds.failed(c, err)
		return nil, err
	}
	return secure, nil
}

// expire closes a connection when it must end at the latest. Its server should have ended it gracefully before.
func expire(secure net.Conn, info credentials.AuthInfo) net.Conn {
	state := info.(credentials.TLSInfo).State
	end := listen.LifeOf(time.Now(), &state).End
	return &expiring{secure, time.AfterFunc(time.Until(end), func() { _ = secure.Close() })} //guard:connection-outlives-certificate
}

// expiring is a connection with a timer that closes it.
type expiring struct {
	net.Conn
	timer *time.Timer
}

// Close implements net.Conn.
func (c *expiring) Close() error {
	c.timer.Stop()
	return c.Conn.Close()
}

// Caller returns who is at the other end of a connection: s is nil for plain text. Its certificate was verified in the
// handshake. It works on nil Credentials.
func (creds *Credentials) Caller(s *tls.ConnectionState, addr net.Addr) caller.Caller {
	var who caller.Caller
	switch {
	case s != nil && creds != nil && len(s.PeerCertificates) > 0:
		creds.identity.mu.Lock()
		m := creds.identity.material
		creds.identity.mu.Unlock()
		if holder, err := m.identify(creds.config.Name, s.PeerCertificates[0]); err == nil {
			who = holder.Caller
		}
	case s == nil && isLoopback(addr):
		who.Kind = caller.Loopback
	}
	if addr != nil {
		who.Addr = addr.String()
	}
	return who
}

func isLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// Info implements credentials.TransportCredentials.
func (creds *Credentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials. Callers cannot modify creds, so it is its own clone.
func (creds *Credentials) Clone() credentials.TransportCredentials { return creds }

// OverrideServerName implements credentials.TransportCredentials.
func (creds *Credentials) OverrideServerName(string) error {
	return errors.New("the server name is part of the configuration")
}
