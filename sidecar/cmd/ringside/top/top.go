// Package top has the command top, which shows the activity of all members.
package top

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/cli"
)

// Command returns the command.
func Command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show the activity of all members, by dataset and by member, once a second",
		Long: `Show the activity of all members of the ring, by dataset and by member, once a second until SIGINT: reads, the share
of reads that the receiving sidecar served from its own memory, loads and writes. Keys that the other members fetch from their
owner 100 times a second or more are listed as well.`,
		Example: `  ringside top
  ringside top --once -o json`,
		Args: cli.Args(cobra.NoArgs),
	}
	listener, out := cli.AdminFlag(cmd), cli.OutputFlag(cmd)
	once := cmd.Flags().Bool("once", false, "print the activity of one interval and exit")
	interval := cmd.Flags().Duration("interval", time.Second, "time between two samples")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *interval < minInterval {
			return cli.Usagef(cmd, "--interval: want %s or more, because the sidecar refreshes its view no more often", minInterval)
		}
		before, err := readCluster(cmd, listener)
		for err == nil && backoff.Sleep(cmd.Context(), *interval) {
			var after adminapi.ClusterState
			if after, err = readCluster(cmd, listener); err != nil {
				break
			}
			err = newSample(before, after).print(cmd.OutOrStdout(), out.JSON(), *once)
			before = after
			if *once {
				break
			}
		}
		if cmd.Context().Err() != nil {
			return nil // interrupted: the normal end
		}
		return err
	}
	return cmd
}

// minInterval is how long the sidecar caches its view of the cluster.
const minInterval = 500 * time.Millisecond

func readCluster(cmd *cobra.Command, listener *cli.Listener) (c adminapi.ClusterState, err error) {
	body, err := listener.GetOK(cmd.Context(), "/api/cluster")
	if err == nil {
		err = json.Unmarshal(body, &c)
	}
	if err != nil {
		return c, fmt.Errorf("read the state of the cluster: %w", err)
	}
	printable.Clean(&c) //guard:escapes-of-members-in-top
	return c, nil
}

// activity has the current rates of a dataset or a member.
type activity struct {
	Name    string  `json:"name"`
	State   string  `json:"state"`
	Reads   float64 `json:"reads_per_second"`
	Hits    float64 `json:"hits_per_second"` // reads served from the memory of the sidecar that received them
	Loads   float64 `json:"loads_per_second"`
	Writes  float64 `json:"writes_per_second"`
	Errors  float64 `json:"errors_per_second"`
	Entries int64   `json:"entries"`
	Bytes   int64   `json:"bytes"`
}

// growth is the change of the counters of one dataset of one member between two samples.
type growth struct {
	before, after adminapi.DatasetState
	seconds       float64
}

// rate returns the growth per second of the sum of counters.
func (g growth) rate(sum func(adminapi.DatasetState) int64) float64 {
	return printable.Number(float64(sum(g.after)-sum(g.before)) / g.seconds) // a member may report no time between two samples
}

func (a *activity) add(g growth) {
	a.Reads += g.rate(adminapi.DatasetState.Reads)
	a.Hits += g.rate(func(d adminapi.DatasetState) int64 { return d.Hits + d.LocalHits })
	a.Loads += g.rate(func(d adminapi.DatasetState) int64 { return d.Loads })
	a.Writes += g.rate(func(d adminapi.DatasetState) int64 { return d.Written })
	a.Errors += g.rate(func(d adminapi.DatasetState) int64 { return d.Errors })
	a.Entries += g.after.Entries
	a.Bytes += g.after.Bytes
}

// growthSince returns the growth of each dataset of m, with the elapsed time by the member's own clock. A member that has
// joined or restarted counts from zero.
func growthSince(before adminapi.ClusterState, m adminapi.MemberState) (list []growth) {
	if m.State == nil {
		return nil
	}
	was := &adminapi.State{}
	i := slices.IndexFunc(before.Members, func(b adminapi.MemberState) bool { return b.ID == m.ID })
	if i >= 0 && before.Members[i].State != nil && before.Members[i].State.Uptime < m.State.Uptime {
		was = before.Members[i].State
	}
	for _, now := range m.State.Datasets {
		g := growth{after: now, seconds: (m.State.Uptime - was.Uptime).Seconds()}
		if i := slices.IndexFunc(was.Datasets, func(d adminapi.DatasetState) bool { return d.Name == now.Name }); i >= 0 {
			g.before = was.Datasets[i]
		}
		list = append(list, g)
	}
	return list
}

func health(m adminapi.MemberState, ringID string) string {
	switch {
	case m.State == nil:
		return "unreachable"
	case m.State.RingID != ringID:
		return "other ring"
	}
	return "ok"
}

// sample is the activity of all members between two readings.
type sample struct {
	RingID   string     `json:"ring_id"`
	Datasets []activity `json:"datasets"`
	Members  []activity `json:"members"`
	HotKeys  []hotKey   `json:"hot_keys"`
}

// hotKey is a key that the other members fetch often from its owner.
type hotKey struct {
	adminapi.HotKey
	Owner string `json:"owner"`
}

func newSample(before, after adminapi.ClusterState) sample {
	s := sample{RingID: after.RingID, Datasets: []activity{}, Members: []activity{}, HotKeys: []hotKey{}}
	for _, m := range after.Members {
		one := activity{Name: m.ID, State: health(m, after.RingID)}
		for _, g := range growthSince(before, m) {
			one.add(g)
			s.dataset(g.after).add(g)
		}
		s.Members = append(s.Members, one)
		if m.State != nil {
			for _, k := range m.State.HotKeys {
				s.HotKeys = append(s.HotKeys, hotKey{k, m.ID})
			}
		}
	}
	byName := func(a, b activity) int { return cmp.Compare(a.Name, b.Name) }
	slices.SortFunc(s.Datasets, byName)
	slices.SortFunc(s.Members, byName)
	slices.SortStableFunc(s.HotKeys, func(a, b hotKey) int { return cmp.Compare(b.Rate, a.Rate) })
	s.HotKeys = s.HotKeys[:min(len(s.HotKeys), adminapi.MaxHotKeys)]
	return s
}

// dataset returns the row that sums up a dataset over all members. It is valid until the next call.
func (s *sample) dataset(now adminapi.DatasetState) *activity {
	i := slices.IndexFunc(s.Datasets, func(a activity) bool { return a.Name == now.Name })
	if i < 0 {
		i = len(s.Datasets)
		s.Datasets = append(s.Datasets, activity{Name: now.Name, State: "ok"})
	}
	if now.FeedGap {
		s.Datasets[i].State = "feed gap"
	}
	return &s.Datasets[i]
}

// clearScreen moves the cursor to the upper left and clears the screen (ECMA-48: CUP, ED).
const clearScreen = "\x1b[H\x1b[2J"

func (s sample) print(w io.Writer, asJSON, once bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(s)
	}
	if !once && cli.IsTerminal(w) {
		fmt.Fprint(w, clearScreen)
	}
	fmt.Fprintf(w, "ring %s: %s\n\n", s.RingID, cli.Count(len(s.Members), "member"))
	if err := printActivities(w, "DATASET", s.Datasets); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := printActivities(w, "MEMBER", s.Members); err != nil || len(s.HotKeys) == 0 {
		return err
	}
	fmt.Fprintln(w)
	return printHotKeys(w, s.HotKeys)
}

func printHotKeys(w io.Writer, list []hotKey) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "HOT KEY\tDATASET\tOWNER\tFETCHES/S")
	for _, k := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%.0f\n", k.shown(), k.Dataset, k.Owner, k.Rate)
	}
	return t.Flush()
}

// maxShownKey is how much of a key a line has.
const maxShownKey = 60

// shown is the begin of a long key, with its length.
func (k hotKey) shown() string {
	text := []rune(k.Key)
	if len(text) <= maxShownKey && k.KeyBytes <= adminapi.MaxHotKeyBytes {
		return k.Key
	}
	return fmt.Sprintf("%s… (%s)", string(text[:min(len(text), maxShownKey)]), cli.Count(k.KeyBytes, "byte"))
}

func printActivities(w io.Writer, what string, list []activity) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, what+"\tSTATE\tREADS/S\tIN MEMORY\tLOADS/S\tWRITES/S\tERRORS/S\tENTRIES\tMEMORY")
	for _, a := range list {
		fmt.Fprintf(t, "%s\t%s\t%.1f\t%s\t%.1f\t%.1f\t%.1f\t%d\t%s\n",
			a.Name, a.State, a.Reads, a.inMemory(), a.Loads, a.Writes, a.Errors, a.Entries, mebibytes(a.Bytes))
	}
	return t.Flush()
}

func (a activity) inMemory() string {
	if a.Reads == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*a.Hits/a.Reads)
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
