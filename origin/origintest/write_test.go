package origintest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
)

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestFaultsOfWrites(t *testing.T) {
	errDown := errors.New("down")
	for name, c := range map[string]struct {
		fault   func(*origintest.Fake)
		want    error
		written bool
	}{
		"fails before":              {func(f *origintest.Fake) { f.FailWrites(errDown) }, errDown, false},
		"answer lost":               {func(f *origintest.Fake) { f.LoseAnswers(true) }, origin.ErrUnknown, true},
		"slow":                      {func(f *origintest.Fake) { f.Slow(time.Hour) }, context.DeadlineExceeded, false},
		"blocked before":            {func(f *origintest.Fake) { f.BlockWrites() }, context.DeadlineExceeded, false},
		"blocked before its answer": {func(f *origintest.Fake) { f.BlockAnswers() }, origin.ErrUnknown, true},
		"released":                  {func(f *origintest.Fake) { f.BlockWrites()(); f.BlockAnswers()() }, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := origintest.New(map[string]string{"a": "old"})
				c.fault(f)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err := f.Write(ctx, origin.Change{Key: "a", Data: []byte("new")})
				if !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
				f.Slow(0)
				results, err := f.Load(soon(t), []string{"a"})
				if err != nil || (string(results[0].Value.Data) == "new") != c.written {
					t.Errorf("the row is %q, %v", results[0].Value.Data, err)
				}
				if f.Writes() != 1 || f.Flying() != 0 {
					t.Error("got wrong counts")
				}
			})
		})
	}
}

func TestFakeChecksItsWriter(t *testing.T) {
	for name, c := range map[string]origin.Change{
		"empty key":            {Data: []byte("x")},
		"two conditions":       {Key: "a", If: origin.Condition{Absent: true, Version: 1}},
		"deletion with value":  {Key: "a", Delete: true, Data: []byte("x")},
		"deletion of nothing":  {Key: "a", Delete: true, If: origin.Condition{Absent: true}},
		"context without time": {Key: "a"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := soon(t)
			if name == "context without time" {
				ctx = t.Context()
			}
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			_, _ = origintest.New(nil).Write(ctx, c)
		})
	}
}

func TestFakeConformsAsAWriter(t *testing.T) {
	origintest.ConformanceWriter(t, origintest.WriterSubject{
		New: func(_ *testing.T, rows map[string]string) origintest.Rows { return origintest.New(rows) },
		Unversioned: func(*testing.T) origintest.Rows {
			f := origintest.New(map[string]string{"a": "old"})
			f.Unversioned()
			return f
		},
		Stuck: func(*testing.T) (origintest.Rows, func()) {
			f := origintest.New(map[string]string{"a": "old"})
			return f, f.BlockWrites()
		},
	})
}
