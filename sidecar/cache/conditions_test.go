package cache

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
)

func TestConditions(t *testing.T) {
	old := etagOf([]byte("v"))
	for name, c := range map[string]struct {
		change Change
		want   Kind // 0: written
	}{
		"version":              {Change{Key: "k", If: Condition{Version: 1}}, 0},
		"another version":      {Change{Key: "k", If: Condition{Version: 2}}, KindConflict},
		"etag":                 {Change{Key: "k", If: Condition{ETag: old}}, 0},
		"another etag":         {Change{Key: "k", If: Condition{ETag: `"x"`}}, KindConflict},
		"etag of what is not":  {Change{Key: "none", If: Condition{ETag: old}}, KindConflict},
		"absent":               {Change{Key: "none", If: Condition{Absent: true}}, 0},
		"not absent":           {Change{Key: "k", If: Condition{Absent: true}}, KindConflict},
		"present":              {Change{Key: "k", If: Condition{Present: true}}, 0},
		"not present":          {Change{Key: "none", If: Condition{Present: true}}, KindConflict},
		"delete":               {Change{Key: "k", Delete: true, If: Condition{Version: 1}}, 0},
		"delete another":       {Change{Key: "k", Delete: true, If: Condition{Version: 3}}, KindConflict},
		"delete what is not":   {Change{Key: "none", Delete: true}, 0},
		"two":                  {Change{Key: "k", If: Condition{Version: 1, Present: true}}, KindInvalidValue},
		"delete the absent":    {Change{Key: "k", Delete: true, If: Condition{Absent: true}}, KindInvalidValue},
		"delete with a value":  {Change{Key: "k", Delete: true, Value: []byte("v")}, KindInvalidValue},
		"large":                {Change{Key: "k", Value: make([]byte, MaxValueBytes+1)}, KindInvalidValue},
		"long id":              {Change{Key: "k", ID: string(make([]byte, MaxIDBytes+1))}, KindInvalidValue},
		"empty key":            {Change{}, KindInvalidKey},
		"key with a NUL byte":  {Change{Key: "\x00"}, KindInvalidKey},
		"key that is not UTF8": {Change{Key: "\xff"}, KindInvalidKey},
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
		_, err := d.Write(t.Context(), Change{Key: "k", If: Condition{ETag: etagOf([]byte("v"))}})
		expectKind(t, err, KindInvalidValue)
	})
}

func TestETagIsComparedWithTheRowAndNotWithTheEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		d := newDataset(t, o, nil, testPolicy())
		held := get(t, d, "k")
		time.Sleep(tick)
		o.Set("k", "new") // around the cache
		_, err := d.Write(t.Context(), Change{Key: "k", Value: []byte("v"), If: Condition{ETag: held.ETag}})
		expectKind(t, err, KindConflict)
	})
}

func TestETagOfTheRowWhileAnOlderEntryIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		d := newDataset(t, o, nil, testPolicy())
		get(t, d, "k")
		time.Sleep(tick)
		version := o.Set("k", "new") // around the cache
		a, err := d.Write(t.Context(), Change{Key: "k", Value: []byte("v"), If: Condition{ETag: etagOf([]byte("new"))}})
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
		_, err := c.members[1].Write(t.Context(), Change{Key: "k", If: Condition{Version: held.Version}})
		expectKind(t, err, KindConflict)
		for _, d := range c.members {
			if a := get(t, d, "k"); string(a.Value) != "new" {
				t.Errorf("%q is read; want what the write was in conflict with", a.Value)
			}
		}
	})
}
