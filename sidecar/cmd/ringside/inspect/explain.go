// Package inspect has the commands that look into a running sidecar: explain, ring and top.
package inspect

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/cli"
)

// Commands returns the commands of this package.
func Commands() []*cobra.Command { return []*cobra.Command{newExplain(), newRing(), newTop()} }

// explanation is the response of the admin listener to /api/explain.
type explanation struct {
	RouteKey   string        `json:"route_key"`
	RingID     string        `json:"ring_id"`
	Node       string        `json:"node"`
	Owner      string        `json:"owner"`
	Successors []string      `json:"successors"`
	Memory     memory        `json:"memory"`
	Feed       *xdsPublisher `json:"feed"`
}

// memory is the cached entry of the key.
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
		Short: "Show who owns a key, and the entry that this sidecar has cached for it",
		Example: `  ringside explain cnf-metrics CNF-001
  ringside explain cnf-metrics CNF-001 -o json`,
		Args: cli.Args(cobra.ExactArgs(2)),
	}
	admin, out := cli.AdminFlag(cmd), cli.OutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		query := url.Values{"dataset": {args[0]}, "key": {args[1]}}
		body, err := admin.GetOK(cmd.Context(), "/api/explain?"+query.Encode())
		if err != nil {
			return fmt.Errorf("explain %s %s: %w", args[0], args[1], err)
		}
		if out.JSON() {
			return cli.PrintJSON(cmd.OutOrStdout(), json.RawMessage(body))
		}
		var e explanation
		if err := json.Unmarshal(body, &e); err != nil {
			return fmt.Errorf("explain %s %s: decode the response: %w", args[0], args[1], err)
		}
		return e.print(cmd.OutOrStdout())
	}
	return cmd
}

func (e explanation) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "route key\t%s\n", e.RouteKey)
	fmt.Fprintf(t, "owner\t%s%s\n", e.Owner, e.self())
	fmt.Fprintf(t, "successors\t%s\n", cli.OrDash(strings.Join(e.Successors, " ")))
	fmt.Fprintf(t, "ring\t%s\n", e.RingID)
	if e.Feed != nil {
		fmt.Fprintf(t, "xds\t%s\n", e.Feed)
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
		return "local copy from " + e.Memory.Owner
	case e.Memory.Absent:
		return "negative entry: the key does not exist"
	}
	return "yes"
}

func (e explanation) printEntry(w io.Writer) {
	m := e.Memory
	fmt.Fprintf(w, "age\t%s\n", short(m.Age))
	fmt.Fprintf(w, "fresh for\t%s\n", short(m.Fresh))
	fmt.Fprintf(w, "usable for\t%s\n", short(max(m.Fresh, m.Usable))) // without stale windows, as long as it is fresh
	fmt.Fprintf(w, "last load\t%s, reason: %s\n", short(m.LastLoad), m.Why)
	fmt.Fprintf(w, "bytes\t%d\n", m.Bytes)
	fmt.Fprintf(w, "version\t%d\n", m.Version)
	fmt.Fprintf(w, "etag\t%s\n", cli.OrDash(m.ETag))
	if m.Failing {
		fmt.Fprintf(w, "failing\tthe last refresh failed; stale values are served\n")
	}
}

func short(d time.Duration) string {
	if d <= 0 {
		return "0s (expired)"
	}
	return d.Round(max(d/1000, time.Microsecond)).String()
}
