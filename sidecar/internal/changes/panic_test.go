package changes

import (
	"context"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

type panicking struct{ origin.Feed }

func (panicking) Follow(context.Context, func(origin.Changes)) error { panic("canary") }

func TestPanicOfAFeedBreaksTheFeed(t *testing.T) {
	err := recovering{panicking{}}.Follow(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "canary") || !strings.Contains(err.Error(), "goroutine") {
		t.Errorf("got error %v, want the panic and its stack", err)
	}
}
