package adminapi

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/ring/printable"
)

func TestDecodeMemberHistoryLimitsWhatAMemberSends(t *testing.T) {
	for name, text := range map[string]string{
		"121 intervals": `{"intervals":[` + strings.Repeat(`{},`, HistoryLength) + `{}]}`,
		"201 events":    `{"events":[` + strings.Repeat(`{},`, MaxEvents) + `{}]}`,
		"2 MiB":         `{"events":[{"text":"` + strings.Repeat("x", 2<<20) + `"}]}`,
		"text":          `{"now":"x"}`,
		"empty":         ``,
	} {
		if h, err := DecodeMemberHistory([]byte(text)); err == nil {
			t.Errorf("%s: got %.100v, want an error", name, h)
		}
	}
	h, err := DecodeMemberHistory([]byte(`{"intervals":[{"d":[{"n":"\u001b[2J","c":[-1,9223372036854775807],"t":[[1,-2,3],[4]]}]}],"events":[{"text":"\u202e"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	d := h.Intervals[0].Datasets[0]
	if d.Name != " [2J" || d.Counts[0] != 0 || d.Counts[1] != maxIncrement || len(d.Times[0]) != 2 || d.Times[0][1] != 0 || len(d.Times[1]) != 0 || h.Events[0].Text != " " {
		t.Errorf("got %+v, %+v, want possible values", d, h.Events)
	}
}

func FuzzDecodeMemberHistory(f *testing.F) {
	for _, seed := range []string{`{}`, `null`, `{"now":1,"intervals":[{"n":1,"d":[{"n":"d","c":[1],"t":[[1,2]]}]}],"events":[{"at":"2026-01-01T00:00:00Z","kind":"ring","text":"x"}]}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := DecodeMemberHistory(data)
		if err != nil {
			if printable.Block(err.Error()) != err.Error() {
				t.Errorf("got error %q", err)
			}
			return
		}
		if _, err := json.Marshal(h); err != nil {
			t.Errorf("got a history that JSON cannot encode: %v", err)
		}
		for _, e := range h.Events {
			if printable.Text(e.Text) != e.Text {
				t.Errorf("got text %q", e.Text)
			}
		}
	})
}
