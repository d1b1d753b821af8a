package etcd

import (
	"fmt"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/ring/record"
)

func TestTimeBetweenChecksGrowsWithTheDirectory(t *testing.T) {
	for n, want := range map[int]time.Duration{
		0: 30 * time.Second, 1000: 30 * time.Second, record.MaxMembers: 300 * time.Second,
	} {
		f := watcher{d: &Directory{timing: defaultTiming()}, table: record.NewTable("", nil)}
		for i := range n {
			id := fmt.Sprint(i)
			full, _, err := record.Encode(member(id, i+1))
			if err != nil {
				t.Fatal(err)
			}
			f.table.Put(id, []byte(full), 1)
		}
		if got := f.checkAfter(); got < want*4/5 || got > want {
			t.Errorf("%d members: got the next check after %v, want %v to %v", n, got, want*4/5, want)
		}
	}
}
