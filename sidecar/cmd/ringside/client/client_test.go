package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// execute runs one command against server.
func execute(ctx context.Context, server *httptest.Server, args ...string) error {
	root := &cobra.Command{Use: "ringside", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(Commands()...)
	root.SetArgs(append(args, "--http", server.Listener.Addr().String()))
	root.SetOut(io.Discard)
	root.SetErr(io.Discard)
	return root.ExecuteContext(ctx)
}

func TestWatchResumesAfterALostConnection(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var tokens []string // of the connections, one after the other
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tokens = append(tokens, r.Header.Get("Last-Event-ID"))
		if len(tokens) == 2 {
			cancel()
		}
		fmt.Fprint(w, "event: current\nid: token-1\ndata: {}\n\n")
	}))
	defer server.Close()
	if err := execute(ctx, server, "watch", "routes", "a"); err != nil {
		t.Fatal(err)
	}
	server.Close() // waits for the last request
	if want := []string{"", "token-1"}; !slices.Equal(tokens, want) {
		t.Errorf("Last-Event-ID of the connections: got %q, want %q", tokens, want)
	}
}

func TestEmptyWriteFlagsAreRejected(t *testing.T) {
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests++ }))
	defer server.Close()
	for _, name := range []string{"if-match", "idempotency-key", "file"} {
		err := execute(t.Context(), server, "put", "routes", "a", "{}", "--"+name+"=")
		if want := "--" + name + " is empty: nothing was sent"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--%s=: got error %v, want %q in it", name, err, want)
		}
	}
	if requests != 0 {
		t.Errorf("got %d requests, want none", requests)
	}
}
