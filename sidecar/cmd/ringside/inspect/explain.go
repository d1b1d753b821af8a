// Package inspect has the commands that look into a running sidecar: explain and ring.
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

	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/cli"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Commands returns the commands of this package.
func Commands() []*cobra.Command { return []*cobra.Command{newExplain(), newRing()} }

func newExplain() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain DATASET KEY",
		Short: "Show who owns a key, and the entry that this sidecar has cached for it",
		Example: `  ringside explain cnf-metrics CNF-001
  ringside explain cnf-metrics CNF-001 -o json`,
		Args: cli.Args(cobra.ExactArgs(2)),
	}
	listener, out := cli.AdminFlag(cmd), cli.OutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		query := url.Values{"dataset": {args[0]}, "key": {args[1]}}
		body, err := listener.GetOK(cmd.Context(), "/api/explain?"+query.Encode())
		if err != nil {
			return fmt.Errorf("explain %s %s: %w", args[0], args[1], err)
		}
		if out.JSON() {
			return cli.PrintJSON(cmd.OutOrStdout(), json.RawMessage(body))
		}
		var e adminapi.Explanation
		if err := json.Unmarshal(body, &e); err != nil {
			return fmt.Errorf("explain %s %s: decode the response: %w", args[0], args[1], err)
		}
		return printExplanation(cmd.OutOrStdout(), e)
	}
	return cmd
}

func printExplanation(w io.Writer, e adminapi.Explanation) error {
	printable.Clean(&e)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "route key\t%s\n", e.RouteKey)
	self := ""
	if e.Owner == e.Node {
		self = " (this sidecar)"
	}
	fmt.Fprintf(t, "owner\t%s%s\n", e.Owner, self)
	fmt.Fprintf(t, "successors\t%s\n", cli.OrDash(strings.Join(e.Successors, " ")))
	fmt.Fprintf(t, "ring\t%s\n", e.RingID)
	if e.XDS != nil {
		fmt.Fprintf(t, "xds\t%s\n", xdsLine(e.XDS))
	}
	fmt.Fprintf(t, "cached\t%s\n", describeEntry(e.Memory))
	if e.Memory.Held {
		printEntry(t, e.Memory)
	}
	return t.Flush()
}

func describeEntry(m kv.Explanation) string {
	switch {
	case !m.Held:
		return "no"
	case m.DataError != "":
		return "data error: the rows of the key cannot be its value (" + m.DataError + ")"
	case m.Local:
		return "local copy from " + m.Owner
	case m.Absent:
		return "negative entry: the key does not exist"
	}
	return "yes"
}

func printEntry(w io.Writer, m kv.Explanation) {
	fmt.Fprintf(w, "age\t%s\n", short(m.Age))
	fmt.Fprintf(w, "fresh for\t%s\n", short(m.Fresh))
	fmt.Fprintf(w, "usable for\t%s\n", short(max(m.Fresh, m.Usable))) // without stale windows, as long as it is fresh
	fmt.Fprintf(w, "last load\t%s, reason: %s\n", short(m.LastLoad), m.Why)
	fmt.Fprintf(w, "bytes\t%d\n", m.Bytes)
	fmt.Fprintf(w, "content\t%s\n", cli.OrDash(m.Content))
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
