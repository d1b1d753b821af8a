package grpcapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/h2"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/watch"
)

type watchStream = grpc.ServerStreamingServer[ringsidev1.WatchResponse]

// errSlow ends a watch whose client does not accept events.
var errSlow = errors.New("the client did not accept an event in time")

// Watch implements ringside.v1.Cache. It ends without an error when the sidecar stops.
func (s *service) Watch(q *ringsidev1.WatchRequest, stream watchStream) error {
	if s.routed {
		return status.Error(codes.Unimplemented, api.ErrWatchIsRouted.Error())
	}
	w, err := s.newWatch(stream.Context(), q)
	if err != nil {
		return err
	}
	if err := s.watches.Open(); err != nil {
		return s.backend.Error(err)
	}
	if err := w.Reserve(); err != nil {
		s.watches.Close()
		return s.backend.Error(err)
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	done := make(chan error, 1)
	go func() {
		defer s.watches.Close()
		done <- s.runWatch(ctx, cancel, w, stream)
	}()
	// A Send that is blocked by the client ends only after this method has returned.
	select {
	case err = <-done:
	case <-ctx.Done():
	}
	return s.watchStatus(ctx, err)
}

func (s *service) newWatch(ctx context.Context, q *ringsidev1.WatchRequest) (watch.Stream, error) {
	start := time.Now()
	defer func() { s.stats.Duration.Observe(time.Since(start)) }()
	d, who, err := s.dataset(ctx, q.GetDataset(), access.Read)
	if err != nil {
		return nil, err
	}
	keys, err := watchedKeys(q)
	if err != nil {
		return nil, err
	}
	if err := d.Gate.Limit(&who, access.Watches, 1); err != nil {
		return nil, s.backend.Error(err)
	}
	permit := func() error {
		_, err := d.Gate.Authorize(caller.From(ctx), access.Read, authorization(ctx))
		return err
	}
	if keys == nil {
		return s.watches.NewSet(d, q.GetPrefix(), q.GetResumeToken()).While(permit), nil
	}
	return s.watches.New(d, keys, q.GetResumeToken()).While(permit), nil
}

// watchedKeys returns the distinct keys of a watch; nil if it is one of a prefix or of all keys.
func watchedKeys(q *ringsidev1.WatchRequest) ([]string, error) {
	switch hasKeys, hasPrefix := len(q.GetKeys()) > 0, q.GetPrefix() != ""; {
	case hasKeys && (hasPrefix || q.GetAll()) || hasPrefix && q.GetAll():
		return nil, api.InvalidRequest(errors.New("a watch has either keys, or a prefix, or all")).At("keys")
	case hasPrefix:
		if err := watch.CheckPrefix(q.GetPrefix()); err != nil {
			return nil, api.InvalidRequest(err).At("prefix")
		}
		return nil, nil
	case q.GetAll():
		return nil, nil
	}
	keys, err := watch.CheckKeys(q.GetKeys())
	if err != nil {
		return nil, api.InvalidRequest(err).At("keys")
	}
	return keys, nil
}

func (s *service) runWatch(
	ctx context.Context, cancel context.CancelCauseFunc, w watch.Stream, stream watchStream,
) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = s.backend.Panic("in a watch", p)
		}
	}()
	return w.Run(ctx, &streamWriter{backend: s.backend, dataset: w.Dataset(), stream: stream, slow: func() { cancel(errSlow) }})
}

// watchStatus returns the status with which a watch ends.
func (s *service) watchStatus(ctx context.Context, err error) error {
	switch {
	case context.Cause(ctx) == errSlow, h2.Cause(ctx) == h2.ErrSlowClient:
		s.backend.Stats().SlowWatchersClosed.Add(1)
		return status.Error(codes.DeadlineExceeded, fmt.Sprintf(
			"the client did not accept an event within %v; watch again with the last token", s.backend.Config().WriteTimeout))
	case s.backend.Stopping().Err() != nil:
		return nil
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	}
	if ended, ok := errors.AsType[*kv.Error](err); ok {
		return s.backend.Error(ended)
	}
	return err
}

// streamWriter writes a watch as messages.
type streamWriter struct {
	backend *api.Backend
	dataset api.Served
	stream  watchStream
	slow    func() // called when the client has not accepted an event in time
}

// Heartbeat implements watch.Sink. HTTP/2 has its own.
func (w *streamWriter) Heartbeat() error { return nil }

// Send implements watch.Sink.
func (w *streamWriter) Send(e watch.Event) error {
	timer := time.AfterFunc(w.backend.Config().WriteTimeout, w.slow) //guard:slow-client-holds-watch-grpc
	defer timer.Stop()
	return w.stream.Send(w.message(e))
}

func (w *streamWriter) message(e watch.Event) *ringsidev1.WatchResponse {
	m := &ringsidev1.WatchResponse{Token: e.Token}
	switch e.Kind {
	case watch.Reset:
		m.Event = &ringsidev1.WatchResponse_Reset_{Reset_: &ringsidev1.WatchReset{}}
	case watch.Current:
		m.Event = &ringsidev1.WatchResponse_Current{Current: &ringsidev1.WatchCurrent{}}
	default:
		m.Event = &ringsidev1.WatchResponse_State{State: w.state(e)}
	}
	return m
}

func (w *streamWriter) state(e watch.Event) *ringsidev1.WatchState {
	s := &ringsidev1.WatchState{Key: e.Key}
	switch r := e.Result; {
	case r.Err != nil:
		s.State = &ringsidev1.WatchState_Error{Error: errorMessage(w.backend.Error(r.Err))}
	case r.Answer.NotFound:
		s.State = &ringsidev1.WatchState_NotFound{NotFound: true}
	default:
		s.State = &ringsidev1.WatchState_Found{Found: getResponse(&r.Answer, w.dataset.MediaType(r.Answer.Content))}
	}
	return s
}
