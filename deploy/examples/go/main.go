// Command go reads a key through the sidecar of its pod: over HTTP, over gRPC, and over gRPC on the unix socket.
//
// Usage: go run . DATASET KEY
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
)

var errNotFound = errors.New("not found")

// unavailableError has the time after which to retry.
type unavailableError struct{ after time.Duration }

func (e unavailableError) Error() string {
	return fmt.Sprintf("unavailable, try again in %.0f s", e.after.Seconds())
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: go run . DATASET KEY")
		os.Exit(2)
	}
	dataset, key := os.Args[1], os.Args[2]
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()

	value, err := overHTTP(ctx, cmp.Or(os.Getenv("RINGSIDE_HTTP"), "http://localhost:7070"), dataset, key)
	show("http", value, err)
	value, err = overGRPC(ctx, cmp.Or(os.Getenv("RINGSIDE_GRPC"), "localhost:7071"), dataset, key)
	show("grpc", value, err)
	value, err = overGRPC(ctx, "unix:"+cmp.Or(os.Getenv("RINGSIDE_UNIX"), "/run/ringside/ringside.sock"), dataset, key)
	show("unix", value, err)
}

func show(way, value string, err error) {
	if err != nil {
		value = err.Error()
	}
	fmt.Println(way+":", value)
}

func overHTTP(ctx context.Context, sidecar, dataset, key string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, sidecar+"/v1/"+dataset+"/"+url.PathEscape(key), nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", problemOf(body)
	}
	if response.Header.Get("Ringside-Stale") == "true" { // the database is unavailable: use it, but note its age
		return fmt.Sprintf("stale, %s s old: %s", response.Header.Get("Age"), body), nil
	}
	return string(body), nil
}

// problemOf decodes a problem document (RFC 9457). Programs should rely on its type.
func problemOf(body []byte) error {
	var problem struct {
		Type, Detail string
		RetryAfter   time.Duration // seconds, as in the header Retry-After
	}
	if err := json.Unmarshal(body, &problem); err != nil {
		return err
	}
	switch {
	case problem.Type == "https://ringside.dev/problems/not-found":
		return errNotFound
	case problem.RetryAfter > 0:
		return unavailableError{problem.RetryAfter * time.Second}
	}
	return errors.New(problem.Detail)
}

// overGRPC opens a connection for one call to keep the example short: reuse yours.
func overGRPC(ctx context.Context, sidecar, dataset, key string) (string, error) {
	conn, err := grpc.NewClient(sidecar, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	// WaitForReady waits for a sidecar that is starting, until the deadline of ctx.
	response, err := ringsidev1.NewCacheClient(conn).Get(ctx,
		&ringsidev1.GetRequest{Dataset: dataset, Key: key}, grpc.WaitForReady(true))
	if err != nil {
		return "", reasonOf(err)
	}
	if meta := response.GetMeta(); meta.GetStale() {
		return fmt.Sprintf("stale, %d s old: %s", meta.GetAge().GetSeconds(), response.GetValue()), nil
	}
	return string(response.GetValue()), nil
}

// reasonOf decodes the google.rpc details of a status. The reasons are listed in ringside/v1/cache.proto.
func reasonOf(err error) error {
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetReason() == "NOT_FOUND" {
				return errNotFound
			}
		case *errdetails.RetryInfo:
			return unavailableError{detail.GetRetryDelay().AsDuration()}
		}
	}
	return err
}
