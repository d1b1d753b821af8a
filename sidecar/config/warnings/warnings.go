// Package warnings finds the settings of a configuration that are valid but probably unintended.
package warnings

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/ring/address"
	"github.com/ringside-cache/ringside/sidecar/config"
)

// Of returns the warnings about c.
func Of(c config.Config) []string {
	c = c.Effective()
	var list []string
	warn := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	for _, l := range c.Listeners() {
		inward := l.Name != "unix" && l.Name != "peer" && l.Name != "metrics" && !(l.Name == "xds" && c.PeerTLS.On())
		if inward && beyondHost(l.Addr) {
			warn("listen.%s is %s: every client that can reach this address can read everything; use 127.0.0.1 unless that is "+
				"intended", l.Name, l.Addr)
		}
	}
	if c.Listen.Peer != off && !c.PeerTLS.On() {
		warn("peer_tls.insecure is true: members are not authenticated, and traffic between them is not encrypted")
	}
	list = append(list, ofWrites(c)...)
	list = append(list, ofTokens(c)...)
	list = append(list, ofClearText(c)...)
	if c.Membership.Etcd.LegacyPrefix != "" && c.PeerTLS.On() {
		warn("membership.etcd.legacy_prefix and peer_tls are both set: old clients without a certificate of the members' " +
			"CA are rejected")
	}
	if c.PeerTLS.Name != "" {
		warn("peer_tls.name is set: every certificate of the CA with the name %s may act as every member and as every client; use "+
			"SPIFFE ids to tell them apart", c.PeerTLS.Name)
	}
	if h, _, err := address.Split(c.Node.Advertise); err == nil && address.IsLoopback(h) && reachesBeyondHost(c) {
		warn("node.advertise is %s, which other hosts cannot reach", c.Node.Advertise)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Origins)) {
		if !used(c, name) {
			warn("origins.%s is used by no dataset: the sidecar neither uses nor checks it", name)
		}
	}
	if len(c.Datasets) == 0 {
		warn("there are no datasets: every read returns 404")
	}
	return list
}

func used(c config.Config, origin string) bool {
	for _, d := range c.Datasets {
		if d.Origin == origin {
			return true
		}
	}
	return false
}

// reachesBeyondHost reports whether members on other hosts are expected.
func reachesBeyondHost(c config.Config) bool {
	for _, addr := range c.Membership.Static {
		if beyondHost(addr) {
			return true
		}
	}
	kind := c.Membership.Kind()
	return beyondHost(c.Listen.Peer) && (kind == "etcd" || kind == "dns")
}

// off is the address of a listener that is off.
const off = "off"

// beyondHost reports whether other hosts may reach addr.
func beyondHost(addr string) bool {
	h, _, err := address.Split(addr)
	return err == nil && !address.IsLoopback(h)
}

// ofWrites are the warnings about writable datasets.
func ofWrites(c config.Config) []string {
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
	const warning = "%s is %s%s: every client that can reach it can change the rows of %s"
	if open := openToNetwork(c, writable); len(open) > 0 {
		for _, l := range [][2]string{{"listen.http", c.Listen.HTTP}, {"listen.grpc", c.Listen.GRPC}, {"listen.redis", c.Listen.Redis}, {"listen.otlp", c.Listen.OTLP}} {
			if beyondHost(l[1]) {
				list = append(list, fmt.Sprintf(warning, l[0], l[1], "", strings.Join(open, ", ")))
			}
		}
	}
	if c.Listen.Peer != off && !c.PeerTLS.On() { // as a member
		list = append(list, fmt.Sprintf(warning, "listen.peer", c.Listen.Peer, ", without peer_tls", strings.Join(writable, ", ")))
	}
	return list
}

// openToNetwork returns the datasets that clients from other hosts may write without an identity.
func openToNetwork(c config.Config, writable []string) (open []string) {
	for _, name := range writable {
		if subjects := c.Datasets[name].Allow.Write; slices.Contains(subjects, "network") || slices.Contains(subjects, "*") {
			open = append(open, name)
		}
	}
	return open
}

// minToken is the length in bytes below which a token can be guessed.
const minToken = 16

// ofTokens are the warnings about the files of tokens.
func ofTokens(c config.Config) (list []string) {
	for _, name := range slices.Sorted(maps.Keys(c.Tokens)) {
		file := c.Tokens[name].File
		if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o004 != 0 {
			list = append(list, fmt.Sprintf("tokens.%s.file can be read by every user of this host: set mode 0400 or 0440", name))
		}
		text, err := os.ReadFile(file)
		if err != nil {
			continue // Check reports it
		}
		for line := range strings.Lines(string(text)) {
			if n := len(strings.TrimSpace(line)); n > 0 && n < minToken {
				list = append(list, fmt.Sprintf("tokens.%s.file has a token of %d bytes, which can be guessed: use 32 random bytes or more", name, n))
			}
		}
	}
	return list
}
