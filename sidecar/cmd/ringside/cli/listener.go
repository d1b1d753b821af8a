package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// Listener is one listener of a running sidecar, as given by a flag.
type Listener struct {
	flag string
	addr string // host:port, or unix:/path

	tokenFile string // empty: no token
}

// newListener adds a flag with the given name. Its default comes from the environment.
func newListener(cmd *cobra.Command, name, addr, what string) *Listener {
	l := &Listener{flag: name}
	env := "RINGSIDE_" + strings.ToUpper(name)
	cmd.Flags().StringVar(&l.addr, name, FromEnv(env, addr), what+" of the running sidecar (env "+env+")")
	return l
}

// HTTPFlag adds the flag --http, the listener for applications.
func HTTPFlag(cmd *cobra.Command) *Listener {
	return newListener(cmd, "http", "127.0.0.1:7070", "application listener (host:port or unix:/path)").TokenFlag(cmd)
}

// AdminFlag adds the flag --admin.
func AdminFlag(cmd *cobra.Command) *Listener {
	return newListener(cmd, "admin", "127.0.0.1:7075", "admin listener")
}

// MetricsFlag adds the flag --metrics.
func MetricsFlag(cmd *cobra.Command) *Listener {
	return newListener(cmd, "metrics", "127.0.0.1:7073", "metrics listener")
}

const (
	requestTimeout = 10 * time.Second
	// maxResponse bounds the size of one response: far above the largest value and above the ring of 10 000 members.
	maxResponse = 64 << 20
)

// Request is a request to a running sidecar.
type Request struct {
	Method, Path string
	Header       http.Header // may be nil
	Body         []byte
	Timeout      time.Duration // of Do; 0: 10 s
}

// Response is a response that was read completely.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Get sends GET path.
func (l *Listener) Get(ctx context.Context, path string) (Response, error) {
	return l.Do(ctx, Request{Method: http.MethodGet, Path: path})
}

// GetOK sends GET path and returns the body. Any status other than 200 is an error.
func (l *Listener) GetOK(ctx context.Context, path string) ([]byte, error) {
	resp, err := l.Get(ctx, path)
	if err != nil {
		return nil, err
	}
	if resp.Status != http.StatusOK {
		return nil, resp.Err()
	}
	return resp.Body, nil
}

// Do sends a request and reads the response. It returns ErrNoListener if the connection was refused, so that nothing was
// sent.
func (l *Listener) Do(ctx context.Context, r Request) (Response, error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(r.Timeout, requestTimeout))
	defer cancel()
	stream, err := l.Open(ctx, r)
	if err != nil {
		return Response{}, err
	}
	defer stream.Close()
	return stream.readAll()
}

// Stream is a response whose body has not been read yet.
type Stream struct {
	*http.Response
	listener *Listener
	client   *http.Client
}

// Open sends a request and returns as soon as the header of the response has arrived. The caller closes the stream.
func (l *Listener) Open(ctx context.Context, r Request) (*Stream, error) {
	if err := l.checkAddr(); err != nil {
		return nil, err
	}
	client, host := l.newClient()
	req, err := http.NewRequestWithContext(ctx, r.Method, "http://"+host+r.Path, bytes.NewReader(r.Body))
	if err != nil {
		return nil, UsageError{fmt.Errorf("--%s: %w", l.flag, err)}
	}
	if r.Header != nil {
		req.Header = r.Header
	}
	if err := l.authorize(req.Header); err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		client.CloseIdleConnections()
		return nil, l.explain(err)
	}
	return &Stream{resp, l, client}, nil
}

// Close closes the connection.
func (s *Stream) Close() {
	s.Body.Close()
	s.client.CloseIdleConnections()
}

// Err reads the rest of the response and returns the error that it describes.
func (s *Stream) Err() error {
	resp, err := s.readAll()
	if err != nil {
		return err
	}
	return resp.Err()
}

func (s *Stream) readAll() (Response, error) {
	body, err := io.ReadAll(io.LimitReader(s.Body, maxResponse))
	if err != nil {
		return Response{}, fmt.Errorf("read the response of %s: %w", s.listener.addr, err)
	}
	return Response{s.StatusCode, s.Header, body}, nil
}

// checkAddr rejects an address that would be resolved as a name, such as a URL or a port alone.
func (l *Listener) checkAddr() error {
	if strings.HasPrefix(l.addr, "unix:") {
		return nil
	}
	if host, port, err := net.SplitHostPort(l.addr); err != nil || port == "" || strings.Contains(host, "/") {
		return UsageError{fmt.Errorf("--%s: want host:port, without http://, or unix:/path; got %q", l.flag, l.addr)}
	}
	return nil
}

// newClient returns a client without a proxy, because the sidecar is on this host.
func (l *Listener) newClient() (client *http.Client, host string) {
	transport := &http.Transport{}
	path, ok := strings.CutPrefix(l.addr, "unix:")
	if !ok {
		return &http.Client{Transport: transport}, l.addr
	}
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return &http.Client{Transport: transport}, "localhost"
}

// ErrNoListener means that the connection was refused: the request was not sent.
var ErrNoListener = errors.New("no sidecar is listening")

func (l *Listener) explain(err error) error {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("%w on %s: is `ringside run` running? If it listens elsewhere, set --%s",
			ErrNoListener, l.addr, l.flag)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no response from %s in time", l.addr)
	}
	return fmt.Errorf("request to %s failed; is it the %s listener of a sidecar? %w", l.addr, l.flag, err)
}

// Err returns the error that a response describes: the detail of its problem document (RFC 9457), or else its status.
func (r Response) Err() error {
	p := r.Problem()
	if p.Title+p.Detail != "" {
		text := strings.Trim(p.Title+": "+p.Detail, ": ")
		if len(p.Datasets) > 0 {
			text += "; similar names: " + strings.Join(p.Datasets, ", ")
		}
		if p.ID != "" {
			text += " (id " + p.ID + ")"
		}
		return errors.New(text)
	}
	return fmt.Errorf("the sidecar responded %d %s", r.Status, http.StatusText(r.Status))
}

// Problem is the part of a problem document (RFC 9457) that commands print.
type Problem struct {
	Type, Title, Detail string
	Status              int
	ID                  string   // of the line in the sidecar's log with the cause
	Datasets            []string // that the user may have meant
}

// Problem returns the problem document of the response, or the zero value if it has none.
func (r Response) Problem() (p Problem) {
	_ = json.Unmarshal(r.Body, &p) // a body of another form leaves p empty
	return p
}
