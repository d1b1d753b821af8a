package etcd

import (
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ringside-cache/ringside/ring/record"
)

// legacy is the key LEGACY_PREFIX/ADDR, by which clients of the cache before Ringside find a member. It is zero without
// Config.LegacyPrefix.
type legacy struct{ key, value string }

func (d *Directory) legacyOf(addr string) (legacy, error) {
	if d.cfg.LegacyPrefix == "" {
		return legacy{}, nil
	}
	value, err := record.Endpoint(addr)
	return legacy{key: d.cfg.LegacyPrefix + "/" + addr, value: value}, err
}

func (l legacy) put(lease clientv3.LeaseID) []clientv3.Op {
	if l.key == "" {
		return nil
	}
	return []clientv3.Op{clientv3.OpPut(l.key, l.value, clientv3.WithLease(lease))}
}

// published compares the value, not the lease: two pods may have the same address for a moment, and must not take the key
// from each other again and again.
func (l legacy) published() []clientv3.Cmp {
	if l.key == "" {
		return nil
	}
	return []clientv3.Cmp{clientv3.Compare(clientv3.Value(l.key), "=", l.value)}
}

// remove keeps a key that another pod with the same address has written since.
func (l legacy) remove(lease clientv3.LeaseID) []clientv3.Op {
	if l.key == "" {
		return nil
	}
	return []clientv3.Op{clientv3.OpTxn(
		[]clientv3.Cmp{heldBy(l.key, lease)}, []clientv3.Op{clientv3.OpDelete(l.key)}, nil)}
}

func (c *Config) checkLegacyPrefix() error {
	switch {
	case c.LegacyPrefix == "":
		return nil
	case !record.Printable(c.LegacyPrefix, 1, record.MaxPrefix):
		return fmt.Errorf("legacy prefix %q: want at most %d printable ASCII characters", c.LegacyPrefix, record.MaxPrefix)
	case within(c.LegacyPrefix, c.Prefix) || within(c.Prefix, c.LegacyPrefix):
		return fmt.Errorf("legacy prefix %q overlaps the prefix %q: choose another",
			c.LegacyPrefix, c.Prefix)
	}
	return nil
}

func within(prefix, other string) bool { return strings.HasPrefix(prefix+"/", other+"/") }
