package client

import (
	"context"
	"errors"
	"math"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// maxAttempts bounds how often a call begins again that no server has seen: connections may end while it begins.
const maxAttempts = 3

// options are those of a call.
type options struct {
	limit int        // of a response
	wait  bool       // for a connection, even after failures to connect
	peer  *peer.Peer // set when the request may have been sent
}

func optionsOf(list []grpc.CallOption) (o options, err error) {
	o.limit = math.MaxInt32
	for _, one := range list {
		switch one := one.(type) {
		case grpc.MaxRecvMsgSizeCallOption:
			o.limit = one.MaxRecvMsgSize
		case grpc.FailFastCallOption:
			o.wait = !one.FailFast
		case grpc.PeerCallOption:
			o.peer = one.PeerAddr
		case grpc.StaticMethodCallOption:
		default:
			return o, status.Errorf(codes.Internal, "the client does not support the option %T", one)
		}
	}
	return o, nil
}

var _ grpc.ClientConnInterface = (*Client)(nil)

// Invoke implements grpc.ClientConnInterface.
func (c *Client) Invoke(ctx context.Context, method string, args, reply any, list ...grpc.CallOption) error {
	o, err := optionsOf(list)
	if err == nil && ctx.Err() != nil {
		err = status.FromContextError(ctx.Err()).Err()
	}
	if err != nil {
		return err
	}
	encoded, err := c.config.Codec.Marshal(args)
	if err != nil {
		return status.Errorf(codes.Internal, "encode the request: %v", err)
	}
	defer encoded.Free()
	request := encoded.MaterializeToBuffer(mem.DefaultBufferPool())
	defer request.Free()
	for attempt := 1; ; attempt++ {
		on, err := c.connected(ctx, o.wait)
		if err != nil {
			return err
		}
		unprocessed, err := on.invoke(ctx, method, request.ReadOnlyData(), reply, o)
		if !unprocessed || attempt == maxAttempts {
			return err
		}
		c.retire(on)
	}
}

// maxFree limits the streams that a connection keeps for its next calls.
const maxFree = 128

// newStream returns a stream for a call. Called without mu.
func (c *conn) newStream() *stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := len(c.free) - 1
	if last < 0 {
		return &stream{conn: c, wake: make(chan struct{}, 1)}
	}
	s := c.free[last]
	c.free = c.free[:last]
	return s
}

// recycle makes a stream, which has ended, available again. Called without mu.
func (c *conn) recycle(s *stream) {
	buf := s.buf[:0]
	if cap(buf) > narrowBytes {
		buf = nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-s.wake:
	default:
	}
	*s = stream{conn: c, wake: s.wake, buf: buf}
	if len(c.free) < min(maxFree, len(c.streams)+1) { // a few after a burst
		c.free = append(c.free, s)
	}
}

// invoke makes a unary call. Called without mu.
func (c *conn) invoke(ctx context.Context, method string, request []byte, reply any, o options) (unprocessed bool, err error) {
	s := c.newStream()
	defer c.recycle(s)
	s.unary, s.limit = true, o.limit
	message, err := s.roundTrip(ctx, method, request)
	if o.peer != nil && s.id != 0 && !s.unprocessed {
		o.peer.Addr = c.nc.RemoteAddr()
	}
	if err != nil {
		return s.unprocessed, err
	}
	if err := c.client.config.Codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(message)}, reply); err != nil {
		return false, status.Errorf(codes.Internal, "decode the response: %v", err)
	}
	return false, nil
}

func (s *stream) roundTrip(ctx context.Context, method string, request []byte) ([]byte, error) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	s.open(ctx, method, request)
	for !s.done {
		s.wait(ctx)
	}
	return s.message()
}

// NewStream implements grpc.ClientConnInterface for calls with one request.
func (c *Client) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, list ...grpc.CallOption) (grpc.ClientStream, error) {
	o, err := optionsOf(list)
	if err == nil && desc.ClientStreams {
		err = status.Error(codes.Internal, "the client sends one request only")
	}
	if err != nil {
		return nil, err
	}
	return &clientStream{client: c, ctx: ctx, method: method, options: o}, nil
}

// clientStream is a server-streaming call, which begins with its request.
type clientStream struct {
	client *Client
	ctx    context.Context
	method string
	options
	stream *stream
	stop   func() bool
}

// SendMsg implements grpc.ClientStream.
func (s *clientStream) SendMsg(args any) error {
	encoded, err := s.client.config.Codec.Marshal(args)
	if err != nil {
		return status.Errorf(codes.Internal, "encode the request: %v", err)
	}
	defer encoded.Free()
	on, err := s.client.connected(s.ctx, s.wait)
	if err != nil {
		return err
	}
	s.stream = &stream{conn: on, limit: s.limit, wake: make(chan struct{}, 1)}
	on.mu.Lock()
	defer on.mu.Unlock()
	s.stream.open(s.ctx, s.method, encoded.Materialize())
	s.stop = context.AfterFunc(s.ctx, func() { //guard:canceled-stream-runs-on
		on.mu.Lock()
		defer on.mu.Unlock()
		s.stream.cancel(s.ctx)
	})
	return nil
}

// RecvMsg implements grpc.ClientStream.
func (s *clientStream) RecvMsg(reply any) error {
	if s.stream == nil {
		return status.Error(codes.Internal, "there is no request")
	}
	message, err := s.stream.next(s.ctx)
	if err != nil {
		s.stop()
		return err
	}
	err = s.client.config.Codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(message)}, reply)
	if err != nil {
		return status.Errorf(codes.Internal, "decode the response: %v", err)
	}
	return nil
}

// CloseSend implements grpc.ClientStream: the request has ended already.
func (s *clientStream) CloseSend() error { return nil }

// Context implements grpc.ClientStream.
func (s *clientStream) Context() context.Context { return s.ctx }

var errMetadata = errors.New("the client keeps no metadata")

// Header implements grpc.ClientStream.
func (s *clientStream) Header() (metadata.MD, error) { return nil, errMetadata }

// Trailer implements grpc.ClientStream.
func (s *clientStream) Trailer() metadata.MD { return nil }
