package inspect

import (
	"math"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Names of members, zones and reasons come from other programs.
func TestEscapesReachNoTerminal(t *testing.T) {
	const bad = "a\x1b]0;title\x07\x1b[2J\u202e"
	var out strings.Builder
	xds := &adminapi.XDS{Version: bad, LastNACK: &adminapi.NACK{Client: bad, Resource: bad, Reason: bad}}
	err := printRing(&out, adminapi.RingState{
		ID: bad, Self: bad, XDS: xds, Directory: adminapi.Directory{Kind: bad, Detail: bad},
		Members: []adminapi.RingMember{{ID: bad, Addr: bad, Zone: bad, Version: bad, Share: math.NaN()}, {ID: "b", Share: math.Inf(1)}},
	})
	if err == nil {
		err = printExplanation(&out, adminapi.Explanation{
			RouteKey: bad, RingID: bad, Node: bad, Owner: bad, Successors: []string{bad}, XDS: xds,
			Memory: kv.Explanation{Held: true, Local: true, Owner: bad, Why: bad, ETag: bad},
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	if text := out.String(); printable.Block(text) != text || strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
		t.Errorf("printed %q", text)
	}
}
