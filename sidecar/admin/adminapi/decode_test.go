package adminapi

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/ring/printable"
)

func TestDecodeStateLimitsWhatAMemberSends(t *testing.T) {
	for name, text := range map[string]string{
		"100 000 datasets": `{"datasets":[` + strings.Repeat(`{},`, 100_000) + `{}]}`,
		"1001 datasets":    `{"datasets":[` + strings.Repeat(`{},`, MaxDatasets) + `{}]}`,
		"21 hot keys":      `{"hot_keys":[` + strings.Repeat(`{},`, MaxHotKeys) + `{}]}`,
		"2 MiB":            `{"node":"` + strings.Repeat("x", 2<<20) + `"}`,
		"deep":             `{"datasets":` + strings.Repeat("[", 100_000),
		"number as text":   `{"node":7}`,
		"Inf":              `{"datasets":[{"hits":1e999}]}`,
		"NaN":              `{"datasets":[{"hits":NaN}]}`,
		"empty":            ``,
		"escape":           "\x1b[2J",
	} {
		if s, err := DecodeState([]byte(text)); err == nil || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: got %.100v, error %v, want a printable error", name, s, err)
		}
	}
	s, err := DecodeState([]byte(`{"node":"a\u001b[2J","version":"\u202e","uptime_ns":-1,"datasets":[{"name":"\u0007","hits":-5,"bytes":9223372036854775807}]}`))
	if err != nil || s.Node != "a [2J" || s.Version != " " || s.Uptime != 0 || len(s.Datasets) != 1 {
		t.Fatalf("got %+v, error %v", s, err)
	}
	if d := s.Datasets[0]; d.Name != " " || d.Hits != 0 || d.Bytes != maxCounter || d.Reads() != 0 {
		t.Errorf("got %+v, want possible values", d)
	}
	s, err = DecodeState([]byte(`{"hot_keys":[{"dataset":"d","key":"\u001b[2J","key_bytes":-1,"fetches_per_second":-2}]}`))
	if want := (HotKey{Dataset: "d", Key: " [2J"}); err != nil || len(s.HotKeys) != 1 || s.HotKeys[0] != want {
		t.Errorf("got %+v, error %v, want %+v", s, err, want)
	}
	for _, none := range []string{`{}`, `{"datasets":null}`, `{"datasets":{}}`} {
		if s, err := DecodeState([]byte(none)); err != nil || len(s.Datasets) != 0 || s.Datasets == nil {
			t.Errorf("%s: got %+v, error %v", none, s, err)
		}
	}
}

func TestDecodedStateIsWhatWasSent(t *testing.T) {
	want := State{Node: "n", Version: "v1", RingID: "00ff", Uptime: 7, Datasets: []DatasetState{{Name: "d", Hits: 1, MaxBytes: 2, FeedGap: true}}}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeState(text)
	if err != nil || len(got.Datasets) != 1 || got.Datasets[0] != want.Datasets[0] || got.Node != "n" || got.RingID != "00ff" || got.Uptime != 7 {
		t.Errorf("got %+v, error %v, want %+v", got, err, want)
	}
}

func FuzzDecodeState(f *testing.F) {
	for _, seed := range []string{`{}`, `{"node":"\u001b","datasets":[{"name":"\u202e","hits":-1}]}`, `{"datasets":[{}]}`, `[`, `{"datasets":[1]}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeState(data)
		if err != nil {
			if printable.Block(err.Error()) != err.Error() {
				t.Errorf("got error %q", err)
			}
			return
		}
		if _, err := json.Marshal(s); err != nil {
			t.Errorf("got a state that JSON cannot encode: %v", err)
		}
		if len(s.Datasets) > MaxDatasets || printable.Text(s.Node+s.Version) != s.Node+s.Version && len(s.Node+s.Version) <= printable.MaxText {
			t.Errorf("got %+v", s)
		}
	})
}

func FuzzDecodeKeyState(f *testing.F) {
	for _, seed := range []string{`{}`, `null`, `{"next_read":"\u001b","memory":{"cached":true,"age_ns":-1,"next":{"action":"x"}}}`, `[`, `{"origin":1}`, `{"policy":{"ttl_jitter":1e308}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeKeyState(data)
		if err != nil {
			if s != nil || printable.Block(err.Error()) != err.Error() {
				t.Errorf("got %+v, error %q", s, err)
			}
			return
		}
		if _, err := json.Marshal(s); err != nil {
			t.Errorf("got a state that JSON cannot encode: %v", err)
		}
		for _, text := range []string{s.NextRead, s.Version, s.Memory.ETag, string(s.Memory.Next.Action), s.Origin.Name} {
			if printable.Text(text) != text {
				t.Errorf("got text %q", text)
			}
		}
	})
}
