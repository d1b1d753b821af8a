package api

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestDeadlineIsLazyAndReusedOnlyIfNothingWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := new(Deadline)
		d.Reset(context.Background(), time.Now().Add(time.Second))
		if !d.Stop() {
			t.Error("not reusable although nothing waited")
		}
		d.Reset(context.Background(), time.Now().Add(time.Second))
		child, cancel := context.WithTimeout(d, time.Hour)
		defer cancel()
		<-child.Done()
		if !errors.Is(d.Err(), context.DeadlineExceeded) || !errors.Is(child.Err(), context.DeadlineExceeded) {
			t.Errorf("%v, %v", d.Err(), child.Err())
		}
		if d.Stop() {
			t.Error("reusable although a child waits")
		}
		parent, cancelParent := context.WithTimeout(context.Background(), time.Minute)
		late := new(Deadline)
		late.Reset(parent, time.Now().Add(time.Hour))
		if at, _ := late.Deadline(); time.Until(at) > time.Minute {
			t.Error("the earlier deadline of the parent is ignored")
		}
		cancelParent()
		<-late.Done()
		if !errors.Is(late.Err(), context.Canceled) {
			t.Errorf("after the parent: %v", late.Err())
		}
	})
}
