package cache

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
)

func TestLongestDurationsDoNotOverflow(t *testing.T) {
	for _, forever := range []time.Duration{1 << 62, math.MaxInt64} {
		synctest.Test(t, func(t *testing.T) {
			o := origintest.New(map[string]string{"k": "v"})
			p := DefaultPolicy()
			p.TTLJitter = 1
			p.TTL, p.NegativeTTL, p.LocalTTL, p.LoadTimeout = forever, forever, forever, forever
			p.StaleIfError, p.StaleWhileRevalidate, p.GutterTTL = forever, forever, forever
			c := newCluster(t, 2, o, p)
			time.Sleep(time.Second)
			for _, key := range []string{"k", "none"} {
				get(t, c.members[1], key)
				time.Sleep(time.Hour)
				get(t, c.members[1], key)
			}
			if o.Queries() != 2 {
				t.Errorf("%v: %d queries; want one for each key", forever, o.Queries())
			}
			e := c.members[1].Explain("k")
			if e.Fresh <= 0 || e.Usable <= 0 || e.Age < 0 {
				t.Errorf("%v: fresh %v, usable %v, age %v", forever, e.Fresh, e.Usable, e.Age)
			}
		})
	}
}

func TestZeroDurations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		p := DefaultPolicy()
		p.TTLJitter, p.NegativeTTL, p.LocalTTL, p.StaleIfError = 0, 0, 0, 0
		c := newCluster(t, 2, o, p)
		for range 2 {
			time.Sleep(tick)
			if a := get(t, c.members[0], "none"); !a.Absent || a.Source != SourceLoad {
				t.Errorf("negative_ttl 0: %+v", a)
			}
		}
		get(t, c.members[1], "k")
		time.Sleep(tick)
		expect(t, get(t, c.members[1], "k"), "v", SourcePeerHit)
	})
}

type said Answer

func (said) ID() string { return "said" }

func (s said) Fetch(context.Context, Query) (Answer, error) { return Answer(s), nil }

type ownedBy struct{ Peer }

func (o ownedBy) Route(string, string) Route { return Route{Owner: o.Peer} }

func TestAbsurdTimesOfAPeer(t *testing.T) {
	for _, a := range []Answer{
		{Age: -time.Hour, Fresh: time.Hour},
		{Age: math.MaxInt64, Fresh: math.MaxInt64, Took: math.MaxInt64},
		{Age: math.MinInt64, Fresh: math.MinInt64, Took: math.MinInt64},
		{Age: math.MinInt64, Fresh: math.MaxInt64, Took: math.MaxInt64},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := newDataset(t, origintest.New(nil), ownedBy{said(a)}, testPolicy())
			get(t, d, "k")
			if e := d.Explain("k"); e.Age < 0 || e.Fresh > testPolicy().LocalTTL {
				t.Errorf("%+v: age %v, fresh %v", a, e.Age, e.Fresh)
			}
		})
	}
}
