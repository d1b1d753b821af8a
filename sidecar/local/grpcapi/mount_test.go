package grpcapi_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

func TestMountedCallsHaveDeadlineCountersAndPanicHandling(t *testing.T) {
	s := localtest.Start(t, local.Config{CNFMetrics: localtest.Mounted{}, RequestTimeout: time.Second})
	for name, want := range map[string]codes.Code{"": codes.OK, "panic": codes.Internal, "wait": codes.Aborted} {
		for _, address := range []string{s.GRPC, "unix:" + s.Unix} {
			if err := localtest.CallMounted(t, address, name); status.Code(err) != want || strings.Contains(fmt.Sprint(err), "canary") {
				t.Errorf("%q: %v, want %v", name, err, want)
			}
		}
	}
	if n, _, _ := s.Stats().GRPC.Duration.Snapshot(); n != 3 {
		t.Errorf("%d calls were counted", n)
	}
	if n := s.Config().Errors.Defects(); n != 2 {
		t.Errorf("%d defects", n)
	}
}
