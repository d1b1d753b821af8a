package sidecar

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/drivers"
	"github.com/ringside-cache/ringside/ring"
)

// checker looks for everything that is wrong with a configuration, and says where it was written.
type checker struct {
	config   Config
	problems []Problem
}

// places says where each field was written.
type places struct {
	decoder    *decoder
	overridden map[string]string // :: path → the variable or flag that set it
}

func (k *checker) check() {
	k.node()
	k.listen()
	k.files("peer_tls", k.config.PeerTLS.files())
	k.peerTLS()
	k.membership()
	k.ring()
	k.origins()
	k.datasets()
	k.cnfMetrics()
	k.hosts()
	k.log()
	k.bounds()
	k.drivers()
}

// problem reports what is wrong with the field at path.
func (k *checker) problem(path, format string, args ...any) {
	k.problems = append(k.problems, k.config.places.problem(path, format, args...))
}

// problem is without a place where the configuration was made in Go, and p is nil.
func (p *places) problem(path, format string, args ...any) Problem {
	wrong := Problem{Field: path, Message: fmt.Sprintf(format, args...)}
	if p == nil {
		return wrong
	}
	if from, ok := p.overridden[path]; ok {
		wrong.Where = from
		return wrong
	}
	at := p.decoder.nearest(path)
	wrong.Where, wrong.Excerpt = p.decoder.where(at), excerpt(p.decoder.source, at)
	return wrong
}

// nearest returns the place of path, or of what encloses it where the file does not have it.
func (d *decoder) nearest(path string) position {
	for path != "" {
		if p, ok := d.marks[path]; ok {
			return p
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return position{}
}

// Lengths are checked apart: a count in an expression is compiled into as many copies, which each start would pay for.
var (
	name    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
	nodeID  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	etcdKey = regexp.MustCompile(`^[!-~]+$`)
	host    = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)
)

const (
	maxName = 63  // of a DNS label (RFC 1123), so that it can be one
	maxHost = 253 // of a DNS name
)

func (k *checker) node() {
	n := k.config.Node
	if n.ID != "" && (!nodeID.MatchString(n.ID) || len(n.ID) > maxHost) {
		k.problem("node.id", "want letters, digits, '.', '_' and '-', at most %d; got %q", maxHost, n.ID)
	}
	if n.Advertise != "" {
		k.reachable("node.advertise", n.Advertise, 0)
	}
	if len(n.Zone) > maxHost {
		k.problem("node.zone", "want at most %d bytes; got %d", maxHost, len(n.Zone))
	}
}

// reachable checks an address that others are to dial.
func (k *checker) reachable(path, addr string, minPort uint16) {
	h, port, err := splitAddr(addr)
	switch {
	case err != nil:
		k.problem(path, "want host:port; %v", err)
	case h == "" || isUnspecified(h):
		k.problem(path, "%s is no address that another member can dial; give the pod's own, such as ${POD_IP}:7072",
			addr)
	case port < minPort:
		k.problem(path, "port 0 is no port that another member can dial")
	}
}

// splitAddr takes host:port apart. The host is an IP address, a name or empty.
func splitAddr(addr string) (h string, port uint16, err error) {
	h, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("got %q", addr)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("the port must be a number from 0 to 65535; got %q", addr)
	}
	if _, err := netip.ParseAddr(h); err != nil && h != "" && !isHost(h) {
		return "", 0, fmt.Errorf("got %q", addr)
	}
	return h, uint16(n), nil
}

func isHost(h string) bool { return len(h) <= maxHost && host.MatchString(h) }

func isUnspecified(h string) bool {
	ip, err := netip.ParseAddr(h)
	return h == "" || err == nil && ip.IsUnspecified()
}

func isLoopback(h string) bool {
	ip, err := netip.ParseAddr(h)
	return h == "localhost" || err == nil && ip.IsLoopback()
}

// tcpListeners returns path and address of each listener that has a port.
func (c Config) tcpListeners() [][2]string {
	l := c.Listen
	return [][2]string{
		{"listen.http", l.http()}, {"listen.grpc", l.grpc()}, {"listen.peer", c.peerListen()},
		{"listen.metrics", l.metrics()}, {"listen.xds", l.xds()}, {"listen.admin", l.admin()},
	}
}

func (k *checker) listen() {
	type bound struct{ path, host string }
	taken := map[uint16][]bound{}
	for _, l := range k.config.tcpListeners() {
		path, addr := l[0], l[1]
		if addr == off {
			continue
		}
		h, port, err := splitAddr(addr)
		if err != nil {
			k.problem(path, "want host:port or off; %v", err)
			continue
		}
		for _, other := range taken[port] {
			if port != 0 && (h == other.host || isUnspecified(h) || isUnspecified(other.host)) {
				k.problem(path, "port %d is also that of %s; give each listener its own", port, other.path)
			}
		}
		taken[port] = append(taken[port], bound{path, h})
	}
	// sun_path has 108 bytes with its final NUL (unix(7)).
	if u := k.config.Listen.unix(); u != off && len(u) > 107 {
		k.problem("listen.unix", "a socket's path has at most 107 bytes; this one has %d", len(u))
	}
	k.peerListener()
}

func (k *checker) peerListener() {
	m, closed := k.config.Membership, k.config.peerListen() == off
	switch {
	case m.edge() && !closed:
		k.problem("listen.peer", "is on, but with membership.xds this sidecar is not on the ring: nobody calls; leave it out")
	case m.edge(): // proxies of its feed send requests to the members
	case closed && k.config.Listen.xds() != off:
		k.problem("listen.xds", "is on, but listen.peer is off: that is where proxies are to send requests")
	}
	if closed && !m.alone() && !m.edge() {
		k.problem("listen.peer", "is off, but there is a membership: other members could not reach this one")
	}
}

// files checks that the PEM files of t can be read; what is in them is checked where they are used.
func (k *checker) files(path string, t TLS) {
	if (t.CertFile == "") != (t.KeyFile == "") {
		k.problem(path, "cert_file and key_file belong together; give both or neither")
	}
	for field, file := range map[string]string{"cert_file": t.CertFile, "key_file": t.KeyFile, "ca_file": t.CAFile} {
		if file != "" {
			k.readable(path+"."+field, file)
		}
	}
}

func (k *checker) readable(path, file string) {
	f, err := os.Open(file)
	if err != nil {
		k.problem(path, "cannot be read: %v", err)
		return
	}
	_ = f.Close()
}

func (k *checker) peerTLS() {
	if t := k.config.PeerTLS; t != (PeerTLS{}) && (t.CAFile == "" || t.CertFile == "") {
		k.problem("peer_tls",
			"members prove who they are to each other; give cert_file, key_file and ca_file, or none of them")
	}
}

func (k *checker) membership() {
	m := k.config.Membership
	ways := 0
	for _, given := range []bool{len(m.Static) > 0, len(m.Etcd.Endpoints) > 0, len(m.XDS) > 0} {
		if given {
			ways++
		}
	}
	if ways > 1 {
		k.problem("membership", "give etcd, static or xds; one of them")
	}
	k.addresses("membership.static", m.Static)
	k.addresses("membership.xds", m.XDS)
	k.notEmpty("membership.etcd.endpoints", m.Etcd.Endpoints)
	k.listed(m.Static)
	k.proxied()
	if k.config.Membership.Etcd.configured() {
		k.etcd(m.Etcd)
	}
}

// notEmpty refuses a list that was given and has nothing: somebody's template meant members.
func (k *checker) notEmpty(path string, list []string) {
	if list != nil && len(list) == 0 { //guard:template-without-members-makes-sidecars-alone
		k.problem(path, "is an empty list, which would leave this sidecar alone; fill it, or leave it out")
	}
}

// listed checks a static list for this member, where its address does not depend on the host that it runs on.
func (k *checker) listed(static []string) {
	_, port, err := splitAddr(k.config.Node.Advertise)
	if len(static) > 0 && err == nil && port != 0 && !slices.Contains(static, k.config.Node.Advertise) { //guard:member-others-do-list-runs-moment
		k.problem("membership.static", "%s%s", k.config.Node.Advertise, unlisted)
	}
}

// proxied checks that the proxies of the feed can be told of the members, which have no names there.
func (k *checker) proxied() {
	if k.config.Listen.xds() == off {
		return
	}
	k.noName("node.advertise", k.config.Node.Advertise)
	for i, addr := range k.config.Membership.Static {
		k.noName(fmt.Sprintf("membership.static[%d]", i), addr)
	}
}

func (k *checker) noName(path, addr string) {
	h, _, err := splitAddr(addr)
	if _, notIP := netip.ParseAddr(h); err == nil && notIP != nil && h != "" {
		k.problem(path, "%s is a name, and the proxies of listen.xds take only ip:port", addr)
	}
}

// addresses checks a list of what is to be dialled.
func (k *checker) addresses(path string, list []string) {
	k.notEmpty(path, list)
	for i, addr := range list {
		path := fmt.Sprintf("%s[%d]", path, i)
		k.reachable(path, addr, 1)
		if slices.Contains(list[:i], addr) {
			k.problem(path, "%s is listed twice", addr)
		}
	}
}

func (e Etcd) configured() bool {
	return len(e.Endpoints) > 0 || e.Prefix != "" || e.LegacyPrefix != "" || e.LeaseTTL != nil || e.Username != "" ||
		e.PasswordFile != "" || !e.TLS.zero()
}

func (k *checker) etcd(e Etcd) {
	const path = "membership.etcd"
	if len(e.Endpoints) == 0 {
		k.problem(path+".endpoints", "is missing; give the URLs of the etcd members, such as https://etcd-0:2379")
	}
	for i, endpoint := range e.Endpoints {
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" || u.User != nil || (u.Scheme != "http" && u.Scheme != "https") {
			k.problem(fmt.Sprintf("%s.endpoints[%d]", path, i), "want a URL such as https://etcd-0:2379, without a password")
		}
	}
	if p := e.prefix(); !strings.HasPrefix(p, "/") || strings.HasSuffix(p, "/") {
		k.problem(path+".prefix", "want a path that begins, and does not end, with a slash; got %q", p)
	}
	k.legacyPrefix(path+".legacy_prefix", e)
	if ttl := e.leaseTTL(); ttl < time.Second || ttl%time.Second != 0 {
		k.problem(path+".lease_ttl", "etcd counts leases in seconds; want 1s or more, without a fraction; got %s", ttl)
	}
	if (e.Username == "") != (e.PasswordFile == "") {
		k.problem(path, "username and password_file belong together; give both or neither")
	}
	if e.PasswordFile != "" {
		k.password(path+".password_file", e.PasswordFile)
	}
	k.files(path+".tls", e.TLS)
}

func (k *checker) password(path, file string) {
	if _, err := readSecret(file, "password"); err != nil {
		k.problem(path, "%v", err)
	}
}

// legacyPrefix keeps the keys of old clients and those of the members apart.
func (k *checker) legacyPrefix(path string, e Etcd) {
	legacy, own := e.LegacyPrefix, e.prefix()
	switch {
	case legacy == "":
	case strings.HasSuffix(legacy, "/") || !etcdKey.MatchString(legacy) || len(legacy) > maxHost:
		k.problem(path, "want the name that old clients resolve, such as GroupCache, without a slash at its end; got %q",
			legacy)
	case strings.HasPrefix(legacy+"/", own+"/") || strings.HasPrefix(own+"/", legacy+"/"):
		k.problem(path, "%q and the prefix %q would hold each other's keys; choose another", legacy, own)
	}
}

func (k *checker) ring() {
	r := k.config.Ring
	if r.max() > ring.MaxSize {
		k.problem("ring.max", "at most %d, as in Envoy", ring.MaxSize)
	}
	if r.min() > r.max() {
		k.problem("ring.min", "%d is more than ring.max, which is %d", r.min(), r.max())
	}
}

func (k *checker) hosts() {
	for i, h := range k.config.Hosts {
		if !isHost(h) {
			k.problem(fmt.Sprintf("hosts[%d]", i), "want a host name without port; got %q", h)
		}
	}
}

func (k *checker) log() {
	k.oneOf("log.format", k.config.Log.format(), "json", "console")
	k.oneOf("log.level", k.config.Log.level(), "debug", "info", "warn", "error")
}

func (k *checker) oneOf(path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		k.problem(path, "want one of %s; got %q", strings.Join(allowed, ", "), value)
	}
}

// minMemory keeps a forgotten unit (memory: 128) from passing as 128 bytes.
const minMemory = 1 << 20

func (k *checker) bounds() {
	if m := k.config.Memory; m != 0 && m < minMemory {
		k.problem("memory", "%d bytes are too few to be meant; give a unit, such as %dMiB", int64(m), int64(m))
	}
	if k.config.drainTimeout() > time.Hour {
		k.problem("drain_timeout", "at most 1h; got %s", k.config.drainTimeout())
	}
}

func (k *checker) origins() {
	for _, n := range slices.Sorted(maps.Keys(k.config.Origins)) {
		path, o := "origins."+n, k.config.Origins[n]
		k.name(path, n)
		k.driver(path+".driver", o.Driver)
		k.dsn(path, o)
		if wait := o.Batch.maxWait(); wait == 0 || wait > 100*time.Millisecond {
			k.problem(path+".batch.max_wait", "every miss waits that long; want more than 0s, at most 100ms; got %s", wait)
		}
		if o.Breaker.cooldown() == 0 {
			k.problem(path+".breaker.cooldown", "must be more than 0s")
		}
	}
}

// driver does not repeat what it has got: a connection string may have been written there.
func (k *checker) driver(path, driver string) {
	missing := ""
	if driver == "" {
		missing = "is missing; "
	}
	if names := drivers.All().Names(); !slices.Contains(names, driver) {
		k.problem(path, "%swant one of %s", missing, strings.Join(names, ", ")) //guard:connection-string-place-driver-printed
	}
}

// drivers asks them about the form of connection strings and statements; none of them connects. A configuration with
// other problems is not asked about: what is missing would be told twice.
func (k *checker) drivers() {
	if len(k.problems) > 0 {
		return
	}
	for _, n := range slices.Sorted(maps.Keys(k.config.Origins)) {
		d, err := openDatabase(n, k.config.Origins[n])
		if err != nil {
			k.problem("origins."+n, "%v", err)
			continue
		}
		k.statements(d)
		_ = d.source.Close() // it holds nothing
	}
}

func (k *checker) statements(database *database) {
	for _, n := range slices.Sorted(maps.Keys(k.config.Datasets)) {
		d := k.config.Datasets[n]
		if d.Origin != database.name {
			continue
		}
		if err := checkStatements(database.source, n, d); err != nil {
			k.problem("datasets."+n, "%v", err)
		}
	}
}

func checkStatements(source origin.Source, name string, d DatasetConfig) error {
	if _, err := source.Dataset(d.rows(name)); err != nil {
		return err
	}
	if d.Writable {
		w, err := origin.Writable(source)
		if err == nil {
			_, err = w.Writer(d.rows(name))
		}
		if err != nil {
			return err
		}
	}
	if !d.Feed.configured() {
		return nil
	}
	f, err := origin.WithFeed(source)
	if err == nil {
		_, err = f.Feed(d.rows(name), d.Feed.feed())
	}
	return err
}

func (k *checker) name(path, n string) {
	if !name.MatchString(n) || len(n) > maxName {
		k.problem(path, "the name %q is not of lower-case letters, digits and '-', at most %d, first no '-'", n, maxName)
	}
}

func (k *checker) dsn(path string, o OriginConfig) {
	if (o.DSN.Reveal() == "") == (o.DSNFile == "") {
		k.problem(path, "give dsn_file, a file that holds the connection string, or dsn; one of them, not both")
		return
	}
	if _, err := o.dsn(); err != nil {
		k.problem(path+".dsn_file", "%v", err)
	}
}

// dsn returns the connection string, from its file if it has one.
func (o OriginConfig) dsn() (Secret, error) {
	if o.DSNFile == "" {
		return o.DSN, nil
	}
	text, err := readSecret(o.DSNFile, "connection string")
	switch {
	case errors.Is(err, errNoPath):
		return Secret{}, fmt.Errorf("%w, or use dsn", err)
	case err != nil:
		return Secret{}, err
	}
	dsn := strings.TrimSpace(text)
	if dsn == "" {
		return Secret{}, fmt.Errorf("%s is empty; want one line with the connection string", o.DSNFile)
	}
	return NewSecret(dsn), nil
}

func (k *checker) datasets() {
	var shares Share
	var without int
	for _, n := range slices.Sorted(maps.Keys(k.config.Datasets)) {
		path, d := "datasets."+n, k.config.Datasets[n]
		k.name(path, n)
		k.origin(path, d)
		k.source(path, d)
		k.policy(path, d)
		k.writes(path, d)
		k.feed(path, d)
		k.oneOf(path+".eviction", d.eviction(), "lru", "slru")
		if d.MemoryShare == nil {
			without++
		}
		shares += orDefault(d.MemoryShare, 0)
		if d.MemoryShare != nil && *d.MemoryShare == 0 {
			k.problem(path+".memory_share", "must be more than 0%%; leave it out for an equal share")
		}
	}
	// Shares are read from text: thirds may add up to a hair more than the whole.
	const hair = 0.0001
	switch {
	case shares > 1+hair:
		k.problem("datasets", "the memory_share of all datasets add up to %s; at most 100%%", shares)
	case shares > 1-hair && without > 0:
		k.problem("datasets", "the memory_share of some datasets add up to all of memory; nothing is left for the others")
	}
}

func (k *checker) origin(path string, d DatasetConfig) {
	known := strings.Join(slices.Sorted(maps.Keys(k.config.Origins)), ", ")
	if d.Origin == "" {
		k.problem(path+".origin", "is missing; want the name of one of the origins: %s", cmp.Or(known, "there is none yet"))
		return
	}
	if _, ok := k.config.Origins[d.Origin]; !ok {
		k.problem(path+".origin", "no origin is named %q; there is: %s", d.Origin, cmp.Or(known, "none"))
	}
}

// source checks that d says what to load in one way: a table or a query.
func (k *checker) source(path string, d DatasetConfig) {
	switch {
	case d.Table == "" && d.Query == "":
		k.problem(path, "give table, and queries are made for you, or query")
	case d.Table != "" && d.Query != "":
		k.problem(path+".query", "give table or query, not both")
	case d.Query != "":
		k.ofQuery(path, d)
	default:
		k.ofTable(path, d)
	}
}

func (k *checker) ofQuery(path string, d DatasetConfig) {
	if d.Key != "" || len(d.Columns) > 0 {
		k.problem(path, "key and columns belong to table; a query names its own")
	}
}

func (k *checker) ofTable(path string, d DatasetConfig) {
	if d.Key == "" {
		k.problem(path+".key", "is missing; want the column that identifies a row")
	}
	if d.Batch != "" {
		k.problem(path+".batch", "belongs to query; for a table it is made for you")
	}
	if d.Value != "" && len(d.Columns) > 0 {
		k.problem(path+".value", "give value, one column as it is, or columns of a JSON object, not both")
	}
}

func (k *checker) policy(path string, d DatasetConfig) {
	p := d.policy()
	if p.TTL == 0 {
		k.problem(path+".ttl", "must be more than 0s: a value that is never fresh need not be cached")
	}
	if p.LocalTTL > p.TTL {
		k.problem(path+".local_ttl", "%s is more than ttl, which is %s: a copy never outlives the owner's entry",
			p.LocalTTL, p.TTL)
	}
	if p.LoadTimeout == 0 || p.LoadTimeout > time.Hour {
		k.problem(path+".load_timeout", "must be more than 0s, at most 1h; got %s", p.LoadTimeout)
	}
}
