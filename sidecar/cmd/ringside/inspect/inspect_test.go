package inspect

import (
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func TestExplainShowsHowLongANegativeEntryIsUsable(t *testing.T) {
	var out strings.Builder
	e := adminapi.Explanation{Memory: kv.Explanation{Held: true, Absent: true, Fresh: time.Second, Usable: -time.Hour}}
	if err := printExplanation(&out, e); err != nil {
		t.Fatal(err)
	}
	if want := "usable for  1s\n"; !strings.Contains(out.String(), want) {
		t.Errorf("printed %q, want %q in it", out.String(), want)
	}
}
