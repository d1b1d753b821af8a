package rowset

import (
	"strconv"
	"testing"
)

func FuzzKeyHasOneForm(f *testing.F) {
	for _, seed := range []string{
		"0", "-0", "+1", "01", " 1", "9223372036854775807", "-9223372036854775808", "1e3", "1_000", "٣",
	} {
		f.Add(seed, uint8(64), false)
		f.Add(seed, uint8(16), true)
	}
	f.Fuzz(func(t *testing.T, key string, bits uint8, unsigned bool) {
		parsed, err := KeyType{Bits: 1 + int(bits%64), Unsigned: unsigned}.Parse(key)
		if err != nil {
			return
		}
		if v, ok := parsed.(int64); ok && strconv.FormatInt(v, 10) != key {
			t.Fatalf("%q was parsed as %d", key, v)
		}
		if v, ok := parsed.(uint64); ok && strconv.FormatUint(v, 10) != key {
			t.Fatalf("%q was parsed as %d", key, v)
		}
	})
}
