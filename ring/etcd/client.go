package etcd

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxMessage bounds an answer of etcd, in bytes: gRPC's default for a server, and more than twice what etcd takes as one
// request (1.5 MiB), so that one record always fits.
const maxMessage = 4 << 20

// connection returns the one client, which reconnects by itself. Making it waits for etcd only where that asks for a
// password.
func (d *Directory) connection() (*clientv3.Client, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.client != nil {
		return d.client, nil
	}
	cfg, err := d.clientConfig()
	if err != nil {
		return nil, err
	}
	c, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to etcd: %w", err)
	}
	d.client = c
	return c, nil
}

func (d *Directory) clientConfig() (clientv3.Config, error) {
	cfg := clientv3.Config{
		Context:     d.ctx,
		Endpoints:   d.cfg.Endpoints,
		Username:    d.cfg.Username,
		DialTimeout: d.timing.request,
		// A peer that is gone without a word (a dead machine) is noticed within 15 s; etcd allows pings every 5 s.
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 5 * time.Second,
		MaxCallRecvMsgSize:   maxMessage,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			// gRPC's own bound is 120 s: after a long outage that would be the wait for a cluster that is back.
			Backoff: backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2,
				MaxDelay: d.timing.retryMax},
			MinConnectTimeout: d.timing.request,
		})},
		// The no-op logger; the client's default writes each retry to stderr.
		Logger: clientv3.NewCtxClient(d.ctx).GetLogger(),
	}
	if d.creds != nil {
		cfg.DialOptions = append(cfg.DialOptions, d.creds)
	}
	if d.cfg.PasswordFile != "" {
		password, err := os.ReadFile(d.cfg.PasswordFile)
		if err != nil {
			return clientv3.Config{}, fmt.Errorf("password of etcd user %q: %w", d.cfg.Username, err)
		}
		cfg.Password = strings.TrimRight(string(password), "\r\n")
	}
	return cfg, nil
}

// disconnect drops the client when etcd refuses who we are: the next one reads the password file again. Any other
// failure leaves the client be, for the other loop may be well.
func (d *Directory) disconnect(c *clientv3.Client, err error) {
	if d.cfg.Username == "" || !unauthorized(err) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.client == c {
		d.client = nil
		_ = c.Close() // whatever it says, it is not used again
	}
}

// unauthorized goes by the codes that etcd's rpctypes gives its authentication errors.
func unauthorized(err error) bool {
	switch codeOf(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument, codes.FailedPrecondition:
		return true
	}
	return false
}

// codeOf reads the code of an error of the etcd client, whose own type does not have gRPC's GRPCStatus.
func codeOf(err error) codes.Code {
	var e interface{ Code() codes.Code }
	if errors.As(err, &e) {
		return e.Code()
	}
	return status.Code(err)
}
