package origin_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

func TestKeyTextOfComponents(t *testing.T) {
	for _, c := range []struct {
		components []string
		want       string
	}{
		{[]string{"a/b %"}, "a/b %"},
		{[]string{"example.org", "alice"}, "example.org/alice"},
		{[]string{"", "alice"}, "/alice"},
		{[]string{"", ""}, "/"},
		{[]string{"a/b", "100%", "%2F"}, "a%2Fb/100%25/%252F"},
		{[]string{"ü ", "\xff"}, "ü /\xff"},
	} {
		if got := origin.JoinKey(c.components...); got != c.want {
			t.Errorf("%q is %q; want %q", c.components, got, c.want)
		}
	}
}

func TestSplitKeyNamesTheColumns(t *testing.T) {
	columns := []string{"realm", "username"}
	for key, want := range map[string]string{
		"alice": "1 of 2 components: want realm/username", "a/b/c": "3 of 2", "": "1 of 2", "a%2fb/c": "component realm", "a/%": "component username",
		"a/%41": "component username", "a%/b": "write % as %25",
	} {
		if got, err := origin.SplitKey(key, columns); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q, %v; want an error with %q", key, got, err, want)
		}
	}
}

func FuzzKeyText(f *testing.F) {
	for _, key := range []string{"", "/", "a/b", "a%2Fb/100%25", "%252F/x", "a%2fb/c", "a/b/c", "%", "%2", "\x00\xff/é"} {
		f.Add(key, key)
	}
	columns := []string{"a", "b"}
	f.Fuzz(func(t *testing.T, a, b string) {
		if got, err := origin.SplitKey(origin.JoinKey(a, b), columns); err != nil || !slices.Equal(got, []string{a, b}) {
			t.Errorf("%q and %q are the key %q, which is %q, %v", a, b, origin.JoinKey(a, b), got, err)
		}
		components, err := origin.SplitKey(a, columns)
		if err == nil && origin.JoinKey(components...) != a {
			t.Errorf("%q was split into %q, which are the key %q", a, components, origin.JoinKey(components...))
		}
		if got, err := origin.SplitKey(a, columns[:1]); err != nil || got[0] != a || origin.JoinKey(a) != a {
			t.Errorf("the key %q of one column was split into %q, %v", a, got, err)
		}
	})
}
