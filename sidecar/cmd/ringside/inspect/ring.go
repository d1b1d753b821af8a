package inspect

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/ring/routekey"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/cli"
)

func newRing() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ring [ROUTE_KEY...]",
		Short: "Show the ring of the running sidecar, or compute offline which member owns a key",
		Long: `Without --members: show the ring that the running sidecar uses.

With --members: build the ring of these members offline, and print one line for each route key: the key, its owner, and
its successors in order. A route key is dataset/key, percent-encoded as in a URL path, except for the slashes of the key.
Envoy and gRPC clients route requests by it, too.`,
		Example: `  ringside ring
  ringside ring --members 10.0.0.5:7072,10.0.0.6:7072,10.0.0.7:7072 cnf-metrics/CNF-001 routes/10.0.0.0/8`,
	}
	listener, out := cli.AdminFlag(cmd), cli.OutputFlag(cmd)
	members := cmd.Flags().StringSlice("members", nil, "advertised host:port of each member; computes offline")
	size := ring.DefaultSize()
	cmd.Flags().Uint64Var(&size.Min, "min", size.Min, "minimum number of ring entries (requires --members)")
	cmd.Flags().Uint64Var(&size.Max, "max", size.Max, "maximum number of ring entries (requires --members)")
	cmd.RunE = func(cmd *cobra.Command, keys []string) error {
		switch {
		case len(*members) > 0 && len(keys) == 0:
			return cli.Usagef(cmd, "--members needs at least one ROUTE_KEY")
		case len(*members) > 0:
			return predict(cmd.OutOrStdout(), *members, size, keys, out.JSON())
		case len(keys) > 0 || cmd.Flags().Changed("min") || cmd.Flags().Changed("max"):
			return cli.Usagef(cmd, "ROUTE_KEY, --min and --max require --members; use `ringside explain` for the running sidecar")
		}
		return showRing(cmd, listener, out.JSON())
	}
	return cmd
}

// prediction is where requests for a route key are sent.
type prediction struct {
	RouteKey   string   `json:"route_key"`
	Owner      string   `json:"owner"`
	Successors []string `json:"successors"`
}

func predict(w io.Writer, members []string, size ring.Size, keys []string, asJSON bool) error {
	for _, m := range members {
		if _, _, err := net.SplitHostPort(m); err != nil {
			return cli.AsUsage(fmt.Errorf("--members: want the advertised host:port of each member, because the ring hashes it; got %q", m))
		}
	}
	r, err := ring.New(ring.NewStatic(members), size)
	if err != nil {
		return cli.AsUsage(err)
	}
	predictions := make([]prediction, 0, len(keys))
	for _, key := range keys {
		if _, _, err := routekey.Parse(key); err != nil {
			return cli.AsUsage(err)
		}
		predictions = append(predictions, newPrediction(r, key))
	}
	if asJSON {
		return cli.PrintJSON(w, predictions)
	}
	for _, p := range predictions {
		line := append([]string{p.RouteKey, p.Owner}, p.Successors...)
		if _, err := fmt.Fprintln(w, strings.Join(line, " ")); err != nil {
			return err
		}
	}
	return nil
}

func newPrediction(r *ring.Ring, key string) prediction {
	p := prediction{RouteKey: key, Successors: []string{}}
	for m := range r.Successors(key) {
		if p.Owner == "" {
			p.Owner = m.Addr
			continue
		}
		p.Successors = append(p.Successors, m.Addr)
	}
	return p
}

func showRing(cmd *cobra.Command, listener *cli.Listener, asJSON bool) error {
	body, err := listener.GetOK(cmd.Context(), "/api/ring")
	if err != nil {
		return fmt.Errorf("show the ring: %w", err)
	}
	if asJSON {
		return cli.PrintJSON(cmd.OutOrStdout(), json.RawMessage(body))
	}
	var r adminapi.RingState
	if err := json.Unmarshal(body, &r); err != nil {
		return fmt.Errorf("show the ring: decode the response: %w", err)
	}
	return printRing(cmd.OutOrStdout(), r)
}

func printRing(w io.Writer, r adminapi.RingState) error {
	printable.Clean(&r)
	fmt.Fprintf(w, "ring %s: %s, %d entries; directory: %s%s\n", r.ID, cli.Count(len(r.Members), "member"), r.Entries,
		r.Directory.Kind, disconnected(r.Directory))
	if r.Directory.Role == "client" {
		fmt.Fprintln(w, "this sidecar is a client: it is not on the ring")
	}
	if r.XDS != nil {
		fmt.Fprintln(w, "xds", xdsLine(r.XDS))
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MEMBER\tADDRESS\tZONE\tVERSION\tSHARE")
	for _, m := range r.Members {
		id := m.ID
		if id == r.Self {
			id += " *"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.1f%%\n", id, m.Addr, cli.OrDash(m.Zone), cli.OrDash(m.Version), m.Share*100)
	}
	return t.Flush()
}

func disconnected(d adminapi.Directory) string {
	if d.Connected || d.Kind == "none" {
		return ""
	}
	return strings.TrimSuffix(" (disconnected, using the last ring: "+d.Detail, ": ") + ")"
}
