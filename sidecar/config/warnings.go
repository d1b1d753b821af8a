package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Warnings returns settings that are valid but probably unintended.
func (c Config) Warnings() []string {
	var list []string
	warn := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	for _, l := range c.tcpListeners() {
		h, _, err := splitAddr(l[1])
		inward := l[0] != "listen.peer" && l[0] != "listen.metrics"
		if err == nil && inward && !isLoopback(h) {
			warn("%s is %s: every client that can reach this address can read everything; use 127.0.0.1 unless that is intended", l[0], l[1])
		}
	}
	if c.peerListen() != off && c.PeerTLS == (PeerTLS{}) {
		warn("peer_tls is not set: members are not authenticated, and traffic between them is not encrypted")
	}
	list = append(list, c.writeWarnings()...)
	if c.Membership.Etcd.LegacyPrefix != "" && c.PeerTLS != (PeerTLS{}) {
		warn("membership.etcd.legacy_prefix and peer_tls are both set: old clients without a certificate of the members' " +
			"CA are rejected")
	}
	if h, _, err := splitAddr(c.Node.Advertise); err == nil && isLoopback(h) && c.reachesBeyondHost() {
		warn("node.advertise is %s, which other hosts cannot reach", c.Node.Advertise)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Origins)) {
		if !c.used(name) {
			warn("origins.%s is used by no dataset: the sidecar neither uses nor checks it", name)
		}
	}
	if len(c.Datasets) == 0 {
		warn("there are no datasets: every read returns 404")
	}
	return list
}

func (c Config) used(origin string) bool {
	for _, d := range c.Datasets {
		if d.Origin == origin {
			return true
		}
	}
	return false
}

// reachesBeyondHost reports whether members on other hosts are expected.
func (c Config) reachesBeyondHost() bool {
	for _, addr := range c.Membership.Static {
		if h, _, err := splitAddr(addr); err == nil && !isLoopback(h) {
			return true
		}
	}
	h, _, err := splitAddr(c.peerListen())
	return err == nil && !isLoopback(h) && len(c.Membership.Etcd.Endpoints) > 0
}

// writeWarnings are about writable datasets.
func (c Config) writeWarnings() []string {
	var list, writable []string
	for _, name := range slices.Sorted(maps.Keys(c.Datasets)) {
		d := c.Datasets[name]
		if !d.Writable {
			continue
		}
		writable = append(writable, name)
		if d.Version == "" {
			list = append(list, fmt.Sprintf("datasets.%s is writable without a version column: conditions on versions and "+
				"ETags are rejected, and a late load can replace a newer value; add a version column and name it in version", name))
		}
	}
	if len(writable) == 0 {
		return list
	}
	rows := strings.Join(writable, ", ")
	for _, way := range c.waysToWrite() {
		list = append(list, fmt.Sprintf("%s: every client that can reach it can change the rows of %s", way, rows))
	}
	return list
}

// waysToWrite are the listeners through which clients outside the pod can write.
func (c Config) waysToWrite() []string {
	var ways []string
	for _, l := range [][2]string{{"listen.http", c.Listen.http()}, {"listen.grpc", c.Listen.grpc()}} {
		if h, _, err := splitAddr(l[1]); err == nil && !isLoopback(h) {
			ways = append(ways, fmt.Sprintf("%s is %s", l[0], l[1]))
		}
	}
	if c.peerListen() != off && c.PeerTLS == (PeerTLS{}) {
		ways = append(ways, fmt.Sprintf("listen.peer is %s, without peer_tls", c.peerListen()))
	}
	return ways
}
