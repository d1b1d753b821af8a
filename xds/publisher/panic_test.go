package publisher

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestPanicOfAClientsStreamEndsThatStreamAlone(t *testing.T) {
	var reported string
	p := &Publisher{config: Config{Defect: func(err error) { reported = err.Error() }}}
	err := p.recovered(func() error { panic("canary") })
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "canary") {
		t.Errorf("got error %v, want INTERNAL without the text of the panic", err)
	}
	if !strings.Contains(reported, "canary") || !strings.Contains(reported, "goroutine") {
		t.Errorf("reported %q, want the panic and its stack", reported)
	}
	want := context.Canceled
	if err := p.recovered(func() error { return want }); err != want {
		t.Errorf("got %v, want the error of the handler", err)
	}
}
