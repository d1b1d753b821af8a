package changes

import (
	"encoding/json"
	"testing"
)

func FuzzParseMessage(f *testing.F) {
	for _, seed := range []string{
		`{"d":"rows","k":"a","v":1}`, `{"all":true}`, `{"ping":"X"}`, `{"k":null}`, `{"k":"\ud800"}`, `{"k":"cut`,
		"", "[]", "\xff",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		l := &listener{dataset: "rows", name: "me", awaited: true}
		l.add(payload)
		m, ok := parseMessage(payload)
		if ok != json.Valid([]byte(payload)) && ok {
			t.Fatalf("%q was accepted", payload)
		}
		if !ok && !l.pending.Missed {
			t.Fatalf("%q was ignored", payload)
		}
		if !l.awaited && m.Ping != "me" {
			t.Fatalf("%q was accepted as a ping", payload)
		}
		for key := range l.pending.Versions {
			if m.Key == nil || key != *m.Key {
				t.Fatalf("%q reported %q", payload, key)
			}
		}
	})
}
