package ring

import (
	"context"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
)

func TestStaticResolveAppliesItsListOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		static := NewStatic([]string{"10.0.0.1:7072", "10.0.0.2:7072"})
		ctx, cancel := context.WithCancel(t.Context())
		var lists [][]Member
		resolved := make(chan error, 1)
		go func() {
			resolved <- static.Resolve(ctx, func(m []Member) {
				lists = append(lists, append([]Member(nil), m...))
				clear(m)
			})
		}()
		synctest.Wait()
		select {
		case err := <-resolved:
			t.Fatalf("Resolve returned %v before its context was done", err)
		default:
		}
		cancel()
		if err := <-resolved; err != nil {
			t.Errorf("Resolve: %v", err)
		}
		want := [][]Member{{
			{ID: "10.0.0.1:7072", HashKey: "10.0.0.1:7072", Addr: "10.0.0.1:7072"},
			{ID: "10.0.0.2:7072", HashKey: "10.0.0.2:7072", Addr: "10.0.0.2:7072"},
		}}
		if !reflect.DeepEqual(lists, want) || !reflect.DeepEqual([]Member(static), want[0]) {
			t.Errorf("applied %v, want %v; the directory has %v", lists, want, static)
		}
	})
}

func TestStaticRegisterBlocksUntilDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		registered := make(chan error, 1)
		go func() {
			registered <- NewStatic([]string{"10.0.0.1:7072"}).Register(ctx, Member{ID: "pod-1", Addr: "10.0.0.1:7072"})
		}()
		synctest.Wait()
		select {
		case err := <-registered:
			t.Fatalf("Register returned %v before its context was done", err)
		default:
		}
		cancel()
		if err := <-registered; err != nil {
			t.Errorf("Register: %v", err)
		}
	})
}

func TestStaticRejectsAnUnlistedMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // fails when Register blocks instead
		err := NewStatic([]string{"10.0.0.1:7072"}).Register(t.Context(), Member{ID: "pod-2", Addr: "10.0.0.2:7072"})
		if err == nil || !strings.Contains(err.Error(), "10.0.0.2:7072") {
			t.Errorf("Register: %v", err)
		}
	})
}
