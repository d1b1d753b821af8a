package kv

import (
	"testing"
	"time"
)

func TestExemplarsKeepTheLatestOfEachSize(t *testing.T) {
	var x Exemplars
	for i, d := range []time.Duration{-1, 0, 1, time.Microsecond, time.Second, time.Second + 1, time.Hour, 1 << 62} {
		x.Exemplify(d, [16]byte{byte(i)}, [8]byte{})
	}
	got := x.Exemplars()
	if len(got) != 4 || got[0].TraceID[0] != 2 || got[2].TraceID[0] != 5 || got[3].TraceID[0] != 7 {
		t.Errorf("got %+v", got)
	}
}
