package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/cli"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func newWatch() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "watch DATASET KEY... | --prefix PREFIX | --all",
		Short: "Print the state of keys, and then every change",
		Long: `Print the state of keys, and then every change, one line each, until SIGINT. Changes in quick succession are merged:
the latest state is always printed, an intermediate state may not be. With --prefix or --all, keys that appear later
belong to it, too.

Each line starts with one of: state; current (all states have been printed); reset (changes may have been missed, for
example because the sidecar was restarted; all states follow). A lost connection is reopened.`,
		Example: `  ringside watch cnf-metrics CNF-001 CNF-002
  ringside watch cnf-metrics CNF-001 -o json
  ringside watch cnf-metrics --prefix CNF-`,
	}
	prefix := cmd.Flags().String("prefix", "", "watch the keys that begin with `PREFIX`")
	all := cmd.Flags().Bool("all", false, "watch all keys")
	cmd.MarkFlagsMutuallyExclusive("prefix", "all")
	cmd.Args = cli.Args(func(cmd *cobra.Command, args []string) error {
		if *all || cmd.Flags().Changed("prefix") {
			return cobra.ExactArgs(1)(cmd, args)
		}
		return cobra.MinimumNArgs(2)(cmd, args)
	})
	sidecar, out := cli.HTTPFlag(cmd), cli.OutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		query := url.Values{"key": args[1:]}
		switch {
		case *all:
			query = url.Values{"all": {"true"}}
		case cmd.Flags().Changed("prefix"):
			query = url.Values{"prefix": {*prefix}}
		}
		w := &watcher{sidecar: sidecar, dataset: args[0], query: query, json: out.JSON(), out: cmd.OutOrStdout()}
		if err := w.watch(cmd.Context(), cmd.ErrOrStderr()); err != nil {
			return fmt.Errorf("watch %s: %w", args[0], err)
		}
		return nil
	}
	return cmd
}

const (
	// reopenAfter is the longest pause before a watch is reopened; half of it is random.
	reopenAfter = time.Second
	// idleTimeout is how long a watch may send nothing: three of the sidecar's heartbeats.
	idleTimeout = 45 * time.Second
	// maxEvent bounds one line of a watch: a value that is not JSON is sent in base64.
	maxEvent = 4 * kv.MaxValueBytes
)

// watcher prints one watch over as many connections as necessary.
type watcher struct {
	sidecar *cli.Listener
	dataset string
	query   url.Values // which keys
	json    bool
	out     io.Writer

	began bool   // an event was printed
	token string // resume token of the last printed event
}

// permanentError is an error that another attempt would only repeat.
type permanentError struct{ error }

// watch returns nil when ctx is done. It does not retry a watch that printed nothing: the sidecar may not exist.
func (w *watcher) watch(ctx context.Context, errOut io.Writer) error {
	for {
		err := w.stream(ctx)
		var permanent permanentError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &permanent) || !w.began:
			return err
		}
		fmt.Fprintf(errOut, "ringside: watch interrupted, reconnecting: %v\n", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reopenAfter/2 + rand.N(reopenAfter/2)):
		}
	}
}

// stream prints the events of one connection and returns why it ended.
func (w *watcher) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	header := http.Header{"Accept": {"text/event-stream"}}
	if w.token != "" {
		header.Set("Last-Event-ID", w.token) //guard:watch-resumes
	}
	path := "/v1/" + url.PathEscape(w.dataset) + ":watch?" + w.query.Encode()
	idle := time.AfterFunc(idleTimeout, func() { cancel(errIdle) })
	defer idle.Stop()
	resp, err := w.sidecar.Open(ctx, cli.Request{Method: http.MethodGet, Path: path, Header: header})
	if err != nil {
		return err
	}
	defer resp.Close()
	if resp.StatusCode != http.StatusOK {
		return refusal(resp)
	}
	err = w.printEvents(resp.Body, func() { idle.Reset(idleTimeout) })
	if context.Cause(ctx) == errIdle {
		return errIdle
	}
	return err
}

var errIdle = fmt.Errorf("nothing received for %s", idleTimeout)

// refusal returns the error of a response that is not a stream.
func refusal(resp *cli.Stream) error {
	err := resp.Err()
	if resp.StatusCode < http.StatusInternalServerError && resp.StatusCode != http.StatusTooManyRequests {
		return permanentError{err}
	}
	return err
}

// event is one server-sent event (WHATWG HTML, 9.2).
type event struct {
	name, id string
	data     []byte
}

// printEvents prints events until the stream ends. It calls received for each line, heartbeats included.
func (w *watcher) printEvents(stream io.Reader, received func()) error {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, maxEvent)
	var e event
	for lines.Scan() {
		received()
		name, value, _ := bytes.Cut(lines.Bytes(), []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch {
		case len(lines.Bytes()) == 0 && e.name != "":
			if err := w.printEvent(e); err != nil {
				return err
			}
			e = event{}
		case string(name) == "event":
			e.name = string(value)
		case string(name) == "id":
			e.id = string(value)
		case string(name) == "data":
			e.data = bytes.Clone(value)
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return errors.New("the sidecar closed the stream")
}

// state is the data of a state event.
type state struct {
	Key         string          `json:"key"`
	Value       json.RawMessage `json:"value"`
	ValueBase64 []byte          `json:"valueBase64"`
	Version     int64           `json:"version"`
	Stale       bool            `json:"stale"`
	Error       *cli.Problem    `json:"error"`
}

func (w *watcher) printEvent(e event) error {
	line := e.name
	if e.name == "end" {
		return endOf(e)
	}
	if w.json {
		line = fmt.Sprintf(`{"event":%q,"token":%q,"data":%s}`, e.name, e.id, e.data)
	} else if e.name == "state" {
		var s state
		if err := json.Unmarshal(e.data, &s); err != nil {
			return permanentError{fmt.Errorf("decode an event: %w", err)}
		}
		line += " " + s.String()
	}
	w.began, w.token = true, e.id
	if _, err := fmt.Fprintln(w.out, cli.ForReader(w.out, line)); err != nil {
		return permanentError{err} // stdout is closed
	}
	return nil
}

// endOf returns why the sidecar has ended the watch.
func endOf(e event) error {
	var p cli.Problem
	if err := json.Unmarshal(e.data, &p); err != nil {
		return fmt.Errorf("decode the end of the watch: %w", err)
	}
	err := fmt.Errorf("the sidecar ended the watch: %s", p.Detail)
	if p.Status < http.StatusInternalServerError && p.Status != http.StatusTooManyRequests {
		return permanentError{err}
	}
	return err
}

// String is one line.
func (s state) String() string {
	switch {
	case s.Error != nil && strings.HasSuffix(s.Error.Type, "/not-found"):
		return s.Key + " not found"
	case s.Error != nil:
		return strings.TrimSuffix(s.Key+" error "+s.Error.Detail+" (id "+s.Error.ID+")", " (id )")
	}
	words := []string{s.Key}
	if s.Version != 0 {
		words = append(words, fmt.Sprintf("version=%d", s.Version))
	}
	if s.Stale {
		words = append(words, "stale")
	}
	if s.Value != nil {
		words = append(words, string(s.Value))
	} else {
		words = append(words, "base64="+base64.StdEncoding.EncodeToString(s.ValueBase64))
	}
	return strings.Join(words, " ")
}
