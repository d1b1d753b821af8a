package respserver

import (
	"cmp"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"

	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

const (
	// minScan and maxScan bound how many keys one SCAN looks at.
	minScan, maxScan = 10, 1000
	// maxScanParts bounds the empty parts of memory that one SCAN looks at.
	maxScanParts = 64
	// maxPattern bounds MATCH: matching takes the product of the lengths of pattern and key.
	maxPattern = 256
)

// position is where a SCAN goes on: in a part of the memory of a dataset, in the order of the hashes of its keys, so that keys
// which stay cached are returned however many others come and go. As a cursor it has 53 bits, which every client can keep.
type position struct {
	dataset, part int
	hash          uint32
}

func parsePosition(cursor string) (p position, ok bool) {
	n, err := strconv.ParseUint(cursor, 10, 64)
	return position{int(n >> 42), int(n >> 32 & 1023), uint32(n)}, err == nil && n < 1<<53
}

func (p position) String() string {
	return strconv.FormatUint(uint64(p.dataset)<<42|uint64(p.part)<<32|uint64(p.hash), 10)
}

// scan handles SCAN cursor [MATCH pattern] [COUNT n] [TYPE type].
func (c *conn) scan(a arguments) {
	at, ok := parsePosition(a.View(1))
	if !ok {
		c.err("invalid cursor")
		return
	}
	pattern, count := "", minScan
	for i := 2; i < a.Len(); i += 2 {
		if i+1 == a.Len() {
			c.err("syntax error")
			return
		}
		value := a.View(i + 1)
		switch strings.ToUpper(short(a.View(i))) {
		case "MATCH":
			pattern = strings.Clone(value)
		case "COUNT":
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 {
				c.err("COUNT is not a positive number")
				return
			}
			count = min(max(n, minScan), maxScan)
		case "TYPE":
			ok = strings.EqualFold(value, "string")
		default:
			c.err("syntax error: SCAN supports MATCH, COUNT and TYPE")
			return
		}
	}
	if len(pattern) > maxPattern {
		c.err("the pattern is too long")
		return
	}
	next, keys := position{}, []string(nil)
	if ok { // nothing has another type than string
		next, keys = c.scanFrom(at, count)
	}
	keys = slices.DeleteFunc(keys, func(key string) bool { return pattern != "" && !matches(pattern, key) })
	c.array(2)
	c.text(next.String())
	c.array(len(keys))
	for _, key := range keys {
		c.text(key)
	}
}

// scanFrom returns about count keys from a position on, with their datasets, and the position after them; the zero position at
// the end.
func (c *conn) scanFrom(at position, count int) (next position, keys []string) {
	all := c.server.backend.Datasets.All()
	for range maxScanParts {
		if at.dataset >= len(all) {
			return position{}, keys
		}
		d := all[at.dataset]
		if !d.Gate.Permits(c.caller, access.Read, c.authorization) { //guard:keys-of-other-datasets-are-listed
			at = position{dataset: at.dataset + 1}
			continue
		}
		var found []string
		found, at = c.server.scanPart(d, at, count-len(keys))
		for _, key := range found {
			keys = append(keys, d.Name()+":"+key)
		}
		if len(keys) >= count {
			break
		}
	}
	if at.dataset >= len(all) {
		return position{}, keys
	}
	return at, keys
}

// scanPart returns at least count keys of the part of at, or the last ones, and the position after them. It lists the keys of
// the part, so that one at a time does.
func (s *Server) scanPart(d api.Served, at position, count int) (keys []string, next position) {
	s.scanning.Lock()
	defer s.scanning.Unlock()
	all, parts := d.CachedKeys(at.part)
	type hashed struct {
		key  string
		hash uint32
	}
	var left []hashed
	for _, key := range all {
		if h := crc32.ChecksumIEEE([]byte(key)); h >= at.hash {
			left = append(left, hashed{key, h})
		}
	}
	slices.SortFunc(left, func(a, b hashed) int { return cmp.Compare(a.hash, b.hash) })
	for i, k := range left {
		if i >= count && k.hash != left[i-1].hash {
			return keys, position{at.dataset, at.part, k.hash}
		}
		keys = append(keys, k.key)
	}
	if at.part+1 < parts {
		return keys, position{dataset: at.dataset, part: at.part + 1}
	}
	return keys, position{dataset: at.dataset + 1}
}

// matches reports whether s matches a pattern of Redis: *, ?, [a-c], [^a], and \ before a character that means itself.
func matches(pattern, s string) bool {
	star, from := -1, 0 // the last star, and where what it stands for ends
	p, i := 0, 0
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			star, from = p, i
			p++
			continue
		}
		if n, ok := matchOne(pattern[p:], s[i]); ok {
			p, i = p+n, i+1
			continue
		}
		if star < 0 {
			return false
		}
		from++
		p, i = star+1, from
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// matchOne reports whether b matches what begins a pattern, and how long that is.
func matchOne(pattern string, b byte) (n int, ok bool) {
	switch {
	case pattern == "":
		return 0, false
	case pattern[0] == '?':
		return 1, true
	case pattern[0] == '[':
		return matchClass(pattern, b)
	case pattern[0] == '\\' && len(pattern) > 1:
		return 2, pattern[1] == b
	}
	return 1, pattern[0] == b
}

// matchClass is matchOne for [...]. A class that is not closed ends with the pattern.
func matchClass(pattern string, b byte) (n int, ok bool) {
	i := 1
	negated := i < len(pattern) && pattern[i] == '^'
	if negated {
		i++
	}
	for ; i < len(pattern) && pattern[i] != ']'; i++ {
		if pattern[i] == '\\' && i+1 < len(pattern) {
			i++
		}
		low, high := pattern[i], pattern[i]
		if i+2 < len(pattern) && pattern[i+1] == '-' && pattern[i+2] != ']' {
			low, high = min(low, pattern[i+2]), max(low, pattern[i+2])
			i += 2
		}
		ok = ok || low <= b && b <= high
	}
	return min(i+1, len(pattern)), ok != negated
}
