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
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
)

// maxMessage limits a response of etcd, in bytes. It is gRPC's default, and more than twice the largest request that etcd
// accepts (1.5 MiB), so that one record always fits.
const maxMessage = 4 << 20

// tries is how often the client sends a request; the second time with a new token when the first one has expired. With
// its default, a hundred, every error would be a timeout.
const tries = 2

// failFast makes a request return the error of the connection. The client would wait for a connection until the request
// times out.
func failFast(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
	opts ...grpc.CallOption) error {
	return invoke(ctx, method, req, reply, conn, append(opts, grpc.WaitForReady(false))...) //guard:connection-error-hidden-by-timeout
}

// dial returns a client of one endpoint.
//
// A client has one endpoint and is closed after any error, instead of balancing over all endpoints: the streams of a
// balancing client stay where they are, even at a member of etcd that hangs.
func (d *Directory) dial(ctx context.Context, turn int) (*clientv3.Client, error) {
	return d.dialer.Dial(ctx, d.endpoint(turn))
}

// dialer connects to the endpoints.
type dialer struct{ *Directory }

// Dial implements Dialer, with the present contents of the files. It waits for etcd, at most timing.request, only to authenticate
// with a password.
func (d dialer) Dial(ctx context.Context, endpoint string) (*clientv3.Client, error) {
	cfg := clientv3.Config{
		Context:            ctx,
		Endpoints:          []string{endpoint},
		Username:           d.cfg.Username,
		DialTimeout:        d.timing.request,
		MaxCallRecvMsgSize: maxMessage,
		MaxUnaryRetries:    tries,
		DialOptions: []grpc.DialOption{
			grpc.WithChainUnaryInterceptor(failFast),
			grpc.WithNoProxy(), //guard:etcd-through-the-proxy-of-the-environment
		},
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

// Interrupted implements Dialer. The client resumes a watch by itself on the next connection, and when etcd was restored to an
// earlier revision, it misses all changes before the revision that it waits for.
func (dialer) Interrupted(ctx context.Context, c *clientv3.Client) bool {
	conn := c.ActiveConnection()
	for state := conn.GetState(); state == connectivity.Ready; state = conn.GetState() {
		if !conn.WaitForStateChange(ctx, state) {
			return false
		}
	}
	return true
}

// Check checks that an endpoint can list the members. It returns nil as soon as one answers, and otherwise the error of
// each endpoint, after at most two seconds for each.
func (d *Directory) Check(ctx context.Context) error {
	var errs []error
	for turn := range d.cfg.Endpoints {
		err := d.tryList(ctx, turn)
		if err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", d.endpoint(turn), err))
	}
	return errors.Join(errs...)
}

func (d *Directory) tryList(ctx context.Context, turn int) error {
	ctx, cancel := context.WithTimeout(ctx, d.timing.request)
	defer cancel()
	c, err := d.dial(ctx, turn)
	if err != nil {
		return err
	}
	defer c.Close() // nobody uses the connection again, so its error does not matter
	_, err = c.Get(ctx, d.membersPrefix(), clientv3.WithPrefix(), clientv3.WithLimit(1), clientv3.WithKeysOnly())
	if err != nil {
		return fmt.Errorf("list %s: %w", d.membersPrefix(), err)
	}
	return nil
}

// codeOf returns the code of an error of the etcd client, whose type lacks gRPC's GRPCStatus.
func codeOf(err error) codes.Code {
	var e interface{ Code() codes.Code }
	if errors.As(err, &e) {
		return e.Code()
	}
	return status.Code(err)
}
