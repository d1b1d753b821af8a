package respserver

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/ring/printable"
)

// arguments are those of a command. The first one is its name.
type arguments interface {
	Len() int
	// Arg and View return an argument in memory that is reused after the command.
	Arg(i int) []byte
	View(i int) string
}

// flags say what a command does.
type flags uint8

const (
	reads   flags = 1 << iota // the values of keys; a transaction may have it
	writes                    // changes keys
	session                   // is about the connection
	control                   // ends or begins a transaction, or the connection: it is never queued
)

// command is one command of the protocol.
type command struct {
	name  string // lower-case
	arity int    // number of arguments, name included; at least -arity if it is negative
	flags flags
	// first, last and step say which arguments are keys, as COMMAND does.
	first, last, step int
	run               func(c *conn, a arguments)
	// memory replies if nothing but memory is needed, and never waits. It reports whether it has; otherwise nothing has happened.
	memory func(c *conn, a arguments) bool
}

func (d *command) accepts(n int) bool {
	if d.arity < 0 {
		return n >= -d.arity
	}
	return n == d.arity
}

// maxName is the length of the longest name.
const maxName = 16

// commands returns all commands, by their names in upper case.
func commands() map[string]*command {
	table := []command{
		{"get", 2, reads, 1, 1, 1, (*conn).get, (*conn).getCached},
		{"mget", -2, reads, 1, -1, 1, (*conn).mget, (*conn).mgetCached},
		{"exists", -2, reads, 1, -1, 1, (*conn).exists, (*conn).existsCached},
		{"strlen", 2, reads, 1, 1, 1, (*conn).strlen, (*conn).strlenCached},
		{"ttl", 2, reads, 1, 1, 1, (*conn).ttl, (*conn).ttlCached},
		{"pttl", 2, reads, 1, 1, 1, (*conn).pttl, (*conn).pttlCached},
		{"scan", -2, session, 0, 0, 0, (*conn).scan, nil},
		{"set", -3, writes, 1, 1, 1, (*conn).set, nil},
		{"setnx", 3, writes, 1, 1, 1, (*conn).setnx, nil},
		{"mset", -3, writes, 1, -1, 2, (*conn).mset, nil},
		{"del", -2, writes, 1, -1, 1, (*conn).del, nil},
		{"unlink", -2, writes, 1, -1, 1, (*conn).del, nil},
		{"ping", -1, session | reads, 0, 0, 0, (*conn).ping, (*conn).pingNow},
		{"echo", 2, session | reads, 0, 0, 0, func(c *conn, a arguments) { c.value(a.Arg(1)) }, nil},
		{"hello", -1, session | control, 0, 0, 0, (*conn).hello, nil},
		{"auth", -2, session | control, 0, 0, 0, (*conn).auth, nil},
		{"select", 2, session, 0, 0, 0, (*conn).selectDatabase, nil},
		{"info", -1, session, 0, 0, 0, (*conn).info, nil},
		{"command", -1, session, 0, 0, 0, (*conn).describe, nil},
		{"client", -2, session, 0, 0, 0, (*conn).client, nil},
		{"quit", -1, session | control, 0, 0, 0, (*conn).quitNow, nil},
		{"reset", 1, session | control, 0, 0, 0, (*conn).reset, nil},
		{"multi", 1, session | control, 0, 0, 0, (*conn).multi, nil},
		{"exec", 1, session | control, 0, 0, 0, (*conn).exec, nil},
		{"discard", 1, session | control, 0, 0, 0, (*conn).discardTransaction, nil},
	}
	all := make(map[string]*command, len(table))
	for i := range table {
		all[strings.ToUpper(table[i].name)] = &table[i]
	}
	return all
}

// find returns a command by its name in any case; nil if there is none.
func (s *Server) find(name []byte) *command {
	var upper [maxName]byte
	if len(name) > len(upper) {
		return nil
	}
	for i, b := range name {
		if 'a' <= b && b <= 'z' {
			b -= 'a' - 'A'
		}
		upper[i] = b
	}
	return s.commands[string(upper[:len(name)])]
}

// handle replies to one command.
func (c *conn) handle(a arguments) {
	d := c.server.find(a.Arg(0))
	switch {
	case d == nil:
		c.reject(fmt.Sprintf("unknown command '%s'; COMMAND LIST has those of Ringside", printable.Text(short(a.View(0)))))
	case !d.accepts(a.Len()):
		c.reject(fmt.Sprintf("wrong number of arguments for '%s' command", d.name))
	case c.transaction != nil && d.flags&control == 0:
		c.queue(d, a)
	case c.handleFromMemory(d, a):
		c.loop.Count(true)
	default:
		c.loop.Count(false)
		d.run(c, a)
		if c.tracking != nil {
			c.tracking.afterCommand(d)
		}
	}
}

// reject replies to a command that does not exist. A line of words that is none is probably a line of HTTP that a page of a
// website has made a browser send; what follows in it must not be taken for commands.
func (c *conn) reject(text string) {
	c.err(text)
	if c.transaction != nil {
		c.transaction.failed = true
	}
	if c.in.Inline() { //guard:http-request-is-taken-for-commands
		c.server.stats.HostRefused.Add(1)
		c.quit = true
	}
}

// short returns the beginning of what a client has sent, for a message.
func short(s string) string { return s[:min(len(s), 64)] }

// describe handles COMMAND, COMMAND COUNT, LIST, DOCS and INFO.
func (c *conn) describe(a arguments) {
	all := slices.SortedFunc(maps.Values(c.server.commands), func(a, b *command) int { return strings.Compare(a.name, b.name) })
	switch sub := subcommand(a); sub {
	case "":
		c.describeAll(all)
	case "COUNT":
		c.integer(int64(len(all)))
	case "LIST":
		c.array(len(all))
		for _, d := range all {
			c.text(d.name)
		}
	case "DOCS":
		c.pairs(0)
	case "INFO":
		var some []*command
		for i := 2; i < a.Len(); i++ {
			some = append(some, c.server.find(a.Arg(i)))
		}
		c.describeAll(some)
	default:
		c.unknownSubcommand(a)
	}
}

func (c *conn) describeAll(all []*command) {
	c.array(len(all))
	for _, d := range all {
		if d == nil {
			c.null()
			continue
		}
		c.array(6)
		c.text(d.name)
		c.integer(int64(d.arity))
		words := d.flags.words()
		c.array(len(words))
		for _, w := range words {
			c.simple(w)
		}
		c.integer(int64(d.first))
		c.integer(int64(d.last))
		c.integer(int64(d.step))
	}
}

// words returns the flags as Redis has them.
func (f flags) words() (list []string) {
	switch {
	case f&writes != 0:
		list = append(list, "write")
	case f&session == 0:
		list = append(list, "readonly", "fast")
	}
	return list
}

// subcommand returns argument 1 in upper case, or "".
func subcommand(a arguments) string {
	if a.Len() < 2 {
		return ""
	}
	return strings.ToUpper(short(a.View(1)))
}

func (c *conn) unknownSubcommand(a arguments) {
	c.err(fmt.Sprintf("unknown subcommand '%s' of '%s'", printable.Text(short(a.View(1))), printable.Text(short(a.View(0)))))
}
