package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"
)

const (
	redrawEvery = time.Second     // on a terminal
	lineEvery   = 2 * time.Second // in logs and pipes
	maxNotes    = 4               // below the table
)

// counters are the counters of one sidecar that the view shows, from /api/state.
type counters struct {
	Uptime   int64 `json:"uptime_ns"`
	Datasets []struct {
		Hits      int64 `json:"hits"`
		LocalHits int64 `json:"local_hits"`
		PeerHits  int64 `json:"peer_hits"`
		Loads     int64 `json:"loads"`
		Stale     int64 `json:"stale"`
		Negative  int64 `json:"negative"`
		Errors    int64 `json:"errors"`
		Queries   int64 `json:"origin_queries"`
		Entries   int64 `json:"entries"`
	} `json:"datasets"`
}

// figures are counters summed over datasets, or their rates.
type figures struct {
	reads, hits, copies, peers, loads, stale, failed, queries, entries float64
	uptime                                                             int64
}

func (c counters) sum() figures {
	f := figures{uptime: c.Uptime}
	for _, d := range c.Datasets {
		f.reads += float64(d.Hits + d.LocalHits + d.PeerHits + d.Loads + d.Stale + d.Negative + d.Errors)
		f.hits += float64(d.Hits)
		f.copies += float64(d.LocalHits)
		f.peers += float64(d.PeerHits)
		f.loads += float64(d.Loads)
		f.stale += float64(d.Stale)
		f.failed += float64(d.Errors)
		f.queries += float64(d.Queries)
		f.entries += float64(d.Entries)
	}
	return f
}

// since returns the rates per second since before, by the clock of the sidecar: two samples may be taken in quick succession
// after another sidecar has delayed the first one. After a restart the counters began at 0.
func (f figures) since(before figures) figures {
	if f.uptime < before.uptime {
		before = figures{}
	}
	s := max(time.Duration(f.uptime-before.uptime), time.Millisecond).Seconds()
	return figures{
		reads: (f.reads - before.reads) / s, hits: (f.hits - before.hits) / s, copies: (f.copies - before.copies) / s,
		peers: (f.peers - before.peers) / s, loads: (f.loads - before.loads) / s, stale: (f.stale - before.stale) / s,
		failed: (f.failed - before.failed) / s, queries: (f.queries - before.queries) / s, entries: f.entries,
	}
}

func (f figures) plus(g figures) figures {
	return figures{
		reads: f.reads + g.reads, hits: f.hits + g.hits, copies: f.copies + g.copies, peers: f.peers + g.peers,
		loads: f.loads + g.loads, stale: f.stale + g.stale, failed: f.failed + g.failed, queries: f.queries + g.queries,
		entries: f.entries + g.entries,
	}
}

func (f figures) queriesPerRead() float64 {
	if f.reads == 0 {
		return 0
	}
	return f.queries / f.reads
}

// row is one sidecar in the view.
type row struct {
	id    string
	alive bool
	rate  figures
}

// readRates reads the counters of every sidecar, and keeps them in before for the next call.
func (c *cluster) readRates(ctx context.Context, before map[string]figures) []row {
	rows := make([]row, 0, len(c.sidecars))
	for _, s := range c.sidecars {
		r := row{id: s.id}
		var now counters
		if err := getJSON(ctx, c.client, "http://"+loopback(s.ports.admin)+"/api/state", &now); err == nil {
			sum := now.sum()
			r.alive, r.rate = true, sum.since(before[s.id])
			before[s.id] = sum
		}
		rows = append(rows, r)
	}
	return rows
}

func total(rows []row) (sum figures) {
	for _, r := range rows {
		sum = sum.plus(r.rate)
	}
	return sum
}

// show draws the cluster until ctx is done.
func (c *cluster) show(ctx context.Context, out io.Writer) error {
	draw, every := c.newLines(out), lineEvery
	if terminal(out) {
		draw, every = newTable(out), redrawEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	before := map[string]figures{}
	c.readRates(ctx, before)
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		rows := c.readRates(ctx, before)
		if ctx.Err() != nil {
			return nil // the requests were canceled
		}
		if err := draw(rows, c.takeNotes()); err != nil {
			return fmt.Errorf("draw the view: %w", err)
		}
	}
}

// drawing draws the rows, and the notes that are new.
type drawing func(rows []row, notes []string) error

// newLines returns a drawing of one line, for logs and pipes.
func (c *cluster) newLines(out io.Writer) drawing {
	return func(rows []row, notes []string) error {
		for _, note := range notes {
			fmt.Fprintln(out, note)
		}
		sum := total(rows)
		fmt.Fprintf(out, "%.0f reads/s, %.1f loads/s, %.1f errors/s, %.3f origin queries per read",
			sum.reads, sum.loads, sum.failed, sum.queriesPerRead())
		for _, r := range rows {
			if r.alive {
				fmt.Fprintf(out, "; %s %.0f/s", r.id, r.rate.reads)
			} else {
				fmt.Fprintf(out, "; %s does not respond", r.id)
			}
		}
		_, err := fmt.Fprintln(out)
		return err
	}
}

// newTable returns a drawing of a table over the previous one.
func newTable(out io.Writer) drawing {
	var notes []string
	lines := 0
	return func(rows []row, fresh []string) error {
		notes = append(notes, fresh...)
		notes = notes[max(0, len(notes)-maxNotes):]
		var b bytes.Buffer
		if lines > 0 {
			fmt.Fprintf(&b, "\x1b[%dA\x1b[J", lines) // move up and clear to the end of the screen
		}
		drawTable(&b, rows)
		for _, note := range notes {
			fmt.Fprintln(&b, note)
		}
		lines = bytes.Count(b.Bytes(), []byte("\n"))
		_, err := out.Write(b.Bytes())
		return err
	}
}

func drawTable(out io.Writer, rows []row) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "per second\treads\thits\tlocal copies\tpeer hits\tloads\tstale\terrors\tentries\tqueries per read\t")
	for _, r := range append(rows, row{id: "all", alive: true, rate: total(rows)}) {
		if !r.alive {
			fmt.Fprintf(t, "%s\tno response\t\t\t\t\t\t\t\t\t\n", r.id)
			continue
		}
		f := r.rate
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%.0f\t%.0f\t%.1f\t%.1f\t%.1f\t%.0f\t%.3f\t\n",
			r.id, f.reads, f.hits, f.copies, f.peers, f.loads, f.stale, f.failed, f.entries, f.queriesPerRead())
	}
	_ = t.Flush() // into a buffer
}

func terminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}
