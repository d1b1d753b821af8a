package origin

import (
	"context"
	"fmt"
)

// Streamer is an Origin that passes each result on as soon as it has it, so that the values of a large Load are not in
// memory all at once. It is implemented beside Load.
type Streamer interface {
	// LoadEach reads keys as Load does, and calls yield with the index and the result of each. The calls do not overlap, and
	// none follows the return. yield must not block. An error is the result of the keys that had none. A key may have a
	// second result that is an error: then its first one is not valid, such as one row of several.
	LoadEach(ctx context.Context, keys []string, yield func(i int, r Result)) error
}

// LoadEach calls LoadEach of o, or Load if o is no Streamer.
func LoadEach(ctx context.Context, o Origin, keys []string, yield func(i int, r Result)) error {
	if s, ok := o.(Streamer); ok {
		return s.LoadEach(ctx, keys, yield)
	}
	results, err := o.Load(ctx, keys)
	if err == nil && len(results) != len(keys) {
		err = fmt.Errorf("the origin returned %d results for %d keys", len(results), len(keys))
	}
	if err != nil {
		return err
	}
	for i, r := range results {
		yield(i, r)
	}
	return nil
}

// Collect implements Load by LoadEach.
func Collect(ctx context.Context, s Streamer, keys []string) ([]Result, error) {
	results, has, n := make([]Result, len(keys)), make([]bool, len(keys)), 0
	err := s.LoadEach(ctx, keys, func(i int, r Result) { results[i], has[i], n = r, true, n+1 })
	if err != nil && n == 0 {
		return nil, err
	}
	for i := range results {
		if err != nil && !has[i] {
			results[i].Err = err
		}
	}
	return results, nil
}
