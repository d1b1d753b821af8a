package top

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
)

// Names of members and datasets, and counters, come from other programs.
func TestEscapesAndImpossibleNumbersReachNoTerminal(t *testing.T) {
	const bad = "a\x1b]0;title\x07\x1b[2J\u202e"
	state := adminapi.State{Node: bad, RingID: bad, Datasets: []adminapi.DatasetState{{Name: bad, Hits: -7, Bytes: -1}},
		HotKeys: []adminapi.HotKey{{Dataset: bad, Key: bad + strings.Repeat("ä", 100), KeyBytes: 1000, Rate: 7}}}
	body, err := json.Marshal(adminapi.ClusterState{RingID: bad, Self: bad, Members: []adminapi.MemberState{
		{ID: bad, Addr: bad, State: &state}, {ID: "b", Unreachable: bad},
	}})
	if err != nil {
		t.Fatal(err)
	}
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }))
	defer admin.Close()
	for _, arg := range []string{"--output=text", "--output=json"} {
		var out bytes.Buffer
		cmd := Command()
		cmd.SetArgs([]string{"--admin=" + strings.TrimPrefix(admin.URL, "http://"), "--once", arg, "--interval=500ms"})
		cmd.SetOut(&out)
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			t.Fatalf("%s: %v", arg, err)
		}
		if text := out.String(); printable.Block(text) != text || strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
			t.Errorf("%s: printed %q", arg, text)
		}
		if text := out.String(); arg == "--output=text" && (!strings.Contains(text, "HOT KEY") || !strings.Contains(text, "… (1000 bytes)") || strings.Count(text, "ä") > maxShownKey) {
			t.Errorf("printed %q, want the begin of the hot key", text)
		}
	}
}
