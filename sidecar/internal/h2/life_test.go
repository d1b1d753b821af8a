package h2

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// A connection asks its client to reconnect before the client's certificate expires, and ends when it does.
func TestConnectionEndsWithTheCertificateOfItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		s := serving(Config{MaxAge: time.Hour, MaxAgeGrace: time.Hour, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stop })})
		certificate := &x509.Certificate{NotAfter: time.Now().Add(10 * time.Minute)}
		c := greet(start(t, s, func(c *client) {
			c.tls = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{certificate}}
		}))
		time.Sleep(9 * time.Minute)
		if c.isEnded() || len(c.farewells()) != 0 {
			t.Fatalf("a minute before: got ended %v, %v; want an open connection", c.isEnded(), c.farewells())
		}
		c.get("/")
		time.Sleep(40 * time.Second)
		if c.isEnded() || len(c.farewells()) == 0 {
			t.Fatalf("20 seconds before: got ended %v, %v; want a GOAWAY", c.isEnded(), c.farewells())
		}
		time.Sleep(25 * time.Second)
		if !c.isEnded() {
			t.Error("after the certificate has expired: got an open connection, want that the running request was cut off")
		}
		close(stop)
	})
}

// The timer of a connection without requests wakes up for the end, too, and without a limit of the age.
func TestIdleConnectionEndsWithTheCertificateOfItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		certificate := &x509.Certificate{NotAfter: time.Now().Add(10 * time.Minute)}
		c := greet(start(t, serving(Config{}), func(c *client) {
			c.tls = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{certificate}}
		}))
		time.Sleep(10 * time.Minute)
		if !c.isEnded() {
			t.Error("got an open connection, want an end with the certificate")
		}
	})
}
