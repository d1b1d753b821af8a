package membership

import (
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ringside-cache/ringside/ring"
)

func TestDuplicateOfIDOrAddressIsLoggedOnce(t *testing.T) {
	t.Parallel()
	now := time.Now()
	self := ring.Member{ID: "a", Addr: "127.0.0.1:1", Started: now}
	for _, test := range []struct {
		other  ring.Member
		logged int
	}{
		{ring.Member{ID: "a", Addr: "127.0.0.1:2", Started: now.Add(time.Second)}, 1},
		{ring.Member{ID: "b", Addr: "127.0.0.1:1", Started: now.Add(time.Second)}, 1},
		{ring.Member{ID: "b", Addr: "127.0.0.1:1", Started: now.Add(-time.Second)}, 0}, // its own record from before a restart
		{ring.Member{ID: "b", Addr: "127.0.0.1:2", Started: now.Add(time.Second)}, 0},
		{self, 0},
	} {
		core, logs := observer.New(zapcore.WarnLevel)
		d := duplicates{self: self, log: zap.New(core)}
		for range 3 {
			d.look([]ring.Member{test.other})
		}
		if logs.Len() != test.logged {
			t.Errorf("%v: logged %d times, want %d", test.other, logs.Len(), test.logged)
		}
	}
}
