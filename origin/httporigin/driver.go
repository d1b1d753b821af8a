// Package httporigin reads values with HTTP requests, one GET for each key: from services that have no SQL database, such as an NRF, a
// UDR or Prometheus. It is read only. DESIGN.md has the reasons.
package httporigin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/authfiles"
)

// The status codes that are no values, by default.
var (
	defaultNotFound = []int{http.StatusNoContent, http.StatusNotFound, http.StatusGone}
	defaultInvalid  = []int{http.StatusBadRequest, http.StatusUnprocessableEntity}
)

type driver struct{}

// Driver returns the driver http. The DSN is the URL of the server, without credentials: http://, https://, or h2c:// for HTTP/2
// without TLS. It may have a path, which begins the path of every request.
func Driver() origin.Driver { return driver{} }

// Name implements origin.Driver.
func (driver) Name() string { return "http" }

// FeedKinds implements origin.Driver.
func (driver) FeedKinds() []string { return nil }

// ValuesField implements origin.ServiceDriver.
func (driver) ValuesField() string { return "url" }

// ClearText implements origin.ClearTextDriver.
func (driver) ClearText(dsn string, isLocal func(host string) bool) string {
	base, err := parseBase(dsn)
	if err != nil || base.Scheme == "https" || isLocal(base.Hostname()) {
		return ""
	}
	return "use https"
}

// Open implements origin.Driver.
func (driver) Open(c origin.SourceConfig) (origin.Source, error) {
	c = c.WithDefaults()
	base, err := parseBase(c.DSN)
	if err == nil {
		err = authfiles.Check(c.Auth)
	}
	if err == nil && authfiles.HasTLS(c.Auth) && base.Scheme != "https" {
		err = errors.New("tls has files, and the dsn is not https://: want https")
	}
	if err != nil {
		return nil, err
	}
	s := &source{config: c, base: base, turns: make(chan struct{}, c.MaxConns)}
	s.transport = newTransport(c, base.Scheme)
	if base.Scheme == "h2c" {
		base.Scheme = "http"
	}
	return s, nil
}

// parseBase parses a DSN. Its errors have no part of it.
func parseBase(dsn string) (*url.URL, error) {
	base, err := url.Parse(dsn)
	switch {
	case err != nil || base.Hostname() == "" || base.Opaque != "" || base.Scheme != "http" && base.Scheme != "https" && base.Scheme != "h2c":
		return nil, errors.New("the dsn is no URL of a server: want https://host:port, http://host:port or h2c://host:port")
	case base.User != nil:
		return nil, errors.New("the dsn has a user or a password: use token_file, or username and password_file")
	case base.RawQuery != "" || base.ForceQuery || base.Fragment != "" || strings.ContainsAny(dsn, "{}"):
		return nil, errors.New("the dsn has a query, a fragment or a variable: they belong to url of a dataset")
	}
	base.Path = strings.TrimRight(base.Path, "/")
	base.RawPath = strings.TrimRight(base.RawPath, "/")
	return base, nil
}

const (
	dialTimeout    = 5 * time.Second // a load ends earlier; the next one may use the connection
	connIdle       = 90 * time.Second
	maxHeaderBytes = 64 << 10 // of a response
	// pingAfter is how long a connection of HTTP/2 may be silent during a request before it is tested: a server that is gone must not keep
	// the next loads waiting on a dead connection.
	pingAfter = 2 * time.Second
)

// newTransport makes connections without the proxy of the environment. It asks for no compression: a small response could then take any
// amount of memory.
func newTransport(c origin.SourceConfig, scheme string) *http.Transport {
	t := &http.Transport{
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		DisableCompression:     true,
		MaxConnsPerHost:        c.MaxConns,
		MaxIdleConnsPerHost:    c.MaxConns,
		IdleConnTimeout:        connIdle,
		MaxResponseHeaderBytes: maxHeaderBytes,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingAfter},
		Protocols:              new(http.Protocols),
	}
	if scheme == "h2c" {
		t.Protocols.SetUnencryptedHTTP2(true)
		return t
	}
	t.Protocols.SetHTTP1(true)
	t.Protocols.SetHTTP2(true)
	t.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		return dialTLS(ctx, c.Auth, network, address)
	}
	return t
}

// dialTLS connects with the present contents of the files.
func dialTLS(ctx context.Context, a origin.Auth, network, address string) (net.Conn, error) {
	cfg, err := authfiles.TLS(a)
	if err != nil {
		return nil, err
	}
	cfg.NextProtos = []string{"h2", "http/1.1"}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: cfg}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return conn, nil
}
