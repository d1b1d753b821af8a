package main

import (
	"bytes"
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

// listener is one listener of a running sidecar, as a flag names it.
type listener struct {
	flag string
	addr string // host:port, or unix:/path
}

// listenerFlag is a flag of the given name, whose default comes from the environment.
func listenerFlag(cmd *cobra.Command, name, addr, what string) *listener {
	l := &listener{flag: name}
	env := "RINGSIDE_" + strings.ToUpper(name)
	cmd.Flags().StringVar(&l.addr, name, fromEnv(env, addr), what+" of the running sidecar (env "+env+")")
	return l
}

func httpFlag(cmd *cobra.Command) *listener {
	return listenerFlag(cmd, "http", "127.0.0.1:7070", "applications' listener, host:port or unix:/path,")
}

func adminFlag(cmd *cobra.Command) *listener {
	return listenerFlag(cmd, "admin", "127.0.0.1:7075", "admin listener")
}

func metricsFlag(cmd *cobra.Command) *listener {
	return listenerFlag(cmd, "metrics", "127.0.0.1:7073", "metrics listener")
}

const (
	requestTimeout = 10 * time.Second
	// maxAnswer bounds what is read of one answer: far more than a value may have, or the ring of 10 000 members.
	maxAnswer = 64 << 20
)

// response is an answer that was read to its end.
type response struct {
	status int
	header http.Header
	body   []byte
}

// request is what a sidecar is asked.
type request struct {
	method, path string
	header       http.Header // may be nil
	body         []byte
}

// get asks for path.
func (l *listener) get(ctx context.Context, path string) (response, error) {
	return l.ask(ctx, request{method: http.MethodGet, path: path})
}

// ask returns the answer to a request. An error says what to do when nobody listens.
func (l *listener) ask(ctx context.Context, r request) (response, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	client, resp, err := l.open(ctx, r)
	if err != nil {
		return response{}, err
	}
	defer client.CloseIdleConnections()
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return response{}, fmt.Errorf("read the answer of %s: %w", l.addr, err)
	}
	return response{resp.StatusCode, resp.Header, body}, nil
}

// open sends a request. Of its answer, which the caller closes, only the beginning has come.
func (l *listener) open(ctx context.Context, r request) (*http.Client, *http.Response, error) {
	if err := l.check(); err != nil {
		return nil, nil, err
	}
	client, host := l.client()
	req, err := http.NewRequestWithContext(ctx, r.method, "http://"+host+r.path, bytes.NewReader(r.body))
	if err != nil {
		return nil, nil, usageError{fmt.Errorf("--%s: %w", l.flag, err)}
	}
	if r.header != nil {
		req.Header = r.header
	}
	resp, err := client.Do(req)
	if err != nil {
		client.CloseIdleConnections()
		return nil, nil, l.explain(err)
	}
	return client, resp, nil
}

// check refuses an address that would be looked up as a name, such as a URL or a port alone.
func (l *listener) check() error {
	if strings.HasPrefix(l.addr, "unix:") {
		return nil
	}
	if host, port, err := net.SplitHostPort(l.addr); err != nil || port == "" || strings.Contains(host, "/") {
		return usageError{fmt.Errorf("--%s: want host:port, without http://, or unix:/path; got %q", l.flag, l.addr)}
	}
	return nil
}

// client never uses a proxy: the sidecar is on this host.
func (l *listener) client() (client *http.Client, host string) {
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

// errNobody says that nothing was asked of anybody.
var errNobody = errors.New("nobody listens")

func (l *listener) explain(err error) error {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("%w on %s: is `ringside run` running? If it listens elsewhere, say where with --%s",
			errNobody, l.addr, l.flag)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s gave no answer within %s", l.addr, requestTimeout)
	}
	return fmt.Errorf("ask %s, is it the listener that --%s means? %w", l.addr, l.flag, err)
}

// refusal makes an error of an answer that is not what was asked for: the detail of its problem document (RFC 9457), if
// it is one.
func (r response) refusal() error {
	p := r.problem()
	if p.Title+p.Detail != "" {
		return errors.New(strings.Trim(p.Title+": "+p.Detail, ": "))
	}
	return fmt.Errorf("the sidecar answered %d %s", r.status, http.StatusText(r.status))
}

// problem is a problem document, as far as it is printed.
type problem struct {
	Type, Title, Detail string
	Errors              []struct{ Column string }
}

// problem is the zero value where the answer is none.
func (r response) problem() (p problem) {
	_ = json.Unmarshal(r.body, &p) // what cannot be read says nothing
	return p
}
