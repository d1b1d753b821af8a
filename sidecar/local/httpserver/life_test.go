package httpserver

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// secureConn is a connection with TLS: its client's certificate is valid until a time.
type secureConn struct {
	net.Conn
	until time.Time
}

func (c secureConn) ConnectionState() tls.ConnectionState {
	return tls.ConnectionState{PeerCertificates: []*x509.Certificate{{NotAfter: c.until}}}
}

// hanging is a dataset whose reads wait for the end of the request.
type hanging struct{ api.Dataset }

func (hanging) Name() string { return "hanging" }

func (hanging) Get(ctx context.Context, _ string, _ kv.ReadOptions) (kv.Answer, error) {
	<-ctx.Done()
	return kv.Answer{}, ctx.Err()
}

// serveSecure serves a connection whose client's certificate is valid for some time, and returns the end of the client. The
// timeouts are longer than any certificate.
func serveSecure(t *testing.T, validFor time.Duration) net.Conn {
	s := newServer(t, api.Served{Dataset: hanging{}})
	const long = 48 * time.Hour
	s.config.IdleTimeout, s.config.ReadTimeout, s.config.WriteTimeout, s.config.RequestTimeout = long, long, long, long
	here, there := net.Pipe()
	go s.newConn(secureConn{here, time.Now().Add(validFor)}).serve()
	return there
}

func TestRoutedConnectionsEndBeforeTheirCertificateExpires(t *testing.T) {
	for _, test := range []struct {
		name          string
		age, validFor time.Duration
		closes        bool
	}{
		{"new", 0, 24 * time.Hour, false},
		{"after less than an hour", listen.MaxLife - time.Second, 24 * time.Hour, false},
		{"after an hour", listen.MaxLife + time.Second, 24 * time.Hour, true},
		{"long before the certificate expires", time.Minute, 10 * time.Minute, false},
		{"shortly before the certificate expires", 10 * time.Minute, 10*time.Minute + listen.Grace - time.Second, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			client := serveSecure(t, test.validFor)
			defer client.Close()
			time.Sleep(test.age)
			if _, err := io.WriteString(client, get("/v1/blobs/a", "X: y")); err != nil {
				t.Fatalf("%s: %v", test.name, err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(client), nil)
			if err != nil || resp.StatusCode != http.StatusOK || resp.Close != test.closes {
				t.Errorf("%s: got %v, %v; want 200 and close: %t", test.name, resp, err, test.closes)
			}
		})
	}
}

// Whatever the client does, its connection ends with its certificate.
func TestRoutedConnectionEndsWithItsCertificate(t *testing.T) {
	for name, sent := range map[string]string{
		"silent": "", "slow header": "GET /v1/blobs/a HTTP/1.1\r\n", "idle": get("/v1/blobs/a", "X: y"),
		"running": get("/v1/hanging/a", "X: y"), "slow content": strings.TrimSuffix(post("{}"), "}"),
	} {
		for _, reads := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				client := serveSecure(t, time.Minute)
				defer client.Close()
				if _, err := io.WriteString(client, sent); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if !reads {
					time.Sleep(time.Minute)
					synctest.Wait()
					_ = client.SetReadDeadline(time.Now().Add(time.Nanosecond)) // the end has arrived before
				}
				if _, err := io.Copy(io.Discard, client); err != nil {
					t.Errorf("%s: %v; want the end of the connection", name, err)
				}
				if d := time.Since(begun); d > time.Minute+maxLingeringTime {
					t.Errorf("%s: the connection was open for %v, want a minute", name, d)
				}
			})
		}
	}
}
