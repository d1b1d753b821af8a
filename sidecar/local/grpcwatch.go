package local

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
)

type watchStream = grpc.ServerStreamingServer[ringsidev1.WatchResponse]

// errSlow is the end of a watch whose client does not take what it is told.
var errSlow = errors.New("the client has not taken an event in time")

// Watch implements ringside.v1.Cache. It ends without an error when the sidecar stops.
func (g *service) Watch(q *ringsidev1.WatchRequest, stream watchStream) error {
	if g.routed {
		return status.Error(codes.Unimplemented,
			"a watch has keys of many owners, and is not routed by the ring: open it at the pod's own sidecar")
	}
	w, err := g.newWatch(q)
	if err != nil {
		return err
	}
	if err := g.server.beginWatch(); err != nil {
		return g.server.fail(err).At("")
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	done := make(chan error, 1)
	go func() {
		defer g.server.endWatch()
		done <- g.runWatch(ctx, cancel, w, stream)
	}()
	// A Send that the client does not let go on ends only when this method has returned.
	select {
	case err = <-done:
	case <-ctx.Done():
	}
	return g.endOfWatch(ctx, err)
}

func (g *service) newWatch(q *ringsidev1.WatchRequest) (*watch, error) {
	start := time.Now()
	defer func() { g.stats.Duration.Observe(time.Since(start)) }()
	d, err := g.dataset(q.GetDataset())
	if err != nil {
		return nil, err
	}
	keys, err := checkWatchKeys(q.GetKeys())
	if err != nil {
		return nil, invalidRequest(err).At("keys")
	}
	return g.server.newWatch(d, keys, q.GetResumeToken()), nil
}

func (g *service) runWatch(
	ctx context.Context, cancel context.CancelCauseFunc, w *watch, stream watchStream,
) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = g.server.fail(fmt.Errorf("panic in a watch: %v\n%s", p, debug.Stack())).At("")
		}
	}()
	return w.run(ctx, &streamWriter{service: g, stream: stream, slow: func() { cancel(errSlow) }})
}

// endOfWatch is the status with which a watch ends.
func (g *service) endOfWatch(ctx context.Context, err error) error {
	switch {
	case context.Cause(ctx) == errSlow:
		g.server.stats.WatchesCut.Add(1)
		return status.Error(codes.DeadlineExceeded, fmt.Sprintf("an event was not taken within %v; "+
			"watch again with the last token", g.server.config.WriteTimeout))
	case g.server.draining.Err() != nil:
		return nil
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	}
	return err
}

// streamWriter writes a watch as messages. HTTP/2 has heartbeats of its own.
type streamWriter struct {
	service *service
	stream  watchStream
	slow    func() // called when the client has not taken an event in time
}

func (w *streamWriter) beat() error { return nil }

func (w *streamWriter) tell(e event) error {
	timer := time.AfterFunc(w.service.server.config.WriteTimeout, w.slow) //guard:slow-client-holds-watch-grpc
	defer timer.Stop()
	return w.stream.Send(w.message(e))
}

func (w *streamWriter) message(e event) *ringsidev1.WatchResponse {
	m := &ringsidev1.WatchResponse{Token: e.token}
	switch e.kind {
	case eventReset:
		m.Event = &ringsidev1.WatchResponse_Reset_{Reset_: &ringsidev1.WatchReset{}}
	case eventCurrent:
		m.Event = &ringsidev1.WatchResponse_Current{Current: &ringsidev1.WatchCurrent{}}
	default:
		m.Event = &ringsidev1.WatchResponse_State{State: w.state(e)}
	}
	return m
}

func (w *streamWriter) state(e event) *ringsidev1.WatchState {
	s := &ringsidev1.WatchState{Key: e.key}
	switch {
	case e.outcome.err != nil:
		s.State = &ringsidev1.WatchState_Error{Error: message(w.service.server.fail(e.outcome.err))}
	case e.outcome.answer.NotFound:
		s.State = &ringsidev1.WatchState_Absent{Absent: true}
	default:
		s.State = &ringsidev1.WatchState_Found{Found: reply(&e.outcome.answer)}
	}
	return s
}
