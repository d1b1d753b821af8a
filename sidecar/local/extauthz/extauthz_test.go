package extauthz_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/httpview"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

func start(t *testing.T, gate *access.Gate, datasets ...local.Served) *localtest.Server {
	t.Helper()
	view, problems := httpview.Fields{
		Headers: map[string]string{"X-Tenant": "tenant", "X-Plan": "plan"}, Absent: httpview.Absent{Status: 200, Body: "no", ContentType: "text/plain"},
	}.Compile([]string{"key"})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	rows := map[string]string{
		"k1": `{"key":"k1","tenant":"acme\r\nX-Plan: gold","plan":null}`, "large": `{"tenant":"` + strings.Repeat("x", 5000) + `"}`,
	}
	config := local.Config{}
	config.ExtAuthz.Dataset, config.ExtAuthz.Header = "clients", "x-api-key"
	return localtest.Start(t, config, append(datasets,
		local.Served{Dataset: localtest.NewDataset(t, "clients", origintest.New(rows)), JSON: true, View: view, Gate: gate})...)
}

// check returns the decision about a request with header fields, which are pairs of name and value.
func check(t *testing.T, address string, fields ...string) (*authv3.CheckResponse, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	headers := map[string]string{}
	for i := 0; i < len(fields); i += 2 {
		headers[fields[i]] = fields[i+1]
	}
	return authv3.NewAuthorizationClient(localtest.Connect(t, address)).Check(ctx, request(&authv3.AttributeContext_HttpRequest{Headers: headers}))
}

func request(r *authv3.AttributeContext_HttpRequest) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: r}}}
}

func TestKeyOfTheDatasetIsAllowed(t *testing.T) {
	s := start(t, nil)
	for range 2 { // loaded, and from memory
		got, err := check(t, s.GRPC, "x-api-key", "k1", "x-tenant", "spoofed")
		ok := got.GetOkResponse()
		if err != nil || codes.Code(got.GetStatus().GetCode()) != codes.OK || ok == nil {
			t.Fatalf("got %v, %v", got, err)
		}
		h := ok.GetHeaders()
		if len(h) != 1 || h[0].GetHeader().GetKey() != "X-Tenant" || h[0].GetHeader().GetValue() != "acme%0D%0AX-Plan: gold" ||
			h[0].GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			t.Errorf("got the fields %v", h)
		}
		if fmt.Sprint(ok.GetHeadersToRemove()) != "[X-Plan]" {
			t.Errorf("got %v to remove, want the field of the column that is NULL", ok.GetHeadersToRemove())
		}
	}
}

func TestOtherKeysAreDenied(t *testing.T) {
	s := start(t, nil)
	for name, fields := range map[string][]string{
		"unknown": {"x-api-key", "none"}, "no field": nil, "empty": {"x-api-key", ""}, "another field": {"x-other", "k1"},
		"too long": {"x-api-key", strings.Repeat("k", 1025)}, "two values": {"x-api-key", "k1,k1"},
	} {
		got, err := check(t, s.GRPC, fields...)
		no := got.GetDeniedResponse()
		if err != nil || codes.Code(got.GetStatus().GetCode()) != codes.PermissionDenied || no.GetStatus().GetCode() != 403 {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
		if no.GetBody() != "no" || len(no.GetHeaders()) != 1 || no.GetHeaders()[0].GetHeader().GetValue() != "text/plain" {
			t.Errorf("%s: got %v", name, no)
		}
	}
	client := authv3.NewAuthorizationClient(localtest.Connect(t, s.GRPC))
	for _, c := range []struct {
		values  []*corev3.HeaderValue
		allowed bool
	}{
		{[]*corev3.HeaderValue{{Key: "X-Api-Key", RawValue: []byte("k1")}}, true},
		{[]*corev3.HeaderValue{{Key: "x-api-key", Value: "k1"}, {Key: "x-api-key", Value: "k2"}}, false},
	} {
		got, err := client.Check(t.Context(), request(&authv3.AttributeContext_HttpRequest{HeaderMap: &corev3.HeaderMap{Headers: c.values}}))
		if err != nil || (got.GetOkResponse() != nil) != c.allowed {
			t.Errorf("%v: got %v, %v, want allowed %t", c.values, got, err, c.allowed)
		}
	}
	if got, err := client.Check(t.Context(), &authv3.CheckRequest{}); err != nil || got.GetDeniedResponse() == nil {
		t.Errorf("an empty check: got %v, %v", got, err)
	}
}

// What an error means for a request is configured in Envoy.
func TestErrorsAreNoDecisions(t *testing.T) {
	s := start(t, nil)
	if got, err := check(t, s.GRPC, "x-api-key", "large"); status.Code(err) != codes.Internal {
		t.Errorf("columns that cannot be header fields: got %v, %v", got, err)
	}
	failing := local.Config{}
	failing.ExtAuthz.Dataset, failing.ExtAuthz.Header = "failing", "x-api-key"
	if got, err := check(t, localtest.Start(t, failing).GRPC, "x-api-key", "unavailable"); err == nil || got != nil {
		t.Errorf("a failing origin: got %v, %v", got, err)
	}
}

func TestCheckNeedsThePermissionToRead(t *testing.T) {
	control, err := access.New(access.Config{Datasets: map[string]access.Dataset{"clients": {Rules: access.Rules{Read: []string{"unix"}}}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, control.Gate("clients"))
	if got, err := check(t, s.GRPC, "x-api-key", "k1"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("over TCP: got %v, %v", got, err)
	}
	if got, err := check(t, "unix:"+s.Unix, "x-api-key", "k1"); err != nil || got.GetOkResponse() == nil {
		t.Errorf("over the unix socket: got %v, %v", got, err)
	}
}
