package etcdorigin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/origin/authfiles"
	"github.com/ringside-cache/ringside/ring/printable"
)

const (
	// authTimeout limits the authentication with a password, which a new connection begins with.
	authTimeout = 2 * time.Second
	// spareMessage is how much larger than a value a response may be, in bytes. A fragment of a watch has up to 2 MiB by default.
	spareMessage = 3 << 20
	// tries is how often the client sends a request: the second time with a new token when the first one has expired.
	tries = 2
)

// conn is a connection to one member, with which loads share it.
type conn struct {
	client *clientv3.Client
	// uses are the requests in flight. The connection is closed when it is replaced and has none. source.mu guards both.
	uses     int
	replaced bool
}

// dial returns a client of one endpoint, with the present contents of the files. Without a password it does not wait for etcd. Done after
// dial has returned, ctx has no effect.
//
// A client has one endpoint, instead of balancing over all of them: a balancing client stays at a member that hangs.
func (s *source) dial(ctx context.Context, endpoint string) (*clientv3.Client, error) {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	cfg := clientv3.Config{
		Context:            base,
		Endpoints:          []string{endpoint},
		DialTimeout:        authTimeout,
		MaxCallRecvMsgSize: s.config.MaxValueBytes + spareMessage,
		MaxUnaryRetries:    tries,
		DialOptions:        []grpc.DialOption{grpc.WithChainUnaryInterceptor(failFast), grpc.WithNoProxy()},
		// The no-op logger; the client's default writes each retry to stderr.
		Logger: clientv3.NewCtxClient(base).GetLogger(),
	}
	var err error
	if s.isTLS() {
		cfg.TLS, err = authfiles.TLS(s.config.Auth)
	}
	if a := s.config.Auth; err == nil && a.Username != "" {
		cfg.Username = a.Username
		cfg.Password, err = authfiles.Password(a)
	}
	var client *clientv3.Client
	if err == nil {
		client, err = clientv3.New(cfg)
	}
	if !stop() && err == nil { // base is done, too
		_ = client.Close() // nobody has used it
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("connect: %w", err)
	}
	return client, nil
}

// failFast makes a request return the error of the connection, instead of waiting for a connection until the request times out.
func failFast(ctx context.Context, method string, req, reply any, c *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return invoke(ctx, method, req, reply, c, append(opts, grpc.WaitForReady(false))...) //guard:load-waits-for-a-member-that-is-down
}

// request calls do with the shared connection, and with one to another member while there is no connection.
func (s *source) request(ctx context.Context, do func(context.Context, *clientv3.Client) error) (err error) {
	for range max(len(s.endpoints), tries) {
		err = s.try(ctx, do)
		if ctx.Err() != nil {
			return fmt.Errorf("request: %w", ctx.Err())
		}
		if code := codeOf(err); code != codes.Unavailable && code != codes.Unauthenticated {
			break
		}
	}
	return safe(err)
}

func (s *source) try(ctx context.Context, do func(context.Context, *clientv3.Client) error) error {
	c, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	err = do(ctx, c.client)
	s.release(c, err != nil && !isAnswer(err) && !errors.Is(ctx.Err(), context.Canceled))
	return err
}

// acquire returns the shared connection, which the caller releases.
func (s *source) acquire(ctx context.Context) (*conn, error) {
	select {
	case s.dialing <- struct{}{}:
		defer func() { <-s.dialing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	c, endpoint := s.current, s.endpoints[s.turn%len(s.endpoints)]
	if c != nil {
		c.uses++
	}
	s.mu.Unlock()
	if c != nil {
		return c, nil
	}
	client, err := s.dial(ctx, endpoint)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.turn++
		return nil, err
	}
	c = &conn{client: client, uses: 1}
	s.current = c
	return c, nil
}

// release ends a use. A failed connection is replaced by one to the next member; other requests in flight end on it.
func (s *source) release(c *conn, failed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.uses--
	if failed && s.current == c { //guard:loads-stay-at-a-member-that-hangs
		s.current, c.replaced = nil, true
		s.turn++
	}
	if c.replaced && c.uses == 0 {
		_ = c.client.Close() // nobody uses it again
	}
}

// Close implements origin.Source. The connection of requests in flight ends with them.
func (s *source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.current; c != nil {
		s.current, c.replaced = nil, true
		if c.uses == 0 {
			_ = c.client.Close() // nothing was written that an error could concern
		}
	}
	return nil
}

// isAnswer reports whether err is of the request, not of the connection.
func isAnswer(err error) bool { return isTooMuch(err) || isDenied(err) }

// isTooMuch reports whether a smaller request helps: the response is larger than a message may be, or the server permits fewer operations.
func isTooMuch(err error) bool {
	return codeOf(err) == codes.ResourceExhausted && !errors.Is(err, rpctypes.ErrTooManyRequests) || errors.Is(err, rpctypes.ErrTooManyOps)
}

func isDenied(err error) bool { return errors.Is(err, rpctypes.ErrPermissionDenied) }

// codeOf returns the code of an error of the etcd client, whose type lacks gRPC's GRPCStatus.
func codeOf(err error) codes.Code {
	if e, ok := errors.AsType[interface {
		error
		Code() codes.Code
	}](err); ok {
		return e.Code()
	}
	return status.Code(err)
}

// safe makes the text of err one short line, because a server can send any.
func safe(err error) error {
	if err == nil || printable.Text(err.Error()) == err.Error() {
		return err
	}
	return errors.New(printable.Text(err.Error()))
}
