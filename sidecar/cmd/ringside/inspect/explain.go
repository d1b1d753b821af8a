// Package inspect has the commands that look into a running sidecar: explain, audit and ring.
package inspect

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
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
func Commands() []*cobra.Command { return []*cobra.Command{newExplain(), newAudit(), newRing()} }

func newExplain() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain DATASET KEY",
		Short: "Show which members own a key, what each has cached of it, and what the next read does",
		Long: `Show the owner and the successors of a key, what each of them and this sidecar have cached of it, what a read would be
answered with, and what it depends on: the read bound, the latest error, the circuit breaker of the origin, and the change feed.

The sidecar asks the other members, for at most half a second: one that does not answer is shown as such. Nothing is loaded. READS
counts the 100 ms windows of the last 6.4 s in which the entry was read, not the reads. The text of an error is in the log of
the member that had it, under the id.`,
		Example: `  ringside explain cnf-metrics CNF-001
  ringside explain cnf-metrics CNF-001 -o json`,
		Args: cli.Args(cobra.ExactArgs(2)),
	}
	listener, out := cli.AdminFlag(cmd).TokenFlag(cmd), cli.OutputFlag(cmd)
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
	if e.ZoneOwner != "" {
		fmt.Fprintf(t, "zone owner\t%s\n", e.ZoneOwner)
	}
	fmt.Fprintf(t, "successors\t%s\n", cli.OrDash(strings.Join(e.Successors, " ")))
	fmt.Fprintf(t, "ring\t%s\n", e.RingID)
	if e.XDS != nil {
		fmt.Fprintf(t, "xds\t%s\n", xdsLine(e.XDS))
	}
	if e.NextRead != "" {
		fmt.Fprintf(t, "next read\t%s\n", e.NextRead)
	}
	fmt.Fprintf(t, "cached\t%s\n", describeEntry(e.Memory))
	if e.Memory.Held {
		printEntry(t, e.Memory)
	}
	if err := t.Flush(); err != nil || len(e.Members) == 0 {
		return err
	}
	fmt.Fprintln(w)
	return printMembers(w, e.Members)
}

// printMembers prints one line for each member, and those of its problems.
func printMembers(w io.Writer, members []adminapi.KeyMember) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MEMBER\tROLE\tZONE\tSTATE\tCACHED\tAGE\tFRESH FOR\tVERSION\tREAD BOUND\tREADS\tFEED\tBREAKER\tLAST ERROR")
	for _, m := range members {
		state := m.State
		if m.LogID != "" {
			state += " (id " + m.LogID + ")"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", m.ID, m.Role, cli.OrDash(m.Zone), state, memberColumns(m.Key))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, m := range members {
		if m.Key != nil && m.Key.Policy.TTL > 0 {
			_, err := fmt.Fprintf(w, "\npolicy of %s: %s\n", m.ID, policyLine(m.Key.Policy))
			return err
		}
	}
	return nil
}

func memberColumns(k *adminapi.KeyState) string {
	if k == nil {
		return strings.Join(slices.Repeat([]string{"?"}, 9), "\t")
	}
	m, columns := k.Memory, slices.Repeat([]string{"-"}, 4)
	cached := "no"
	if m.Held {
		cached = "yes"
		switch {
		case m.DataError != "":
			cached = "data error"
		case m.Local:
			cached = "copy"
		case m.Absent:
			cached = "not found"
		}
		columns = []string{short(m.Age), short(m.Fresh), fmt.Sprint(m.Version), boundText(m.Bound)}
	} else if m.Bound != (kv.ReadBound{}) {
		columns[3] = boundText(m.Bound)
	}
	reads := "-"
	if m.Reads.Of > 0 {
		reads = fmt.Sprintf("%d/%d", m.Reads.Windows, m.Reads.Of)
	}
	feed, breaker, last := "none", "closed", "-"
	if k.Feed != nil {
		if feed = "live"; !k.Feed.Live {
			feed = "gap"
		}
	}
	if k.Origin.BreakerOpen {
		breaker = "open"
	}
	if k.LastError != nil {
		last = fmt.Sprintf("%s %s ago (id %s)", k.LastError.Kind, short(k.LastError.Ago), k.LastError.ID)
	}
	return strings.Join(slices.Concat([]string{cached}, columns, []string{reads, feed, breaker, last}), "\t")
}

func boundText(b kv.ReadBound) string {
	switch {
	case b.Version != 0:
		return fmt.Sprintf("version %d", b.Version)
	case b.LoadedWithin != 0:
		return "loaded within " + short(b.LoadedWithin)
	}
	return "-"
}

func policyLine(p kv.Policy) string {
	return fmt.Sprintf("ttl %v, negative_ttl %v, local_ttl %v, stale_while_revalidate %v, stale_if_error %v, load_timeout %v, gap_ttl %v",
		p.TTL, p.NegativeTTL, p.LocalTTL, p.StaleWhileRevalidate, p.StaleIfError, p.LoadTimeout, p.GapTTL)
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
