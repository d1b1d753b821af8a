package main

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
)

func newWatch() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "watch DATASET KEY...",
		Short: "Print the state of keys, and then each change of it",
		Long: `Print the state of keys, and then each change of it, a line each, until SIGINT. Changes that come fast are printed as
one: the newest state comes always, each state between does not.

The first words of the lines: state, current (all states have been printed), and reset (changes may have been missed,
such as by a restart of the sidecar; all states follow). A connection that is lost is opened again.`,
		Example: `  ringside watch cnf-metrics CNF-001 CNF-002
  ringside watch cnf-metrics CNF-001 -o json`,
		Args: usage(cobra.MinimumNArgs(2)),
	}
	sidecar, out := httpFlag(cmd), outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		w := &watcher{sidecar: sidecar, dataset: args[0], keys: args[1:], json: out.json(), out: cmd.OutOrStdout()}
		if err := w.run(cmd.Context(), cmd.ErrOrStderr()); err != nil {
			return fmt.Errorf("watch %s: %w", args[0], err)
		}
		return nil
	}
	return cmd
}

const (
	// reopenAfter is the pause before a watch is opened again, at most; half of it is random.
	reopenAfter = time.Second
	// watchSilence is how long a watch may say nothing: three of the sidecar's heartbeats.
	watchSilence = 45 * time.Second
	// maxEvent bounds one line of a watch: a value that is not JSON comes in base64.
	maxEvent = 4 * maxValue
)

// watcher prints one watch, over as many connections as it takes.
type watcher struct {
	sidecar *listener
	dataset string
	keys    []string
	json    bool
	out     io.Writer

	began bool   // something was printed
	token string // of the last event that was printed
}

// refusedError is an answer that another attempt would only get again.
type refusedError struct{ error }

// run returns nil when ctx is done. A watch that never began is not tried again: nobody may be there at all.
func (w *watcher) run(ctx context.Context, complaints io.Writer) error {
	for {
		err := w.stream(ctx)
		var refused refusedError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &refused) || !w.began:
			return err
		}
		fmt.Fprintf(complaints, "ringside: the watch is interrupted, and opened again: %v\n", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(reopenAfter/2 + rand.N(reopenAfter/2)):
		}
	}
}

// stream prints what comes on one connection, and returns why it ended.
func (w *watcher) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	header := http.Header{"Accept": {"text/event-stream"}}
	if w.token != "" {
		header.Set("Last-Event-ID", w.token) //guard:watch-begins-anew-after-each-lost
	}
	query := url.Values{"key": w.keys}
	path := "/v1/" + url.PathEscape(w.dataset) + ":watch?" + query.Encode()
	silence := time.AfterFunc(watchSilence, func() { cancel(errSilent) })
	defer silence.Stop()
	client, resp, err := w.sidecar.open(ctx, request{method: http.MethodGet, path: path, header: header})
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return refusalOf(resp)
	}
	err = w.print(resp.Body, func() { silence.Reset(watchSilence) })
	if context.Cause(ctx) == errSilent {
		return errSilent
	}
	return err
}

var errSilent = fmt.Errorf("no sign of life for %s", watchSilence)

// refusalOf reads an answer that is no stream.
func refusalOf(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	err = response{resp.StatusCode, resp.Header, body}.refusal()
	if resp.StatusCode < http.StatusInternalServerError && resp.StatusCode != http.StatusTooManyRequests {
		return refusedError{err}
	}
	return err
}

// event is one server-sent event (WHATWG HTML, 9.2).
type event struct {
	name, id string
	data     []byte
}

// print prints events until the stream ends. heard is called at each sign of life.
func (w *watcher) print(stream io.Reader, heard func()) error {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, maxEvent)
	var e event
	for lines.Scan() {
		heard()
		name, value, _ := bytes.Cut(lines.Bytes(), []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch {
		case len(lines.Bytes()) == 0 && e.name != "":
			if err := w.printEvent(e); err != nil {
				return refusedError{err} // nobody reads what is printed
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
	return errors.New("the sidecar ended it")
}

// state is what an event says of a key.
type state struct {
	Key         string          `json:"key"`
	Value       json.RawMessage `json:"value"`
	ValueBase64 []byte          `json:"valueBase64"`
	Version     int64           `json:"version"`
	Stale       bool            `json:"stale"`
	Error       *problem        `json:"error"`
}

func (w *watcher) printEvent(e event) error {
	line := e.name
	if w.json {
		line = fmt.Sprintf(`{"event":%q,"token":%q,"data":%s}`, e.name, e.id, e.data)
	} else if e.name == "state" {
		var s state
		if err := json.Unmarshal(e.data, &s); err != nil {
			return fmt.Errorf("understand an event: %w", err)
		}
		line += " " + s.String()
	}
	w.began, w.token = true, e.id
	_, err := fmt.Fprintln(w.out, line)
	return err
}

// String is one line.
func (s state) String() string {
	switch {
	case s.Error != nil && strings.HasSuffix(s.Error.Type, "/absent"):
		return s.Key + " absent"
	case s.Error != nil:
		return s.Key + " error " + s.Error.Detail
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
