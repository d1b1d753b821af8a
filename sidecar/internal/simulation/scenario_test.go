package simulation

import (
	"time"
)

const (
	// stormTime is how long the pods of a join storm, of a start and of a zone that returns take to start.
	stormTime = 10 * time.Second
	// A rolling restart restarts one of batches parts of the pods after the other, as a Deployment does by default (maxUnavailable
	// 25 %). A pod starts restartTime after it has stopped, and the next part follows after batchTime.
	batches, restartTime, batchTime = 4, 3 * time.Second, 15 * time.Second
	// mostInAll is the largest number of pods for which all scenarios are run: their cost grows with it.
	mostInAll = 3000
	// outage is how long etcd is down.
	outage = 5 * time.Minute
	// calm is for how long the pods are watched when nothing happens.
	calm = 2 * time.Minute
	// settleLimit is how long the rings may be wrong after an event.
	settleLimit = 5 * time.Minute
)

// outcome is what a scenario cost.
type outcome struct {
	Scenario         string
	Pods             int
	Members, Clients int           // at the end
	Lasted           time.Duration // until the end of what happened and, in Settled, from there until all rings were right
	Settled          time.Duration
	Member, Client   total // sums of the pods that are members or clients at the end
	MostEvents       int64 // of etcd, at one member
	MostLists        int64 // messages of feeds, at one client
	Etcd             load  // during the scenario
	Peak             int64 // requests to etcd in a second
	Promoted         int64 // clients that became members
}

// seconds is the duration of the scenario.
func (o outcome) seconds() float64 { return (o.Lasted + o.Settled).Seconds() }

// perMember and perClient return a mean per second.
func (o outcome) perMember(n int64) float64 {
	return float64(n) / float64(max(o.Members, 1)) / o.seconds()
}
func (o outcome) perClient(n int64) float64 {
	return float64(n) / float64(max(o.Clients, 1)) / o.seconds()
}

func (c *cluster) totals() (list []total) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, one := range c.counts {
		list = append(list, one.load())
	}
	return list
}

func (c *cluster) promotions() (n int64) {
	for _, p := range c.pods {
		n += p.members.Promotions()
	}
	return n
}

// measure makes something happen, waits until the rings are right, and returns what that cost.
func (c *cluster) measure(scenario string, happen func()) outcome {
	c.t.Helper()
	o := outcome{Scenario: scenario}
	before, etcdBefore, promotedBefore, began := c.totals(), c.etcd.snapshot(), c.promotions(), time.Now()
	happen()
	ended := time.Now()
	o.Lasted = ended.Sub(began)
	c.settle(settleLimit)
	o.Settled = time.Since(ended)
	for n, after := range c.totals() {
		used := after
		if n < len(before) {
			used = after.minus(before[n])
		}
		switch p := c.pods[n]; {
		case p == nil:
		case isMember(p):
			o.Members++
			o.Member = o.Member.plus(used)
			o.MostEvents = max(o.MostEvents, used.EtcdEvents)
		default:
			o.Clients++
			o.Client = o.Client.plus(used)
			o.MostLists = max(o.MostLists, used.FeedReceived)
		}
	}
	if o.Members > c.maxMembers {
		c.t.Errorf("%s: %d members, more than max_members", scenario, o.Members)
	}
	o.Etcd = c.etcd.snapshot()
	for second, n := range o.Etcd.perSecond {
		if second >= began.Unix() {
			o.Peak = max(o.Peak, n)
		}
	}
	o.Etcd.Clients -= etcdBefore.Clients
	o.Etcd.Requests -= etcdBefore.Requests
	o.Etcd.Bytes -= etcdBefore.Bytes
	o.Etcd.Events -= etcdBefore.Events
	o.Etcd.EventBytes -= etcdBefore.EventBytes
	o.Promoted = c.promotions() - promotedBefore
	return o
}

// inZone returns the numbers of the first n pods that are in a zone.
func inZone(n int, zone string) (list []int) {
	for i := range n {
		if zones[i%len(zones)] == zone {
			list = append(list, i)
		}
	}
	return list
}

func span(from, to int) (list []int) {
	for i := from; i < to; i++ {
		list = append(list, i)
	}
	return list
}

// runAll runs all scenarios with n pods, one after the other in one cluster, or, if there are more than mostInAll, the first ones and a
// rolling restart. storm is how many more pods join in one of them.
func (c *cluster) runAll(n, storm int) (list []outcome) {
	c.t.Helper()
	add := func(scenario string, happen func()) {
		c.t.Helper()
		o := c.measure(scenario, happen)
		o.Pods = n
		c.t.Logf("%d pods: %s: %v, then %v until all rings were right; %d members, %d promoted", n, o.Scenario, o.Lasted, o.Settled, o.Members, o.Promoted)
		list = append(list, o)
	}
	add(started, func() {
		c.start(span(0, min(n, c.maxMembers)), time.Second)
		time.Sleep(time.Second)
		c.start(span(min(n, c.maxMembers), n), stormTime)
	})
	add(steady, func() { time.Sleep(calm) })
	if n > mostInAll {
		add(rollingRestart, func() { c.restartAll(n) })
		return list
	}
	add(joinStorm, func() { c.start(span(n, n+storm), stormTime) })
	add(stormLeaves, func() {
		c.shutDown(span(n, n+storm))
		time.Sleep(stormTime)
	})
	add(rollingRestart, func() { c.restartAll(n) })
	backup := c.etcd.backup()
	zone := inZone(n, "c")
	add(lostZone, func() { c.kill(zone) })
	add(zoneReturns, func() { c.start(zone, stormTime) })
	add(etcdDown, func() {
		c.etcd.stop()
		for range int(outage / (10 * time.Second)) {
			time.Sleep(10 * time.Second)
			if err := c.check(); err != nil {
				c.t.Errorf("%d pods: while etcd is down: %v", n, err)
			}
		}
		c.etcd.start(nil)
		time.Sleep(time.Minute)
	})
	add(etcdRestored, func() {
		c.etcd.stop()
		time.Sleep(time.Minute)
		c.etcd.start(backup)
		time.Sleep(time.Minute)
	})
	return list
}

// The scenarios.
const (
	started        = "all pods start"
	steady         = "steady state"
	joinStorm      = "more pods join within 10 s"
	stormLeaves    = "these pods leave"
	rollingRestart = "rolling restart"
	lostZone       = "a zone is lost"
	zoneReturns    = "the zone returns"
	etcdDown       = "etcd is down for 5 minutes"
	etcdRestored   = "etcd is restored from a backup"
)

func (c *cluster) restartAll(n int) {
	part := (n + batches - 1) / batches
	for first := 0; first < n; first += part {
		batch := span(first, min(first+part, n))
		c.shutDown(batch)
		time.Sleep(restartTime)
		c.start(batch, 0)
		time.Sleep(batchTime)
	}
}
