package simulation

import (
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/membership"
)

// Constants that were measured on processes and real connections; the page names their sources.
const (
	// cpuMessage is the processor time of a ping, or of a message of a stream, at one end.
	cpuMessage = 60 * time.Microsecond
	// cpuInvalidations is that of a response with invalidations.
	cpuInvalidations = 38 * time.Microsecond
	// subscriberBytes and connectionBytes are what a subscriber and a connection pay from the budget of the member.
	subscriberBytes, connectionBytes = 32 << 10, 28 << 10
	// mostSubscribers, mostClients and mostConns are limits of a member: streams of invalidations, clients that get its list, and
	// connections.
	mostSubscribers, mostClients, mostConns = 4096, 1024, 10_000
)

// report is what the page is made of.
type report struct {
	most, storm int
	about       string
	results
	cpuRing time.Duration // of a change of the ring
	idle    string        // measured on processes; empty if there are no results
}

// measure measures on this machine what a change of the ring costs a sidecar, in processor time.
func (r *report) measure(t *testing.T) {
	t.Helper()
	var members []ring.Member
	for i := range r.most {
		members = append(members, ring.Member{ID: fmt.Sprintf("pod-%05d", i), Addr: fmt.Sprintf("10.0.%d.%d:7072", i>>8, i&255)})
	}
	view, err := membership.NewView(membership.ViewConfig{OnChange: func(*ring.Ring, *ring.Ring) {}})
	if err != nil {
		t.Fatal(err)
	}
	const changes = 100
	began := processorTime(t)
	for i := range changes {
		view.Apply(slices.Clone(members[i%2:]))
		if i%2 == 0 {
			members[0].Addr = fmt.Sprintf("10.1.%d.%d:7072", i>>8, i&255) // a restarted member
		}
	}
	r.cpuRing = (processorTime(t) - began) / changes
	if text, err := os.ReadFile("../../../e2e/scale/results.txt"); err == nil {
		r.idle = idleOf(string(text))
	}
}

func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

var idleLine = regexp.MustCompile(`BenchmarkMesh/members=(\d+)\S*\s.*?([\d.]+) before-contact-%core\s+([\d.]+) before-contact-MiB`)

// idleOf returns a sentence about the figures of processes.
func idleOf(results string) string {
	all := idleLine.FindAllStringSubmatch(results, -1)
	if all == nil {
		return ""
	}
	last := all[len(all)-1]
	return fmt.Sprintf("A process without other members to talk to takes %s %% of a core and %s MiB (mesh of %s, [results.md](results.md)).", last[2], last[3], last[1])
}

// cpu returns the share of a core in percent, as a mean of n sidecars.
func (o outcome) cpu(sum total, n int, cpuRing time.Duration) float64 {
	messages := sum.EtcdRequests + sum.EtcdEvents + sum.FeedReceived + sum.FeedSent + sum.Pings
	used := time.Duration(messages)*cpuMessage + time.Duration(sum.Rings)*cpuRing
	return 100 * used.Seconds() / o.seconds() / float64(max(n, 1))
}

func bytes(n float64) string {
	switch {
	case n == 0:
		return "0"
	case n < 1000:
		return fmt.Sprintf("%.0f B", n)
	case n < 1e6:
		return fmt.Sprintf("%.1f kB", n/1e3)
	}
	return fmt.Sprintf("%.1f MB", n/1e6)
}

func (r *report) text() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Thousands of pods, simulated\n")
	line("`e2e/scale/simulate.sh` writes this page and its picture; `sidecar/internal/simulation` is the program. It runs the code of the")
	line("sidecar in one process and in virtual time (`testing/synctest`): the membership of each pod (view, roles, registration, reachability),")
	line("`ring`, `ring/etcd` with etcd's own client for requests and leases, the feed of members to clients, and the service that answers pings and")
	line("streams invalidations. **Simulated** are the links (a request and its answer take 0 to 2 ms, %d bytes are added to each message for TCP/IP, HTTP/2 and", overhead)
	line("gRPC), the server of etcd, and the watch of its client. Pods read and write nothing, except in the tables of invalidations. One run of each size;")
	line("the random numbers are not seeded. `max_members` is %d, `lease_ttl` %v.\n", r.most, leaseTTL)
	if r.about != "" {
		line("%s\n", strings.ReplaceAll(strings.TrimSpace(r.about), "\n", "  \n"))
	}
	line("![What a pod sends and receives in steady state and in a rolling restart, by the number of pods](simulation.svg)\n")
	line("The largest number of pods that was simulated is %d; with more than %d, the start, the steady state and a rolling restart. What is said", slices.MaxFunc(r.Outcomes, func(a, b outcome) int { return a.Pods - b.Pods }).Pods, mostInAll)
	line("of more pods is arithmetic.\n")
	line("## Scenarios\n")
	line("Bytes are those of both directions; CPU is in percent of a core. Both are means over the time of the scenario.\n")
	line("| scenario | pods | members, clients | rings right after | etcd: requests/s, most in 1 s | etcd: watches, connections made | member: etcd, feeds, pings per second | member CPU | client: etcd, feed per second | client CPU |")
	line("|---|---|---|---|---|---|---|---|---|---|")
	for _, scenario := range []string{started, steady, joinStorm, stormLeaves, rollingRestart, lostZone, zoneReturns, etcdDown, etcdRestored} {
		for _, o := range r.Outcomes {
			if o.Scenario != scenario {
				continue
			}
			client, clientCPU := "–", "–"
			if o.Clients > 0 {
				client = bytes(o.perClient(o.Client.EtcdBytes)) + ", " + bytes(o.perClient(o.Client.FeedBytes))
				clientCPU = fmt.Sprintf("%.3f %%", o.cpu(o.Client, o.Clients, r.cpuRing))
			}
			line("| %s | %d | %d, %d | %.1f s | %.0f, %d | %d, %d | %s, %s, %s | %.3f %% | %s | %s |", scenario, o.Pods, o.Members, o.Clients, o.Settled.Seconds(),
				float64(o.Etcd.Requests)/o.seconds(), o.Peak, o.Etcd.Watches, o.Etcd.Clients, bytes(o.perMember(o.Member.EtcdBytes)),
				bytes(o.perMember(o.Member.FeedBytes)), bytes(o.perMember(o.Member.PingBytes)), o.cpu(o.Member, o.Members, r.cpuRing), client, clientCPU)
		}
	}
	line("")
	line("- **more pods join**: %d pods within %v; then they leave at once.", r.storm, stormTime)
	line("- **rolling restart**: a quarter of the pods stops at once in an orderly way (the default of a Deployment), starts again after %v, and %v later the next", restartTime, batchTime)
	line("  quarter follows.")
	line("- **a zone is lost**: every third pod ends without closing a connection. Leases expire, pings fail, and clients become members.")
	line("- **etcd is down**: no ring changes meanwhile, and no pod is in trouble (checked every 10 s).")
	line("- **restored from a backup**: etcd is down for a minute and comes back with the data from before the zone was lost: an earlier revision, and records")
	line("  and slots of members that have become clients since.\n")
	line("## A rolling restart costs a bounded number of events\n")
	line("| pods | events of etcd at one member, at most | at all members | messages to one client, at most | if all pods watched etcd |")
	line("|---|---|---|---|---|")
	for _, o := range r.Outcomes {
		if o.Scenario == rollingRestart {
			line("| %d | %d | %d | %d | %.0f |", o.Pods, o.MostEvents, o.Etcd.Events, o.MostLists, 3*float64(o.Pods)*float64(o.Pods))
		}
	}
	line("\nThe last column is 3 n²: three events of each pod at each pod. A slot that changes hands writes three: a record is leaving, deleted, and another one")
	line("there. With more than %d pods, all members are in the first part of the restart here. Some of their slots go to clients, which ask at once when they", r.most)
	line("have lost the ring, and are restarted later; so members get between 3 and 6 events for each slot, for any number of pods. If pods take longer to start")
	line("than clients wait (%v), all slots go to clients at random, and change hands e − 1 = 1.7 times each while one pod after the other is restarted: 5.2", 5*time.Second)
	line("events. The bound is 3 for each slot and part: %d in %d parts. A client gets the changes of several members in one message.\n", 3*batches*r.most, batches)
	line("## Invalidations and heartbeats\n")
	line("The cluster makes %d writes a second, spread over the members, and each pod has read from each member within 30 s, so that all subscribe to all", clusterWrites)
	line("members. The member has the memory for clients of a sidecar without a limit (%d MiB).\n", clientBytes>>20)
	line("| pods | streams of one member: wanted, admitted | responses/s of one member | bytes/s | CPU of the member | latest after |")
	line("|---|---|---|---|---|---|")
	for _, s := range r.Streams {
		line("| %d | %d, %d | %.0f | %s | %.1f %% | %v |", s.Pods, s.Wanted, s.Admitted, s.Responses, bytes(s.Bytes),
			100*s.Responses*cpuInvalidations.Seconds(), s.Latest.Round(time.Millisecond))
	}
	line("\n## Change feeds\n")
	line("Members subscribe to the two readers of a feed, and each client to two members, which relay the changes ([DESIGN.md](../../sidecar/DESIGN.md)). The feed")
	line("has %d changes a second. Two steps bring a change to a client; the last column is the age of the oldest one when it was sent.\n", clusterWrites)
	line("| pods | streams of a reader if all pods subscribe | of a reader: wanted, admitted | of a relay, for clients: wanted, admitted | responses/s of a relay | CPU of the relay | latest after | pings/s of a reader, CPU of these |")
	line("|---|---|---|---|---|---|---|---|")
	for _, s := range r.Relays {
		line("| %d | %d | %d, %d | %d, %d | %.0f | %.1f %% | %v | %d, %.1f %% |", s.Pods, s.Pods-1, s.Reader, s.ReaderAdmitted, s.Relay, s.RelayAdmitted, s.Responses,
			100*s.Responses*cpuInvalidations.Seconds(), s.Latest.Round(time.Millisecond), s.ReaderAdmitted, 100*float64(s.ReaderAdmitted)*cpuMessage.Seconds())
	}
	r.arithmetic(line)
	return b.String()
}

// arithmetic is the paper part.
func (r *report) arithmetic(line func(string, ...any)) {
	m := float64(r.most)
	memory := budget.New(clientBytes)
	admitted := memory.Limit(budget.Subscribers) / subscriberBytes
	const peerShare = 6.0 / 16 // of the bytes for connections, with four sockets for applications: servers.newShares
	conns := memory.AccountLimit(budget.Connections, peerShare) / connectionBytes
	line("\nWithout reads there are no heartbeats. A pod that reads asks the members on which it relies once a second: those with copies that live longer than")
	line("2.5 s (not by default), and those from which it gets change feeds: a member the two readers, a client its two relays. A member that relays asks always.\n")
	line("## Arithmetic\n")
	line("CPU = messages × %v + changes of the ring × %v. The first is half of what a ping takes at both ends (`BenchmarkSubscription` of", cpuMessage, r.cpuRing.Round(time.Microsecond))
	line("`sidecar/peer`: 120 ms for 1000 pings a second), also for a request to etcd. The second was measured by this run: `View.Apply` with %d members. A response", r.most)
	line("with invalidations takes %v at one end (`BenchmarkFanOut`: 0.76 processors for 10 responses a second to each of 1000 subscribers). %s\n", cpuInvalidations, r.idle)
	line("With n pods and m = %d members, a second costs:\n", r.most)
	line("- **etcd**: m × (1/2 progress + 3/5 keep-alive + 1/30 count + 1/30 check of the own keys) = %.0f requests, for any n; m watches; and a connection of a moment", m*(0.5+0.6+1.0/30+1.0/30))
	line("  for each pod that starts. With a watch in each of 10 000 pods it was %.0f requests, and 33 n records of periodic lists, 100 MB/s.", 10_000*(0.5+0.6+1.0/30+1.0/30))
	line("- **feeds**: a member has (n − m)/m clients and sends each at most 4 messages a second while the ring changes: (n − m)/m × 4 × %v of a core.", cpuMessage)
	line("- **reachability**: each member asks three others every 15 s, for any n.")
	line("- **promotion**: all clients together ask etcd at most 200 times a second, in the first minute after a member is missing.")
	line("- **invalidations**: a stream waits 100 µs × subscribers between responses, so a member sends at most 10 000 responses a second: %.2f cores,", 1e4*cpuInvalidations.Seconds())
	line("  and an invalidation is at most n × 100 µs late.\n")
	relays := func(n float64) float64 { return 2 * (n - m) / m }
	line("| pods | clients of a member | a member during a rolling restart, feeds | etcd: requests/s | streams, connections of a member, if all pods read all keys | streams, pings/s at a reader of a change feed |")
	line("|---|---|---|---|---|---|")
	for _, n := range []float64{10_000, 100_000, 1_000_000} {
		perMember, atReader := (n-m)/m, m-1+relays(n)
		line("| %.0f | %.0f | %.2f cores | %.0f | %.0f | %.0f (%.2f cores) |", n, perMember, perMember*4*cpuMessage.Seconds(), m*(0.5+0.6+2.0/30), n-1, atReader, atReader*cpuMessage.Seconds())
	}
	line("\n## What breaks first\n")
	feeds := m + m*(float64(admitted)-(m-1))/3 // a client takes a stream of its member for the list, and two for the feeds
	line("**Membership and change feeds: %.0f pods**, with the memory for clients of %d MiB. A member admits %d streams of %d KiB each: one of each other", feeds, clientBytes>>20, admitted, subscriberBytes>>10)
	line("member, and three of each of its (n − m)/m clients, two of them for change feeds. Beyond, clients are refused (`ringside_subscribers_refused_total`,")
	line("`ringside_ring_clients_refused_total`), and get no ring, or have no live feed: entries expire by `gap_ttl`. More members, or more memory, move this.\n")
	line("**Clusters whose pods read keys of most members within 30 s: %d pods.** All of them subscribe to each member, for their copies. A pod that is refused trusts", admitted+1)
	line("no copy for longer than `local_ttl`. Streams of feeds compete with these for the same memory: a client asks up to four members. Reads do not fail. Then:\n")
	line("1. %d pods: the connections of one member (%d KiB each from the same budget). Fetches beyond are refused and go to the successor, or to the database.", conns, connectionBytes>>10)
	line("1. %d pods, with ten times the memory: `MaxSubscribers`.", mostSubscribers+1)
	line("1. %d pods: `MaxConns`. A larger cluster whose pods read all keys needs more than %d members.", mostConns, r.most)
	line("1. More pods: each refused subscriber tries again every 15 to 30 s, which at 10 000 pods is %.0f requests a second and %.2f cores at such a member.\n",
		(1e4-float64(admitted))/22.5, (1e4-float64(admitted))/22.5*cpuMessage.Seconds())
	line("With more memory, membership and feeds end here:\n")
	line("1. %.0f pods: %d clients of each member (`MaxClients`); more get no ring.", m*(mostClients+1), mostClients)
	line("1. %.0f pods: `MaxSubscribers` of a member, with two streams of each of its clients.", m+m*(mostSubscribers-(m-1))/2)
	line("1. 1 000 000 pods: membership itself would hold with more members: %.0f clients and %.1f cores of each member during a rolling restart with %d, a quarter of it with %d.",
		(1e6-m)/m, (1e6-m)/m*4*cpuMessage.Seconds(), r.most, 4*r.most)
}

// The picture: two plots with logarithmic axes.
const width, height, left, top, plotWidth, plotHeight = 1000, 410, 70, 50, 380, 300

type series struct {
	name, color string
	value       func(outcome) float64
}

func (r *report) plot() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12"><rect width="%d" height="%d" fill="white"/>`, width, height, width, height)
	r.panel(&b, 0, "Steady state: bytes per second and pod", steady, 1, 5, []series{
		{"a member: etcd", "#1f77b4", func(o outcome) float64 { return o.perMember(o.Member.EtcdBytes) }},
		{"a member: pings", "#2ca02c", func(o outcome) float64 { return o.perMember(o.Member.PingBytes) }},
		{"a client: all", "#d62728", func(o outcome) float64 {
			return o.perClient(o.Client.EtcdBytes + o.Client.FeedBytes + o.Client.PingBytes)
		}},
	})
	r.panel(&b, 1, "Rolling restart of all pods: messages to one pod", rollingRestart, 0, 5, []series{
		{"events of etcd at a member", "#1f77b4", func(o outcome) float64 { return float64(o.MostEvents) }},
		{"lists at a client", "#d62728", func(o outcome) float64 { return float64(o.MostLists) }},
		{"events if each pod watched etcd", "#999999", func(o outcome) float64 { return 3 * float64(o.Pods) }},
	})
	b.WriteString("</svg>\n")
	return b.String()
}

// panel draws the values of one scenario over the number of pods, from 10 to 10 000. Values have powers of ten from low to high.
func (r *report) panel(b *strings.Builder, index int, title, scenario string, low, high int, all []series) {
	x0, y0 := left+index*(plotWidth+110), top
	x := func(pods float64) float64 { return float64(x0) + plotWidth*(math.Log10(pods)-1)/3 }
	y := func(v float64) float64 {
		share := (math.Log10(max(v, math.Pow10(low))) - float64(low)) / float64(high-low)
		return float64(y0) + plotHeight*(1-share)
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" font-size="15" font-weight="bold">%s</text>`, x0, y0-20, title)
	for power := low; power <= high; power++ {
		at := y(math.Pow10(power))
		fmt.Fprintf(b, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`, x0, at, x0+plotWidth, at, x0-8, at+4, thousands(int(math.Pow10(power))))
	}
	for power := 1; power <= 4; power++ {
		at := x(math.Pow10(power))
		fmt.Fprintf(b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#ddd"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`, at, y0, at, y0+plotHeight, at, y0+plotHeight+18, thousands(int(math.Pow10(power))))
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="middle">pods</text>`, x0+plotWidth/2, y0+plotHeight+36)
	for i, s := range all {
		var points []string
		for _, o := range r.Outcomes {
			v := s.value(o)
			if o.Scenario != scenario || v <= 0 || o.Pods < 10 {
				continue
			}
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(float64(o.Pods)), y(v)))
			fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`, x(float64(o.Pods)), y(v), s.color)
		}
		if len(points) == 0 {
			s.name += ": none"
		}
		fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`, strings.Join(points, " "), s.color)
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="12" height="3" fill="%s"/><text x="%d" y="%d">%s</text>`, x0+12, y0+14+18*i, s.color, x0+30, y0+19+18*i, s.name)
	}
}

// thousands returns a number with spaces between groups of three digits.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + " " + text[i:]
	}
	return text
}
