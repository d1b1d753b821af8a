package datasets

import (
	"testing"

	"github.com/ringside-cache/ringside/sidecar/config"
)

func TestMemoryIsDividedByShares(t *testing.T) {
	got := divide(1000, map[string]config.Dataset{"a": {MemoryShare: new(config.Share(.5))}, "b": {}, "c": {}})
	if got["a"] != 500 || got["b"] != 250 || got["c"] != 250 {
		t.Errorf("got %v", got)
	}
}
