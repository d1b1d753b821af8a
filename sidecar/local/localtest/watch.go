package localtest

import (
	"bufio"
	"encoding/json"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

// WatchClient is the client of a watch. It writes events as words: reset, current, and of a key k its value as k=value,
// that it does not exist as k-, and an error as k!.
type WatchClient interface {
	// Next returns the next event.
	Next() string
	// Expect fails unless the next events are those wanted, in any order.
	Expect(want ...string)
}

// ServerEvent is one event as a browser dispatches it.
type ServerEvent struct{ Name, ID, Data string }

// EventReader parses an event stream as WHATWG HTML, 9.2.6 specifies.
type EventReader struct {
	*bufio.Reader
	Retry    string
	Comments int
	ID       string // of the last event
}

// Event returns the next event that is dispatched: one with data.
func (r *EventReader) Event() (e ServerEvent, err error) {
	var data []string
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return e, err
		}
		line = strings.TrimSuffix(line, "\n")
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "" && data != nil:
			e.Data, e.ID = strings.Join(data, "\n"), r.ID
			return e, nil
		case line == "":
			e = ServerEvent{}
		case name == "":
			r.Comments++
		case name == "event":
			e.Name = value
		case name == "data":
			data = append(data, value)
		case name == "id":
			r.ID = value
		case name == "retry":
			r.Retry = value
		}
	}
}

// EventStream is a watch over HTTP.
type EventStream struct {
	*Conn
	Header *http.Response // its body is read by Events
	Events *EventReader
}

// OpenWatch opens a watch over HTTP.
func OpenWatch(tb testing.TB, network, address, target string, fields ...string) *EventStream {
	tb.Helper()
	c := Dial(tb, network, address)
	c.Send(Get(target, fields...))
	resp, err := http.ReadResponse(c.Reader, &http.Request{Method: "GET"})
	if err != nil {
		tb.Fatal(err)
	}
	return NewEventStream(c, resp)
}

// NewEventStream returns the watch whose response has begun on c.
func NewEventStream(c *Conn, resp *http.Response) *EventStream {
	return &EventStream{c, resp, &EventReader{Reader: bufio.NewReader(resp.Body)}}
}

// Next implements WatchClient.
func (s *EventStream) Next() string {
	s.TB.Helper()
	e, err := s.Events.Event()
	if err != nil {
		s.TB.Fatal(err)
	}
	if e.Name != "state" {
		if e.Data != "{}" {
			s.TB.Errorf("got %+v, want {} as data", e)
		}
		return e.Name
	}
	var entry struct {
		Key         string
		Value       json.RawMessage
		ValueBase64 []byte
		Error       *apierror.Problem
	}
	if err := json.Unmarshal([]byte(e.Data), &entry); err != nil {
		s.TB.Fatalf("%v: %+v", err, e)
	}
	switch {
	case entry.Error == nil:
		return entry.Key + "=" + string(entry.Value) + string(entry.ValueBase64)
	case entry.Error.Type == apierror.BaseURI+apierror.NotFound.Name:
		return entry.Key + "-"
	}
	return entry.Key + "!"
}

// Expect implements WatchClient.
func (s *EventStream) Expect(want ...string) {
	s.TB.Helper()
	expect(s.TB, s, want)
}

func expect(tb testing.TB, c WatchClient, want []string) {
	tb.Helper()
	var got []string
	for range want {
		got = append(got, c.Next())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		tb.Errorf("got events %q, want %q", got, want)
	}
}

// GRPCWatch is a watch over gRPC.
type GRPCWatch struct {
	Token  string // of the last event
	tb     testing.TB
	stream interface {
		Recv() (*ringsidev1.WatchResponse, error)
	}
}

// OpenGRPCWatch opens a watch of the dataset "raw" over gRPC.
func OpenGRPCWatch(tb testing.TB, address, token string, keys ...string) *GRPCWatch {
	tb.Helper()
	return openGRPCWatch(tb, address, &ringsidev1.WatchRequest{Dataset: "raw", Keys: keys, ResumeToken: token})
}

// OpenGRPCSetWatch opens a watch of the keys of the dataset "raw" that begin with a prefix over gRPC.
func OpenGRPCSetWatch(tb testing.TB, address, token, prefix string) *GRPCWatch {
	tb.Helper()
	return openGRPCWatch(tb, address, &ringsidev1.WatchRequest{Dataset: "raw", Prefix: prefix, ResumeToken: token})
}

func openGRPCWatch(tb testing.TB, address string, q *ringsidev1.WatchRequest) *GRPCWatch {
	tb.Helper()
	stream, err := Client(tb, address).Watch(tb.Context(), q)
	if err != nil {
		tb.Fatal(err)
	}
	return &GRPCWatch{tb: tb, stream: stream}
}

// Recv receives the next message.
func (w *GRPCWatch) Recv() (*ringsidev1.WatchResponse, error) { return w.stream.Recv() }

// Next implements WatchClient.
func (w *GRPCWatch) Next() string {
	w.tb.Helper()
	got, err := w.Recv()
	if err != nil {
		w.tb.Fatal(err)
	}
	w.Token = got.GetToken()
	state := got.GetState()
	switch {
	case got.GetReset_() != nil:
		return "reset"
	case got.GetCurrent() != nil:
		return "current"
	case state.GetError() != nil:
		return state.GetKey() + "!"
	case state.GetNotFound():
		return state.GetKey() + "-"
	}
	return state.GetKey() + "=" + string(state.GetFound().GetValue())
}

// Expect implements WatchClient.
func (w *GRPCWatch) Expect(want ...string) {
	w.tb.Helper()
	expect(w.tb, w, want)
}

// OpenUnreadWatch requests a watch over HTTP and never reads.
func OpenUnreadWatch(tb testing.TB, address, target string) {
	tb.Helper()
	c := Dial(tb, "tcp", address)
	if err := c.Conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		tb.Fatal(err)
	}
	c.Send(Get(target))
}
