package etcd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxMessage bounds an answer of etcd, in bytes: gRPC's default, and more than twice what etcd takes as one request
// (1.5 MiB), so that one record always fits.
const maxMessage = 4 << 20

// tries is how often the client sends a request, once more for a token that has expired. Its default, a hundred, goes on
// until the time is over, and then says nothing but that.
const tries = 2

// failFast has a request fail for what keeps the connection from being made, where the client would wait for it until the
// time is over.
func failFast(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
	opts ...grpc.CallOption) error {
	return invoke(ctx, method, req, reply, conn, append(opts, grpc.WaitForReady(false))...) //guard:wrong-etcd-endpoint-time-over
}

// dial returns a client of the endpoint whose turn it is, made of what the files hold now. It waits for etcd, for
// timing.request at most, only where there is a password.
//
// A client has one endpoint, and is closed when anything about it is odd, rather than left to balance over all of them:
// the streams of a balancing client stay where they are, even at a member of etcd that hangs.
func (d *Directory) dial(ctx context.Context, turn int) (*clientv3.Client, error) {
	cfg := clientv3.Config{
		Context:            ctx,
		Endpoints:          []string{d.endpoint(turn)},
		Username:           d.cfg.Username,
		DialTimeout:        d.timing.request,
		MaxCallRecvMsgSize: maxMessage,
		MaxUnaryRetries:    tries,
		DialOptions:        []grpc.DialOption{grpc.WithChainUnaryInterceptor(failFast)},
		// The no-op logger; the client's default writes each retry to stderr.
		Logger: clientv3.NewCtxClient(ctx).GetLogger(),
	}
	if d.cfg.TLS != (TLSFiles{}) {
		var err error
		if cfg.TLS, err = d.cfg.TLS.load(); err != nil {
			return nil, err
		}
	}
	if d.cfg.PasswordFile != "" {
		password, err := os.ReadFile(d.cfg.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("password of etcd user %q: %w", d.cfg.Username, err)
		}
		cfg.Password = strings.TrimRight(string(password), "\r\n")
	}
	c, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return c, nil
}

// Check asks whether the members could be listed. It returns nil as soon as one endpoint answers, and else what is wrong
// with each, for which it takes two seconds at most.
func (d *Directory) Check(ctx context.Context) error {
	var errs []error
	for turn := range d.cfg.Endpoints {
		err := d.peek(ctx, turn)
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", d.endpoint(turn), err))
	}
	return errors.Join(errs...)
}

func (d *Directory) peek(ctx context.Context, turn int) error {
	ctx, cancel := context.WithTimeout(ctx, d.timing.request)
	defer cancel()
	c, err := d.dial(ctx, turn)
	if err != nil {
		return err
	}
	defer c.Close() // its error is that of a connection that is not used again
	_, err = c.Get(ctx, d.membersPrefix(), clientv3.WithPrefix(), clientv3.WithLimit(1), clientv3.WithKeysOnly())
	if err != nil {
		return fmt.Errorf("list %s: %w", d.membersPrefix(), err)
	}
	return nil
}

// codeOf reads the code of an error of the etcd client, whose own type does not have gRPC's GRPCStatus.
func codeOf(err error) codes.Code {
	var e interface{ Code() codes.Code }
	if errors.As(err, &e) {
		return e.Code()
	}
	return status.Code(err)
}
