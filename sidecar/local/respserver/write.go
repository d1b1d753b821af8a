package respserver

import (
	"strings"

	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// set handles SET key value [NX | XX | IFEQ value]. A row that does not meet the condition is not written: the reply is null.
func (c *conn) set(a arguments) {
	change := kv.Change{Value: a.Arg(2)}
	for i := 3; i < a.Len(); i++ {
		option := strings.ToUpper(short(a.View(i)))
		switch {
		case change.If != (kv.Condition{}):
			c.err("syntax error: SET has at most one of NX, XX and IFEQ")
			return
		case option == "NX":
			change.If.Absent = true
		case option == "XX":
			change.If.Present = true
		case option == "IFEQ" && i+1 < a.Len():
			i++
			change.If.ETag = kv.ETagOf(a.Arg(i))
		case option == "EX" || option == "PX" || option == "EXAT" || option == "PXAT" || option == "KEEPTTL":
			c.err(option + " is not supported: the ttl of the dataset says how long its values are cached, and rows do not expire")
			return
		default:
			c.err("syntax error: SET supports NX, XX and IFEQ value")
			return
		}
	}
	conditional := change.If != (kv.Condition{})
	switch e := c.write(a.View(1), change); {
	case e == nil:
		c.simple("OK")
	case conditional && e.Type == apierror.TypeOf(kv.KindConflict):
		c.null()
	default:
		c.fail(e)
	}
}

// setnx handles SETNX key value: the reply is 1 if the row did not exist, and is written.
func (c *conn) setnx(a arguments) {
	switch e := c.write(a.View(1), kv.Change{Value: a.Arg(2), If: kv.Condition{Absent: true}}); {
	case e == nil:
		c.integer(1)
	case e.Type == apierror.TypeOf(kv.KindConflict):
		c.integer(0)
	default:
		c.fail(e)
	}
}

// mset handles MSET key value [key value …]. The rows of a dataset are one batch. They succeed or fail on their own: the reply is the
// first error, and OK means that all are written.
func (c *conn) mset(a arguments) {
	if a.Len()%2 == 0 {
		c.err("wrong number of arguments for 'mset' command")
		return
	}
	var names []string
	batches, bytes := map[string][]kv.Change{}, 0
	for i := 1; i < a.Len(); i += 2 {
		name, key, e := split(a.View(i))
		if e == nil {
			e = api.CheckWrite(kv.Change{Key: key})
		}
		if e != nil {
			c.fail(e)
			return
		}
		if batches[name] == nil {
			name = strings.Clone(name)
			names = append(names, name)
		}
		batches[name], bytes = append(batches[name], kv.Change{Key: key, Value: a.Arg(i + 1)}), bytes+len(a.Arg(i+1))
	}
	for _, name := range names { // before anything is written
		_, _, e := c.dataset(name, access.Write)
		if e == nil {
			e = api.CheckBatchWrite(batches[name])
		}
		if e != nil {
			c.fail(e)
			return
		}
	}
	if !c.loan.Grow(int64(bytes)) {
		c.fail(c.server.backend.Error(kv.ErrNoMemory))
		return
	}
	defer c.loan.Close()
	c.arm()
	defer c.disarm()
	var first *apierror.Error
	for _, name := range names {
		if e := c.writeBatch(name, batches[name]); first == nil {
			first = e
		}
	}
	if first != nil {
		c.fail(first)
		return
	}
	c.simple("OK")
}

// writeBatch writes rows of a dataset, and returns the first error.
func (c *conn) writeBatch(name string, cs []kv.Change) *apierror.Error {
	d, who, e := c.dataset(name, access.Write)
	if e != nil {
		return e
	}
	results, err := d.WriteManyFor(c.deadline, &who, cs, nil)
	for _, r := range results {
		if err == nil {
			err = r.Err
		}
	}
	if err != nil {
		return c.server.backend.Error(err)
	}
	return nil
}

// del handles DEL: it replies with how many of the keys were rows. They are deleted one after the other.
func (c *conn) del(a arguments) {
	if a.Len()-1 > api.MaxBatchKeys {
		c.err("a command has at most 1000 keys")
		return
	}
	deleted := int64(0)
	for i := 1; i < a.Len(); i++ {
		e := c.write(a.View(i), kv.Change{Delete: true, If: kv.Condition{Present: true}})
		switch {
		case e == nil:
			deleted++
		case e.Type != apierror.TypeOf(kv.KindConflict):
			c.fail(e)
			return
		}
	}
	c.integer(deleted)
}

// write makes a change of a key of the protocol.
func (c *conn) write(key string, change kv.Change) *apierror.Error {
	name, rest, e := split(key)
	if e != nil {
		return e
	}
	d, who, e := c.dataset(name, access.Write)
	if e != nil {
		return e
	}
	change.Key = rest
	if err := kv.CheckKey(change.Key); err != nil {
		return api.InvalidKey(err)
	}
	if !c.loan.Grow(int64(len(change.Value))) {
		return c.server.backend.Error(kv.ErrNoMemory)
	}
	defer c.loan.Close()
	c.arm()
	defer c.disarm()
	if _, err := d.WriteFor(c.deadline, &who, change); err != nil {
		return c.server.backend.Error(err)
	}
	return nil
}
