package origintest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/origin"
)

// List implements origin.Lister. A row whose value is not a JSON object has no columns. It waits and fails as a Load does, and
// panics on a limit that is not 1 to 1000 or a context without a deadline.
func (f *Fake) List(ctx context.Context, q origin.ListQuery) ([]origin.Row, error) {
	if _, ok := ctx.Deadline(); !ok {
		panic("origintest: List without a deadline")
	}
	if q.Limit < 1 || q.Limit > 1000 {
		panic(fmt.Sprintf("origintest: List of %d rows", q.Limit))
	}
	_, wait, err := f.begin(nil)
	defer f.end()
	rows := f.list(q)
	if err := wait(ctx); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	return rows, nil
}

func (f *Fake) list(q origin.ListQuery) (rows []origin.Row) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(f.rows)) {
		if len(rows) == q.Limit {
			break
		}
		if key > q.After && matches(f.rows[key].Data, q.Where) {
			rows = append(rows, origin.Row{Key: key, Value: f.readLocked(key).Value})
		}
	}
	return rows
}

func matches(row []byte, where map[string]string) bool {
	var columns map[string]any
	if len(where) == 0 {
		return true
	}
	if err := json.Unmarshal(row, &columns); err != nil {
		return false
	}
	for name, want := range where {
		if columns[name] != want {
			return false
		}
	}
	return true
}

// ListKeys implements origin.KeyLister. It waits and fails as a Load does.
func (f *Fake) ListKeys(ctx context.Context, prefix string, yield func(key string) bool) error {
	_, wait, err := f.begin(nil)
	defer f.end()
	f.mu.Lock()
	f.lists++
	keys := slices.Collect(maps.Keys(f.rows))
	f.mu.Unlock()
	if err := wait(ctx); err != nil {
		return err
	}
	if err != nil {
		return err
	}
	for _, key := range keys {
		if strings.HasPrefix(key, prefix) && !yield(key) {
			break
		}
	}
	return nil
}

// Lists returns how often keys were listed.
func (f *Fake) Lists() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lists
}
