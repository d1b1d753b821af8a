package respserver

import (
	"strings"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// maxQueued bounds the commands of a transaction.
const maxQueued = 1000

// queuedBytes is what a queued command takes beside its arguments.
const queuedBytes = 128

// transaction is the commands between MULTI and EXEC. Clients that cache read a value and its time to live in one. It promises
// nothing beyond that its replies come together, so that it has reads only.
type transaction struct {
	queued []queued
	failed bool // EXEC is refused
	memory budget.Loan
}

// queued is a command with a copy of its arguments.
type queued struct {
	command *command
	args    []string
}

// Len implements arguments.
func (q queued) Len() int { return len(q.args) }

// Arg implements arguments.
func (q queued) Arg(i int) []byte { return []byte(q.args[i]) }

// View implements arguments.
func (q queued) View(i int) string { return q.args[i] }

func (c *conn) multi(arguments) {
	if c.transaction != nil {
		c.err("MULTI calls cannot be nested")
		return
	}
	c.transaction = &transaction{memory: c.server.config.Budget.Loan(budget.Requests)}
	c.simple("OK")
}

// queue adds a command to the transaction.
func (c *conn) queue(d *command, a arguments) {
	t := c.transaction
	bytes := int64(queuedBytes)
	for i := range a.Len() {
		bytes += int64(len(a.Arg(i)) + 16)
	}
	switch {
	case d.flags&reads == 0:
		t.failed = true
		c.err("'" + d.name + "' cannot be part of a transaction, which has reads only")
		return
	case len(t.queued) >= maxQueued:
		t.failed = true
		c.err("a transaction has at most 1000 commands")
		return
	case !t.memory.Grow(bytes):
		t.failed = true
		c.fail(c.server.backend.Error(kv.ErrNoMemory))
		return
	}
	q := queued{command: d}
	for i := range a.Len() {
		q.args = append(q.args, strings.Clone(a.View(i)))
	}
	t.queued = append(t.queued, q)
	c.simple("QUEUED")
}

func (c *conn) exec(arguments) {
	t := c.transaction
	if t == nil {
		c.err("EXEC without MULTI")
		return
	}
	defer c.discard()
	if t.failed {
		c.failWith("EXECABORT", "Transaction discarded because of previous errors.")
		return
	}
	c.array(len(t.queued))
	for _, q := range t.queued {
		q.command.run(c, q)
	}
}

func (c *conn) discardTransaction(arguments) {
	if c.transaction == nil {
		c.err("DISCARD without MULTI")
		return
	}
	c.discard()
	c.simple("OK")
}

// discard ends the transaction, if there is one.
func (c *conn) discard() {
	if c.transaction != nil {
		c.transaction.memory.Close()
		c.transaction = nil
	}
}
