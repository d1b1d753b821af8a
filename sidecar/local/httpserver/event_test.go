package httpserver

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/watch"
)

// FuzzEvent parses what is written: no value, key or token can add an event.
func FuzzEvent(f *testing.F) {
	f.Add("a", []byte(`{"v":1}`), true)
	f.Add("k\n\nevent: reset\ndata: x", []byte("line\r\nid: 7\r\n\r\n"), false)
	f.Add("é\x00", []byte("{\"v\":\"\u2028\"}"), true)
	server := newServer(f)
	f.Fuzz(func(t *testing.T, key string, value []byte, isJSON bool) {
		conn := &tape{in: strings.NewReader("")}
		d := api.Served{JSON: isJSON}
		w := newEventWriter(server.newConn(conn), d)
		result := kv.Result{Answer: kv.Answer{Value: value, ETag: `"e"`, Source: kv.SourceHit}}
		want, err := server.handler.MarshalEntry(d, key, result)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range []watch.Event{
			{Kind: watch.State, Key: key, Token: "t1", Result: result},
			{Kind: watch.Current, Token: "t2"},
		} {
			if err := w.Send(e); err != nil {
				t.Fatal(err)
			}
		}
		lines := bufio.NewReader(&conn.out)
		first := nextEvent(t, lines)
		var got, sent any
		if first[0] != "event: state" || first[1] != "id: t1" || len(first) != 3 {
			t.Fatalf("got %q", first)
		}
		data := strings.TrimPrefix(first[2], "data: ")
		if json.Unmarshal([]byte(data), &got) != nil || json.Unmarshal(want, &sent) != nil ||
			fmt.Sprint(got) != fmt.Sprint(sent) {
			t.Errorf("got %q, want %q", data, want)
		}
		if second := nextEvent(t, lines); !slices.Equal(second, []string{"event: current", "id: t2", "data: {}"}) {
			t.Errorf("got %q", second)
		}
		if rest, err := lines.ReadString('\n'); err != io.EOF {
			t.Errorf("got %q after the last event", rest)
		}
	})
}

// nextEvent returns the lines of an event. A line ends with CR, LF or both (WHATWG HTML, 9.2.6).
func nextEvent(t *testing.T, r *bufio.Reader) (lines []string) {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if err != nil || strings.Contains(line, "\r") {
			t.Fatalf("line %q: %v", line, err)
		}
		if line == "\n" {
			return lines
		}
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
}
