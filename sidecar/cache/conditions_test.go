package cache

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func TestConditions(t *testing.T) {
	old := kv.ETagOf([]byte("v"))
	for name, c := range map[string]struct {
		change kv.Change
		want   kv.Kind // 0: written
	}{
		"version":              {kv.Change{Key: "k", If: kv.Condition{Version: 1}}, 0},
		"another version":      {kv.Change{Key: "k", If: kv.Condition{Version: 2}}, kv.KindConflict},
		"etag":                 {kv.Change{Key: "k", If: kv.Condition{ETag: old}}, 0},
		"another etag":         {kv.Change{Key: "k", If: kv.Condition{ETag: `"x"`}}, kv.KindConflict},
		"etag of what is not":  {kv.Change{Key: "none", If: kv.Condition{ETag: old}}, kv.KindConflict},
		"absent":               {kv.Change{Key: "none", If: kv.Condition{Absent: true}}, 0},
		"not absent":           {kv.Change{Key: "k", If: kv.Condition{Absent: true}}, kv.KindConflict},
		"present":              {kv.Change{Key: "k", If: kv.Condition{Present: true}}, 0},
		"not present":          {kv.Change{Key: "none", If: kv.Condition{Present: true}}, kv.KindConflict},
		"delete":               {kv.Change{Key: "k", Delete: true, If: kv.Condition{Version: 1}}, 0},
		"delete another":       {kv.Change{Key: "k", Delete: true, If: kv.Condition{Version: 3}}, kv.KindConflict},
		"delete what is not":   {kv.Change{Key: "none", Delete: true}, 0},
		"two":                  {kv.Change{Key: "k", If: kv.Condition{Version: 1, Present: true}}, kv.KindInvalidValue},
		"delete the absent":    {kv.Change{Key: "k", Delete: true, If: kv.Condition{Absent: true}}, kv.KindInvalidValue},
		"delete with a value":  {kv.Change{Key: "k", Delete: true, Value: []byte("v")}, kv.KindInvalidValue},
		"large":                {kv.Change{Key: "k", Value: make([]byte, kv.MaxValueBytes+1)}, kv.KindInvalidValue},
		"long id":              {kv.Change{Key: "k", ID: string(make([]byte, kv.MaxIDBytes+1))}, kv.KindInvalidValue},
		"empty key":            {kv.Change{}, kv.KindInvalidKey},
		"key with a NUL byte":  {kv.Change{Key: "\x00"}, kv.KindInvalidKey},
		"key that is not UTF8": {kv.Change{Key: "\xff"}, kv.KindInvalidKey},
	} {
		for member := range 2 { // the owner, and another
			t.Run(fmt.Sprint(name, " through ", member), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o := origintest.New(map[string]string{"k": "v"})
					cl := newCluster(t, 2, o, testPolicy())
					_, err := cl.members[member].Write(t.Context(), c.change)
					if c.want != 0 {
						expectKind(t, err, c.want)
					} else if err != nil {
						t.Error(err)
					}
				})
			})
		}
	}
}

func TestConditionOnTheETagNeedsVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		o.Unversioned()
		d := newDataset(t, o, nil, testPolicy())
		_, err := d.Write(t.Context(), kv.Change{Key: "k", If: kv.Condition{ETag: kv.ETagOf([]byte("v"))}})
		expectKind(t, err, kv.KindInvalidValue)
	})
}

func TestETagIsComparedWithTheRowAndNotWithTheEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		d := newDataset(t, o, nil, testPolicy())
		held := get(t, d, "k")
		time.Sleep(tick)
		o.Set("k", "new") // around the cache
		_, err := d.Write(t.Context(), kv.Change{Key: "k", Value: []byte("v"), If: kv.Condition{ETag: held.ETag}})
		expectKind(t, err, kv.KindConflict)
	})
}

func TestETagOfTheRowWhileAnOlderEntryIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		d := newDataset(t, o, nil, testPolicy())
		get(t, d, "k")
		time.Sleep(tick)
		version := o.Set("k", "new") // around the cache
		a, err := d.Write(t.Context(), kv.Change{Key: "k", Value: []byte("v"), If: kv.Condition{ETag: kv.ETagOf([]byte("new"))}})
		if err != nil || a.Version != version+1 {
			t.Errorf("got %+v, %v", a, err)
		}
	})
}

func TestReadAfterAConflictIsCurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		c := newCluster(t, 2, o, testPolicy())
		held := get(t, c.members[1], "k")
		time.Sleep(tick)
		o.Set("k", "new") // around the cache
		_, err := c.members[1].Write(t.Context(), kv.Change{Key: "k", If: kv.Condition{Version: held.Version}})
		expectKind(t, err, kv.KindConflict)
		for _, d := range c.members {
			if a := get(t, d, "k"); string(a.Value) != "new" {
				t.Errorf("%q is read; want what the write was in conflict with", a.Value)
			}
		}
	})
}
