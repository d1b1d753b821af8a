package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// explanation is the admin listener's answer to /api/explain.
type explanation struct {
	RouteKey   string   `json:"route_key"`
	RingID     string   `json:"ring_id"`
	Node       string   `json:"node"`
	Owner      string   `json:"owner"`
	Successors []string `json:"successors"`
	Memory     memory   `json:"memory"`
	Feed       *feed    `json:"feed"`
}

// memory is what the sidecar holds of the key.
type memory struct {
	Held     bool          `json:"held"`
	Absent   bool          `json:"absent"`
	Local    bool          `json:"local_copy"`
	Owner    string        `json:"copied_from"`
	Version  int64         `json:"version"`
	ETag     string        `json:"etag"`
	Bytes    int           `json:"bytes"`
	Age      time.Duration `json:"age_ns"`
	Fresh    time.Duration `json:"fresh_ns"`
	Usable   time.Duration `json:"usable_ns"`
	LastLoad time.Duration `json:"last_load_ns"`
	Why      string        `json:"why"`
	Failing  bool          `json:"failing"`
}

func newExplain() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain DATASET KEY",
		Short: "Say who owns a key, and what this sidecar holds of it and why",
		Example: `  ringside explain cnf-metrics CNF-001
  ringside explain cnf-metrics CNF-001 -o json`,
		Args: usage(cobra.ExactArgs(2)),
	}
	admin, out := adminFlag(cmd), outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		query := url.Values{"dataset": {args[0]}, "key": {args[1]}}
		body, err := admin.api(cmd, "/api/explain?"+query.Encode())
		if err != nil {
			return fmt.Errorf("explain %s %s: %w", args[0], args[1], err)
		}
		if out.json() {
			return printJSON(cmd.OutOrStdout(), json.RawMessage(body))
		}
		var e explanation
		if err := json.Unmarshal(body, &e); err != nil {
			return fmt.Errorf("explain %s %s: understand the answer: %w", args[0], args[1], err)
		}
		return e.print(cmd.OutOrStdout())
	}
	return cmd
}

// api returns the body of an answer of the admin listener.
func (l *listener) api(cmd *cobra.Command, path string) ([]byte, error) {
	resp, err := l.get(cmd.Context(), path)
	if err != nil {
		return nil, err
	}
	if resp.status != http.StatusOK {
		return nil, resp.refusal()
	}
	return resp.body, nil
}

func (e explanation) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "route key\t%s\n", e.RouteKey)
	fmt.Fprintf(t, "owner\t%s%s\n", e.Owner, e.self())
	fmt.Fprintf(t, "successors\t%s\n", orDash(strings.Join(e.Successors, " ")))
	fmt.Fprintf(t, "ring\t%s\n", e.RingID)
	if e.Feed != nil {
		fmt.Fprintf(t, "feed\t%s\n", e.Feed)
	}
	fmt.Fprintf(t, "in memory\t%s\n", e.held())
	if e.Memory.Held {
		e.printEntry(t)
	}
	return t.Flush()
}

func (e explanation) self() string {
	if e.Owner == e.Node {
		return " (this sidecar)"
	}
	return ""
}

func (e explanation) held() string {
	switch {
	case !e.Memory.Held:
		return "no"
	case e.Memory.Local:
		return "a local copy from " + e.Memory.Owner
	case e.Memory.Absent:
		return "that the key is absent"
	}
	return "yes"
}

func (e explanation) printEntry(w io.Writer) {
	m := e.Memory
	fmt.Fprintf(w, "age\t%s\n", short(m.Age))
	fmt.Fprintf(w, "fresh for\t%s\n", short(m.Fresh))
	fmt.Fprintf(w, "usable for\t%s\n", short(max(m.Fresh, m.Usable))) // without stale answers, for as long as fresh
	fmt.Fprintf(w, "last load\t%s, because of %s\n", short(m.LastLoad), m.Why)
	fmt.Fprintf(w, "bytes\t%d\n", m.Bytes)
	fmt.Fprintf(w, "version\t%d\n", m.Version)
	fmt.Fprintf(w, "etag\t%s\n", orDash(m.ETag))
	if m.Failing {
		fmt.Fprintf(w, "failing\tthe last refresh failed; stale answers are given\n")
	}
}

func short(d time.Duration) string {
	if d <= 0 {
		return "0s, it is over"
	}
	return d.Round(max(d/1000, time.Microsecond)).String()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
