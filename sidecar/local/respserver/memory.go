package respserver

import (
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

const (
	// maxCachedKeys is the largest command of many keys that memory answers at once: other connections of the loop wait for it.
	maxCachedKeys = 16
	// frameBytes is what a value has around it, at most, and what any other reply of memory has.
	frameBytes = 32
)

// handleFromMemory handles a command if nothing but memory is needed for that, and never waits. It reports whether it has; otherwise
// nothing has happened.
func (c *conn) handleFromMemory(d *command, a arguments) bool {
	return d.memory != nil && c.tracking == nil && d.memory(c, a)
}

// readable finds the dataset of a key that the client may read.
func (c *conn) readable(key string) (d api.Served, rest string, ok bool) {
	name, rest, e := split(key)
	if e != nil {
		return d, "", false
	}
	d, ok = c.server.backend.Datasets.Lookup(name)
	return d, rest, ok && (d.Gate.Allows(&c.caller, access.Read) || d.Gate.Permits(c.caller, access.Read, c.authorization)) //guard:memory-answers-a-denied-command
}

// cached reads the key of a command.
func (c *conn) cached(a arguments) (d api.Served, answer kv.Answer, ok bool) {
	d, key, ok := c.readable(a.View(1))
	if !ok {
		return d, kv.Answer{}, false
	}
	answer, ok = d.Cached(key, kv.ReadOptions{})
	return d, answer, ok
}

func countHit(d api.Served, answer *kv.Answer) {
	d.Stats().CountHit(false, answer.Source == kv.SourceLocalHit)
}

func (c *conn) getCached(a arguments) bool {
	d, answer, ok := c.cached(a)
	if !ok || len(answer.Value)+frameBytes > smallOut || !c.hasRoom(len(answer.Value)+frameBytes) {
		return false
	}
	countHit(d, &answer)
	c.value(answer.Value)
	return true
}

// numberCached replies to a command of one key with a number.
func (c *conn) numberCached(a arguments, number func(*kv.Answer) int64) bool {
	d, answer, ok := c.cached(a)
	if !ok || !c.hasRoom(maxInfo) {
		return false
	}
	countHit(d, &answer)
	c.integer(number(&answer))
	return true
}

func (c *conn) strlenCached(a arguments) bool {
	return c.numberCached(a, func(answer *kv.Answer) int64 { return int64(len(answer.Value)) })
}

func (c *conn) ttlCached(a arguments) bool {
	return c.numberCached(a, func(answer *kv.Answer) int64 { return timeLeft(answer, time.Second) })
}

func (c *conn) pttlCached(a arguments) bool {
	return c.numberCached(a, func(answer *kv.Answer) int64 { return timeLeft(answer, time.Millisecond) })
}

// manyCached reads the keys of a command, all of one dataset, whose values with their frames have at most smallOut bytes. The reads are
// counted at the end: otherwise they are made again.
func (c *conn) manyCached(a arguments, answers *[maxCachedKeys]kv.Answer) (n int, ok bool) {
	n = a.Len() - 1
	if n > maxCachedKeys {
		return n, false
	}
	d, _, ok := c.readable(a.View(1))
	if !ok {
		return n, false
	}
	name, _, _ := split(a.View(1))
	size := frameBytes
	for i := range n {
		other, key, _ := split(a.View(i + 1))
		if other != name {
			return n, false
		}
		if answers[i], ok = d.Cached(key, kv.ReadOptions{}); !ok {
			return n, false
		}
		size += frameBytes + len(answers[i].Value)
	}
	if size > smallOut || !c.hasRoom(max(size, maxInfo)) {
		return n, false
	}
	for i := range n {
		countHit(d, &answers[i])
	}
	return n, true
}

func (c *conn) mgetCached(a arguments) bool {
	var answers [maxCachedKeys]kv.Answer
	n, ok := c.manyCached(a, &answers)
	if !ok {
		return false
	}
	c.array(n)
	for i := range n {
		c.value(answers[i].Value)
	}
	return true
}

func (c *conn) existsCached(a arguments) bool {
	var answers [maxCachedKeys]kv.Answer
	n, ok := c.manyCached(a, &answers)
	if ok {
		c.integer(int64(n))
	}
	return ok
}

func (c *conn) pingNow(a arguments) bool {
	if a.Len() > 1 || !c.hasRoom(maxInfo) {
		return false
	}
	c.simple("PONG")
	return true
}
