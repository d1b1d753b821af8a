package decode

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes; 0 is written "auto".
type Size int64

// units of Size, longest first so that "MiB" is not taken for "B". Decimal and binary prefixes as in IEC 80000-13.
var units = []struct {
	name  string
	bytes float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9},
	{"TiB", 1 << 40}, {"TB", 1e12},
	{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40}, {"B", 1}, {"", 1},
}

// UnmarshalText reads "auto", or a number with a unit: 128MiB, 1.5GiB, 100MB, 128Mi.
func (s *Size) UnmarshalText(text []byte) error {
	t := strings.TrimSpace(string(text))
	if t == "auto" || t == "" {
		*s = 0
		return nil
	}
	for _, u := range units {
		number, ok := strings.CutSuffix(t, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if n *= u.bytes; err != nil || !(n >= 1) || math.IsInf(n, 1) {
			break
		}
		if n >= math.MaxInt64 {
			return fmt.Errorf("%s is too large; at most %dTiB", t, math.MaxInt64>>40)
		}
		*s = Size(n)
		return nil
	}
	return fmt.Errorf("want a size such as 128MiB or 1GiB, or auto; got %q", t)
}

// MarshalText writes the size with the largest binary unit that divides it.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s Size) String() string {
	if s == 0 {
		return "auto"
	}
	for i := 2; i >= 0; i-- {
		if u := int64(units[i].bytes); int64(s)%u == 0 {
			return fmt.Sprintf("%d%s", int64(s)/u, units[i].name)
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// Share is a part of a whole, 0 to 1, written as a percentage.
type Share float64

// UnmarshalText reads a percentage, 0% to 100%, or a plain fraction, 0 to 1.
func (s *Share) UnmarshalText(text []byte) error {
	number, percent := strings.CutSuffix(strings.TrimSpace(string(text)), "%")
	n, err := strconv.ParseFloat(number, 64)
	if percent {
		n /= 100
	}
	if err != nil || !(n >= 0 && n <= 1) {
		return fmt.Errorf("want a percentage from 0%% to 100%%; got %q", text)
	}
	*s = Share(n)
	return nil
}

// MarshalText writes the share as a percentage.
func (s Share) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s Share) String() string { return strconv.FormatFloat(float64(s)*100, 'g', 6, 64) + "%" }

// OneOrMore is a list that may be written as a single value: realm, or [realm, name].
type OneOrMore []string

// UnmarshalText reads a single value, or several with commas between them.
func (l *OneOrMore) UnmarshalText(text []byte) error {
	*l = splitList(string(text))
	return nil
}

// MarshalYAML writes a list of one as a single value; null is an empty list.
func (l OneOrMore) MarshalYAML() (any, error) {
	if len(l) == 1 && !strings.Contains(l[0], ",") {
		return l[0], nil
	}
	return []string(l), nil
}
