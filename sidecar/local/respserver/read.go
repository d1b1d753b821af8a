package respserver

import (
	"strings"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// split divides a key of the protocol: dataset:key. No name of a dataset has a colon.
func split(key string) (dataset, rest string, e *apierror.Error) {
	i := strings.IndexByte(key, ':')
	if i < 0 {
		return "", "", apierror.New(apierror.InvalidRequest, "a key has the form dataset:key")
	}
	return key[:i], key[i+1:], nil
}

// dataset returns a dataset with which the client may do o, and who that is.
func (c *conn) dataset(name string, o access.Operation) (api.Served, caller.Caller, *apierror.Error) {
	d, ok := c.server.backend.Datasets.Lookup(name)
	if !ok {
		_, e := c.server.backend.Dataset(strings.Clone(name))
		return d, c.caller, e
	}
	if o == access.Read && d.Gate.Allows(&c.caller, o) {
		return d, c.caller, nil
	}
	who, err := d.Gate.Authorize(c.caller, o, c.authorization)
	if err != nil { //guard:denied-command-is-answered
		return d, who, c.server.backend.Error(err)
	}
	return d, who, nil
}

// get handles GET where getCached does not.
func (c *conn) get(a arguments) {
	name, key, e := split(a.View(1))
	if e != nil {
		c.fail(e)
		return
	}
	d, _, e := c.dataset(name, access.Read)
	if e != nil {
		c.fail(e)
		return
	}
	if c.tracking != nil {
		c.getTracked(d, name, key)
		return
	}
	if a == arguments(c.in) {
		c.getArrived(d, name, key)
		return
	}
	c.getOne(d, key)
}

// getTracked is get while the client tracks keys.
func (c *conn) getTracked(d api.Served, name, key string) {
	t := c.beginTracking(d, name, key)
	answer, ok := c.getOne(d, key)
	t.end(answer, ok)
}

// getOne reads a key and replies with its value.
func (c *conn) getOne(d api.Served, key string) (answer kv.Answer, ok bool) {
	answer, ok = c.read(d, key)
	switch {
	case !ok:
	case answer.NotFound:
		c.null()
	default:
		c.value(answer.Value)
	}
	return answer, ok
}

// read reads a key, or replies with an error.
func (c *conn) read(d api.Served, key string) (answer kv.Answer, ok bool) {
	err := kv.CheckKey(key)
	if err == nil {
		c.arm()
		defer c.disarm()
		answer, err = d.Get(c.deadline, key, kv.ReadOptions{})
	}
	if err != nil {
		c.fail(c.server.backend.Error(err))
		return answer, false
	}
	return answer, true
}

// arm begins the time of a command.
func (c *conn) arm() {
	c.deadline.Reset(c.server.base, time.Now().Add(c.server.config.RequestTimeout)) //guard:command-without-deadline
}

func (c *conn) disarm() {
	if !c.deadline.Stop() {
		c.deadline = new(api.Deadline)
	}
}

// maxGathered is how many keys of commands that have arrived together are loaded together.
const maxGathered = 100

// getArrived replies to a GET that memory does not answer, and to those of the same dataset that have arrived behind it:
// their keys are loaded together.
func (c *conn) getArrived(d api.Served, name, key string) {
	keys := c.gather(name, key)
	if len(keys) == 1 {
		c.getOne(d, keys[0])
		return
	}
	c.arm()
	results := c.server.backend.ReadBatch(c.deadline, d, keys, kv.ReadOptions{}, &c.loan)
	c.disarm()
	for i, r := range results {
		if i > 0 {
			c.count()
		}
		switch {
		case r.Err == kv.ErrBatchBytes: // the first ones fill a batch
			c.getOne(d, keys[i])
		case r.Err != nil:
			c.fail(c.server.backend.Error(r.Err))
		case r.Answer.NotFound:
			c.null()
		default:
			c.held(r.Answer.Value)
		}
	}
	c.loan.Close() //guard:values-of-commands-keep-their-bytes
}

// gather returns key, and goes on to the keys of the GETs behind it.
func (c *conn) gather(name, key string) (keys []string) {
	name = strings.Clone(name)
	keys = append(keys, strings.Clone(key))
	for kv.CheckKey(keys[0]) == nil && len(keys) < maxGathered {
		ok, err := c.in.Next()
		if err != nil || !ok {
			break // the caller of handle finds the same
		}
		next, found := c.keyOfGet(name)
		if !found {
			c.in.Unread()
			break
		}
		keys = append(keys, strings.Clone(next))
	}
	return keys
}

// keyOfGet returns the key of a dataset that the next command reads, if it is a GET that can be answered with others.
func (c *conn) keyOfGet(dataset string) (key string, ok bool) {
	d := c.server.find(c.in.Arg(0))
	if d == nil || d.name != "get" || c.in.Len() != 2 {
		return "", false
	}
	name, key, e := split(c.in.View(1))
	return key, e == nil && name == dataset && kv.CheckKey(key) == nil
}

// readMany reads the keys of a command, or replies with an error and returns false: clients do not expect errors in an array.
// The caller closes c.loan.
func (c *conn) readMany(a arguments, visit func(i int, answer kv.Answer)) bool {
	n := a.Len() - 1
	if n > api.MaxBatchKeys {
		c.err("a command has at most 1000 keys")
		return false
	}
	c.arm()
	defer c.disarm()
	answered := make([]bool, n)
	for i := range n {
		if answered[i] {
			continue
		}
		if !c.readDataset(a, i, answered, visit) {
			return false
		}
	}
	return true
}

// readDataset reads the keys from i on that have the dataset of key i.
func (c *conn) readDataset(a arguments, first int, answered []bool, visit func(int, kv.Answer)) bool {
	name, _, e := split(a.View(first + 1))
	var d api.Served
	if e == nil {
		d, _, e = c.dataset(name, access.Read)
	}
	var keys []string
	var places []int
	var tracked []trackedRead
	for i := first; i < len(answered) && e == nil; i++ {
		other, key, _ := split(a.View(i + 1))
		if answered[i] || other != name {
			continue
		}
		if err := kv.CheckKey(key); err != nil {
			e = api.InvalidKey(err)
		}
		keys, places, answered[i] = append(keys, strings.Clone(key)), append(places, i), true
		if c.tracking != nil {
			tracked = append(tracked, c.beginTracking(d, name, key))
		}
	}
	if e != nil {
		c.fail(e)
		return false
	}
	results := c.server.backend.ReadBatch(c.deadline, d, keys, kv.ReadOptions{}, &c.loan)
	for i, t := range tracked {
		t.end(results[i].Answer, results[i].Err == nil)
	}
	for i, r := range results {
		if r.Err != nil {
			c.fail(c.server.backend.Error(r.Err))
			return false
		}
		visit(places[i], r.Answer)
	}
	return true
}

// mget handles MGET.
func (c *conn) mget(a arguments) {
	defer c.loan.Close()
	answers := make([]kv.Answer, a.Len()-1)
	if !c.readMany(a, func(i int, answer kv.Answer) { answers[i] = answer }) {
		return
	}
	c.array(len(answers))
	for _, answer := range answers {
		if answer.NotFound {
			c.null()
		} else {
			c.held(answer.Value)
		}
	}
}

// exists handles EXISTS.
func (c *conn) exists(a arguments) {
	defer c.loan.Close()
	n := int64(0)
	if c.readMany(a, func(_ int, answer kv.Answer) {
		if !answer.NotFound {
			n++
		}
	}) {
		c.integer(n)
	}
}

// readNumber reads the key of a command and replies with a number.
func (c *conn) readNumber(a arguments, number func(kv.Answer) int64) {
	defer c.loan.Close()
	var n int64
	if c.readMany(a, func(_ int, answer kv.Answer) { n = number(answer) }) {
		c.integer(n)
	}
}

func (c *conn) strlen(a arguments) {
	c.readNumber(a, func(answer kv.Answer) int64 { return int64(len(answer.Value)) })
}

func (c *conn) ttl(a arguments) {
	c.readNumber(a, func(answer kv.Answer) int64 { return timeLeft(&answer, time.Second) })
}

func (c *conn) pttl(a arguments) {
	c.readNumber(a, func(answer kv.Answer) int64 { return timeLeft(&answer, time.Millisecond) })
}

// timeLeft returns how long clients may reuse an answer, rounded down; -2 for a key that does not exist.
func timeLeft(answer *kv.Answer, unit time.Duration) int64 {
	if answer.NotFound {
		return -2
	}
	return int64(api.TimeLeft(answer) / unit)
}
