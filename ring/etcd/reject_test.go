package etcd

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/ring/record"
)

func TestRejectedRecordsAreReportedAndDoNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []string
		d := &Directory{cfg: Config{OnEvent: func(what string, err error) { events = append(events, what+": "+err.Error()) }}}
		table := record.NewTable("/", d.rejectRecord)
		for range 3 {
			for _, addr := range []string{"169.254.169.254:80", "name:1"} {
				table.Put("/a", []byte(`{"id":"a","addr":"`+addr+`"}`), 1)
			}
		}
		if len(events) != 1 || !strings.Contains(events[0], "link-local") || d.Stats().Rejected[record.Invalid] != 6 {
			t.Errorf("got %q, %v, want one line and 6 counted", events, d.Stats().Rejected)
		}
		time.Sleep(reportInterval)
		table.Put("/a", []byte(`{"id":"a","addr":"10.0.0.1:0"}`), 1)
		if len(events) != 2 {
			t.Errorf("got %d lines after %v, want 2", len(events), reportInterval)
		}
	})
}
