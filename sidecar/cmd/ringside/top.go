package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

func newTop() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show what all members do now, by dataset and by member, each second anew",
		Long: `Show what all members of the ring do now, by dataset and by member, each second anew, until SIGINT: reads, the share of
them that came from the memory of the sidecar that was asked, loads and writes.`,
		Example: `  ringside top
  ringside top --once -o json`,
		Args: usage(cobra.NoArgs),
	}
	admin, out := adminFlag(cmd), outputFlag(cmd)
	once := cmd.Flags().Bool("once", false, "look for one interval, print that, and end")
	interval := cmd.Flags().Duration("interval", time.Second, "time between two looks")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *interval < minInterval {
			return usagef(cmd, "--interval: want %s or more; the members are asked no more often", minInterval)
		}
		before, err := admin.cluster(cmd)
		for err == nil && wait(cmd.Context(), *interval) {
			var after cluster
			if after, err = admin.cluster(cmd); err != nil {
				break
			}
			err = newSample(before, after).print(cmd.OutOrStdout(), out.json(), *once)
			before = after
			if *once {
				break
			}
		}
		if cmd.Context().Err() != nil {
			return nil // that is how it ends
		}
		return err
	}
	return cmd
}

// minInterval is how long the sidecar gives everybody the same answer.
const minInterval = 500 * time.Millisecond

// wait reports whether ctx lasted for d.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// cluster is the admin listener's answer to /api/cluster, as far as it is printed.
type cluster struct {
	RingID  string   `json:"ring_id"`
	Self    string   `json:"self"`
	Members []member `json:"members"`
}

type member struct {
	ID          string       `json:"id"`
	Unreachable string       `json:"unreachable"`
	State       *memberState `json:"state"`
}

// memberState is what a member has done since its start.
type memberState struct {
	Uptime   time.Duration `json:"uptime_ns"`
	RingID   string        `json:"ring_id"`
	Datasets []counts      `json:"datasets"`
}

// counts are what one dataset of one member has done since the member's start.
type counts struct {
	Name      string  `json:"name"`
	Hits      float64 `json:"hits"`
	LocalHits float64 `json:"local_hits"`
	PeerHits  float64 `json:"peer_hits"`
	Loads     float64 `json:"loads"`
	Stale     float64 `json:"stale"`
	Negative  float64 `json:"negative"`
	Errors    float64 `json:"errors"`
	Written   float64 `json:"written"`
	Entries   int64   `json:"entries"`
	Bytes     int64   `json:"bytes"`
	FeedGap   bool    `json:"feed_gap"`
}

func (c counts) reads() float64 {
	return c.Hits + c.LocalHits + c.PeerHits + c.Loads + c.Stale + c.Negative + c.Errors
}

func (l *listener) cluster(cmd *cobra.Command) (c cluster, err error) {
	body, err := l.api(cmd, "/api/cluster")
	if err == nil {
		err = json.Unmarshal(body, &c)
	}
	if err != nil {
		return c, fmt.Errorf("look at the cluster: %w", err)
	}
	return c, nil
}

// activity is what a dataset, or a member, does now.
type activity struct {
	Name    string  `json:"name"`
	State   string  `json:"state"`
	Reads   float64 `json:"reads_per_second"`
	Hits    float64 `json:"hits_per_second"` // of Reads, from the memory of the sidecar that was asked
	Loads   float64 `json:"loads_per_second"`
	Writes  float64 `json:"writes_per_second"`
	Errors  float64 `json:"errors_per_second"`
	Entries int64   `json:"entries"`
	Bytes   int64   `json:"bytes"`
}

// growth is what one dataset of one member did between two looks.
type growth struct {
	before, after counts
	seconds       float64
}

func (a *activity) add(g growth) {
	a.Reads += (g.after.reads() - g.before.reads()) / g.seconds
	a.Hits += (g.after.Hits + g.after.LocalHits - g.before.Hits - g.before.LocalHits) / g.seconds
	a.Loads += (g.after.Loads - g.before.Loads) / g.seconds
	a.Writes += (g.after.Written - g.before.Written) / g.seconds
	a.Errors += (g.after.Errors - g.before.Errors) / g.seconds
	a.Entries += g.after.Entries
	a.Bytes += g.after.Bytes
}

// since returns the growth of each dataset, in seconds of the member's own clock. A member that has restarted, or come,
// has begun at zero.
func (m member) since(before cluster) (list []growth) {
	if m.State == nil {
		return nil
	}
	was := &memberState{}
	i := slices.IndexFunc(before.Members, func(b member) bool { return b.ID == m.ID })
	if i >= 0 && before.Members[i].State != nil && before.Members[i].State.Uptime < m.State.Uptime {
		was = before.Members[i].State
	}
	for _, now := range m.State.Datasets {
		g := growth{after: now, seconds: (m.State.Uptime - was.Uptime).Seconds()}
		if i := slices.IndexFunc(was.Datasets, func(d counts) bool { return d.Name == now.Name }); i >= 0 {
			g.before = was.Datasets[i]
		}
		list = append(list, g)
	}
	return list
}

func (m member) health(ringID string) string {
	switch {
	case m.State == nil:
		return "unreachable"
	case m.State.RingID != ringID:
		return "other ring"
	}
	return "answers"
}

// sample is what all members did between two looks.
type sample struct {
	RingID   string     `json:"ring_id"`
	Datasets []activity `json:"datasets"`
	Members  []activity `json:"members"`
}

func newSample(before, after cluster) sample {
	s := sample{RingID: after.RingID, Datasets: []activity{}, Members: []activity{}}
	for _, m := range after.Members {
		one := activity{Name: m.ID, State: m.health(after.RingID)}
		for _, g := range m.since(before) {
			one.add(g)
			s.dataset(g.after).add(g)
		}
		s.Members = append(s.Members, one)
	}
	byName := func(a, b activity) int { return cmp.Compare(a.Name, b.Name) }
	slices.SortFunc(s.Datasets, byName)
	slices.SortFunc(s.Members, byName)
	return s
}

// dataset returns the sum of one over all members. It lives until the next call.
func (s *sample) dataset(now counts) *activity {
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

// clearScreen moves to the upper left and clears what is there (ECMA-48: CUP, ED).
const clearScreen = "\x1b[H\x1b[2J"

func (s sample) print(w io.Writer, asJSON, once bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(s)
	}
	if !once && isTerminal(w) {
		fmt.Fprint(w, clearScreen)
	}
	fmt.Fprintf(w, "ring %s: %d members\n\n", s.RingID, len(s.Members))
	if err := printActivities(w, "DATASET", s.Datasets); err != nil {
		return err
	}
	fmt.Fprintln(w)
	return printActivities(w, "MEMBER", s.Members)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
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
