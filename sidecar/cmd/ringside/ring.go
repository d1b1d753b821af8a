package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ringside-cache/ringside/ring"
)

func newRing() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ring [ROUTE_KEY...]",
		Short: "Show the ring of the running sidecar, or compute offline who owns what",
		Long: `Without --members: show the ring that the running sidecar routes by.

With --members: build the ring of these members, without any sidecar, and print a line for each route key: the key,
its owner, and its successors in order. A route key is dataset/key, percent-encoded as in a URL path, but for the
slashes of the key. Envoy and gRPC send requests by it, too.`,
		Example: `  ringside ring
  ringside ring --members 10.0.0.5:7072,10.0.0.6:7072,10.0.0.7:7072 cnf-metrics/CNF-001 routes/10.0.0.0/8`,
	}
	admin, out := adminFlag(cmd), outputFlag(cmd)
	members := cmd.Flags().StringSlice("members", nil, "advertised host:port of each member; computes offline")
	size := ring.DefaultSize()
	cmd.Flags().Uint64Var(&size.Min, "min", size.Min, "least entries of the ring; with --members")
	cmd.Flags().Uint64Var(&size.Max, "max", size.Max, "most entries of the ring; with --members")
	cmd.RunE = func(cmd *cobra.Command, keys []string) error {
		switch {
		case len(*members) > 0 && len(keys) == 0:
			return usagef(cmd, "--members needs at least one ROUTE_KEY")
		case len(*members) > 0:
			return predict(cmd.OutOrStdout(), *members, size, keys, out.json())
		case len(keys) > 0 || cmd.Flags().Changed("min") || cmd.Flags().Changed("max"):
			return usagef(cmd, "ROUTE_KEY, --min and --max go with --members; `ringside explain` asks the running sidecar")
		}
		return showRing(cmd, admin, out.json())
	}
	return cmd
}

// prediction says where a request for a route key goes.
type prediction struct {
	RouteKey   string   `json:"route_key"`
	Owner      string   `json:"owner"`
	Successors []string `json:"successors"`
}

func predict(w io.Writer, members []string, size ring.Size, keys []string, asJSON bool) error {
	for _, m := range members {
		if _, _, err := net.SplitHostPort(m); err != nil {
			return usageError{fmt.Errorf("--members: want the advertised host:port of each, which is what is hashed; got %q", m)}
		}
	}
	r, err := ring.New(ring.NewStatic(members), size)
	if err != nil {
		return usageError{err}
	}
	predictions := make([]prediction, 0, len(keys))
	for _, key := range keys {
		if _, _, err := ring.ParseRouteKey(key); err != nil {
			return usageError{err}
		}
		predictions = append(predictions, newPrediction(r, key))
	}
	if asJSON {
		return printJSON(w, predictions)
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

// ringView is the admin listener's answer to /api/ring, as far as it is printed.
type ringView struct {
	ID        string `json:"id"`
	Self      string `json:"self"`
	Directory struct {
		Kind      string `json:"kind"`
		Connected bool   `json:"connected"`
		Detail    string `json:"detail"`
	} `json:"directory"`
	Feed    *feed `json:"feed"`
	Members []struct {
		ID      string  `json:"id"`
		Addr    string  `json:"addr"`
		Zone    string  `json:"zone"`
		Version string  `json:"version"`
		Share   float64 `json:"share"`
	} `json:"members"`
	Entries int `json:"entries"`
}

func showRing(cmd *cobra.Command, admin *listener, asJSON bool) error {
	body, err := admin.api(cmd, "/api/ring")
	if err != nil {
		return fmt.Errorf("show the ring: %w", err)
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), json.RawMessage(body))
	}
	var view ringView
	if err := json.Unmarshal(body, &view); err != nil {
		return fmt.Errorf("show the ring: understand the answer: %w", err)
	}
	return view.print(cmd.OutOrStdout())
}

func (v ringView) print(w io.Writer) error {
	fmt.Fprintf(w, "ring %s: %d members, %d entries; directory: %s%s\n", v.ID, len(v.Members), v.Entries,
		v.Directory.Kind, v.away())
	if v.Feed != nil {
		fmt.Fprintln(w, "feed", v.Feed)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MEMBER\tADDRESS\tZONE\tVERSION\tSHARE")
	for _, m := range v.Members {
		id := m.ID
		if id == v.Self {
			id += " *"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.1f%%\n", id, m.Addr, orDash(m.Zone), orDash(m.Version), m.Share*100)
	}
	return t.Flush()
}

func (v ringView) away() string {
	if v.Directory.Connected || v.Directory.Kind == "none" {
		return ""
	}
	return strings.TrimSuffix(" (away; the last ring stays: "+v.Directory.Detail, ": ") + ")"
}
