package membership

import (
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ringside-cache/ringside/ring"
)

func TestOtherSettingsOfTheRingAreExplained(t *testing.T) {
	t.Parallel()
	size := func(id string, least, most uint64) ring.Member {
		return ring.Member{ID: id, Ring: ring.Size{Min: least, Max: most}}
	}
	leaving := size("d", 1, 2)
	leaving.Leaving = true
	core, logs := observer.New(zapcore.WarnLevel)
	s := settings{self: size("a", 1024, 4096), log: zap.New(core)}
	for _, test := range []struct {
		name    string
		list    []ring.Member
		members int64
		example string
		logged  int // in total
	}{
		{"equal, older and leaving members", []ring.Member{s.self, size("b", 1024, 4096), {ID: "old"}, leaving}, 0, "", 0},
		{"max", []ring.Member{size("b", 1024, 8192), size("c", 1024, 8192)}, 2, "ring.max is 8192 on b and 4096 on a", 1},
		{"again", []ring.Member{size("b", 1024, 8192)}, 1, "ring.max is 8192 on b and 4096 on a", 1},
		{"min", []ring.Member{size("b", 1, 4096)}, 1, "ring.min is 1 on b and 1024 on a", 2},
		{"repaired", []ring.Member{s.self, size("b", 1024, 4096)}, 0, "", 2},
	} {
		s.look(test.list)
		if got := s.members.Load(); got != test.members || s.example() != test.example || logs.Len() != test.logged {
			t.Errorf("%s: got %d members, %q, logged %d times; want %d, %q, %d",
				test.name, got, s.example(), logs.Len(), test.members, test.example, test.logged)
		}
	}
}
