package simulation

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	pods  = flag.String("pods", "6,30", "numbers of pods to simulate")
	most  = flag.Int("max-members", 10, "membership.max_members")
	storm = flag.Int("storm", 40, "pods of the join storm")
	raw   = flag.String("raw", "", "file to which the results are added, and from which the page is made; a temporary one by default")
	page  = flag.String("page", "", "folder in which SIMULATION.md and simulation.svg are written; a temporary one by default")
	about = flag.String("about", "", "commit, machine and date, for the page")
)

// Each scenario, with fewer pods than the page has by default, keeps the promises of DESIGN.md of package membership: the rings are
// right in the end (see cluster.settle), no more than max_members are members, and what one sidecar costs does not grow with the
// number of clients.
func TestSimulation(t *testing.T) {
	file := *raw
	if file == "" {
		file = filepath.Join(t.TempDir(), "raw")
	}
	for size := range strings.FieldsFuncSeq(*pods, func(c rune) bool { return c == ',' }) {
		n, err := strconv.Atoi(size)
		if err != nil || n < 3 {
			t.Fatalf("-pods %q: want numbers of at least 3", *pods)
		}
		t.Run(size, func(t *testing.T) {
			var done results
			simulate(t, *most, func(c *cluster) { done.Outcomes = c.runAll(n, *storm) })
			for _, o := range done.Outcomes {
				o.check(t, *most)
			}
			done.Streams = append(done.Streams, stream(t, n, *most))
			done.Relays = append(done.Relays, relay(t, n, *most))
			done.add(t, file)
		})
	}
	if t.Failed() {
		return
	}
	folder := *page
	if folder == "" {
		folder = t.TempDir()
	}
	r := report{most: *most, storm: *storm, about: *about, results: readResults(t, file)}
	r.measure(t)
	for name, text := range map[string]string{"SIMULATION.md": r.text(), "simulation.svg": r.plot()} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// results are those of some numbers of pods. A file of them has one line for each number.
type results struct {
	Outcomes []outcome
	Streams  []streams
	Relays   []relayed
}

func (r results) add(t *testing.T, file string) {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(append(text, '\n'))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func readResults(t *testing.T, file string) (all results) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var one results
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all.Outcomes, all.Streams = append(all.Outcomes, one.Outcomes...), append(all.Streams, one.Streams...)
		all.Relays = append(all.Relays, one.Relays...)
	}
	slices.SortStableFunc(all.Outcomes, func(a, b outcome) int { return a.Pods - b.Pods })
	slices.SortFunc(all.Streams, func(a, b streams) int { return a.Pods - b.Pods })
	slices.SortFunc(all.Relays, func(a, b relayed) int { return a.Pods - b.Pods })
	return all
}

// check checks what must hold in each scenario.
func (o outcome) check(t *testing.T, maxMembers int) {
	t.Helper()
	if want := min(o.Pods, maxMembers); o.Scenario != joinStorm && o.Scenario != lostZone && o.Members != want {
		t.Errorf("%d pods, %s: %d members; want %d", o.Pods, o.Scenario, o.Members, want)
	}
	if o.Etcd.Watches != int64(o.Members) {
		t.Errorf("%d pods, %s: %d watches in etcd; want one for each of %d members, and none for clients", o.Pods, o.Scenario, o.Etcd.Watches, o.Members)
	}
	// A slot that changes hands writes three records: one is leaving, deleted, and another is there. In one part of a restart, of which
	// there are a few for any number of pods, each slot changes hands at most once.
	if limit := int64(3 * batches * maxMembers); o.Scenario == rollingRestart && o.MostEvents > limit {
		t.Errorf("%d pods, %s: a member got %d events; want at most %d, for any number of pods", o.Pods, o.Scenario, o.MostEvents, limit)
	}
	// At most four messages a second, and a few for each list of another member.
	if limit := int64(4*o.seconds()) + 20; o.MostLists > limit {
		t.Errorf("%d pods, %s: a client got %d messages of members in %.0f s; want at most %d", o.Pods, o.Scenario, o.MostLists, o.seconds(), limit)
	}
	if o.Scenario == steady {
		if n := o.perClient(o.Client.EtcdRequests + o.Client.FeedReceived + o.Client.Pings); n > 0.1 {
			t.Errorf("%d pods, %s: a client sends and receives %.2f messages a second; want none", o.Pods, o.Scenario, n)
		}
		if n := o.perMember(o.Member.EtcdRequests); n > 2 {
			t.Errorf("%d pods, %s: a member makes %.2f requests a second to etcd; want at most 2", o.Pods, o.Scenario, n)
		}
	}
	if o.Scenario == etcdDown && o.Member.Rings+o.Client.Rings != 0 {
		t.Errorf("%d pods, %s: %d changes of rings; want none", o.Pods, o.Scenario, o.Member.Rings+o.Client.Rings)
	}
}
