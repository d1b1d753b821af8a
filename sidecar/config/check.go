package config

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/address"
)

// checker collects the faults of a configuration.
type checker struct {
	config   Config
	drivers  origin.Drivers
	problems []Problem
}

func (k *checker) check() {
	k.node()
	k.listen()
	k.files("peer_tls", k.config.PeerTLS.files())
	k.peerTLS()
	k.membership()
	k.leftOut()
	k.ring()
	k.origins()
	k.datasets()
	k.http()
	k.extAuthz()
	k.otlp()
	k.tokens()
	k.audit()
	k.cnfMetrics()
	k.hosts()
	k.log()
	k.bounds()
	k.statements()
}

// problem reports a fault of the field at path.
func (k *checker) problem(path, format string, args ...any) {
	k.problems = append(k.problems, k.config.Problem(path, format, args...))
}

// Lengths are checked separately: a repetition count is compiled into that many copies, which costs time at each start.
var (
	name    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
	nodeID  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	etcdKey = regexp.MustCompile(`^[!-~]+$`)
)

const maxName = 63 // of a DNS label (RFC 1123), so that it can be one

func (k *checker) node() {
	n := k.config.Node
	if n.ID != "" && (!nodeID.MatchString(n.ID) || len(n.ID) > address.MaxHost) {
		k.problem("node.id", "want letters, digits, '.', '_' and '-', at most %d; got %q", address.MaxHost, n.ID)
	}
	if n.Advertise != "" {
		k.advertise("node.advertise", n.Advertise)
	}
	if n.Namespace != "" && (!name.MatchString(n.Namespace) || len(n.Namespace) > maxName) {
		k.problem("node.namespace", "want a namespace of Kubernetes: lower-case letters, digits and '-', at most %d; got %q", maxName, n.Namespace)
	}
	if len(n.Zone) > address.MaxHost {
		k.problem("node.zone", "want at most %d bytes; got %d", address.MaxHost, len(n.Zone))
	}
}

// files checks that the PEM files of t are readable. Their content is checked where they are used.
func (k *checker) files(path string, t TLS) {
	if (t.CertFile == "") != (t.KeyFile == "") {
		k.problem(path, "cert_file and key_file belong together; set both or neither")
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
		if !address.IsHost(h) {
			k.problem(fmt.Sprintf("hosts[%d]", i), "want a host name without port; got %q", h)
		}
	}
}

func (k *checker) log() {
	k.oneOf("log.format", k.config.Log.format(), words["log.format"])
	k.oneOf("log.level", k.config.Log.level(), words["log.level"])
}

// words are the values of the fields that have few. In a path, * stands for the name of an entry.
var words = map[string][]string{
	"membership.role":      {RoleAuto, RoleMember, RoleClient},
	"otlp.ack":             {AckCommitted, AckAccepted},
	"log.format":           {"json", "console"},
	"log.level":            {"debug", "info", "warn", "error"},
	"datasets.*.rows":      {rowsOne, rowsMany},
	"datasets.*.eviction":  {"lru", "slru"},
	"datasets.*.feed.kind": {feedNotify, feedPoll, feedLogical, feedWatch},
	"datasets.*.preset":    {origin.PresetPrometheus},

	"datasets.*.response.cache_control": {honor, ignore},

	"datasets.*.integer_times": {origin.IntegerSeconds, origin.IntegerMilliseconds},
}

func (k *checker) oneOf(path, value string, allowed []string) {
	if !slices.Contains(allowed, value) {
		k.problem(path, "want one of %s; got %q", strings.Join(allowed, ", "), value)
	}
}

// MinMemory is less than any useful limit. It rejects a size without its unit: memory: 128 would mean 128 bytes.
const MinMemory = 1 << 20

func (k *checker) bounds() {
	for path, m := range map[string]Size{"memory": k.config.Memory, "client_memory": k.config.ClientMemory, "otlp.memory": k.config.OTLP.Memory} {
		if m != 0 && m < MinMemory {
			k.problem(path, "want 1MiB or more; got %s (a number without a unit is in bytes)", m)
		}
	}
	if k.config.drainTimeout() > time.Hour {
		k.problem("drain_timeout", "at most 1h; got %s", k.config.drainTimeout())
	}
}

func (k *checker) name(path, n string) {
	if !name.MatchString(n) || len(n) > maxName {
		k.problem(path, "want a name of lower-case letters, digits and '-', at most %[2]d, that does not begin with '-'; got %[1]q", n, maxName)
	}
}
