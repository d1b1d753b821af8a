package changes

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/ringside-cache/ringside/origin"
)

// recovering turns a feed into one whose panics, which the content of a database may cause, are errors: the feed breaks and is
// read again. On the goroutine of a reader they would end the process.
type recovering struct{ origin.Feed }

// Follow implements origin.Feed.
func (r recovering) Follow(ctx context.Context, handle func(origin.Changes)) (err error) {
	defer recovered(&err)
	return r.Feed.Follow(ctx, handle)
}

// panicError is a panic of a feed.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string {
	return fmt.Sprintf("panic while reading a change feed: %v", e.value)
}

// PanicStack returns where the panic was raised, for a log.
func (e *panicError) PanicStack() []byte { return e.stack }

// recovered sets err to the panic of the function that defers it.
func recovered(err *error) {
	if p := recover(); p != nil { //guard:panic-of-feed-ends-process
		*err = &panicError{p, debug.Stack()}
	}
}
