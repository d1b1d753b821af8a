package local_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	cnfmetricsv1 "github.com/ringside-cache/ringside/proto/cnfmetrics/v1"
	"github.com/ringside-cache/ringside/proto/groupcachepb"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/cnfmetrics"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/audit"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

const goodToken = "canary-token-0123456789"

// guardedServer is a server of the dataset "rows", with the typed service on it, and what decides about it.
type guardedServer struct {
	*localtest.Server
	control *access.Control
	token   string // path of its file
	audit   *audit.Log
	clients map[string]ringsidev1.CacheClient // :: address → client
}

// metricRow is a row of the typed service with the id a.
const metricRow = `{"cnf_id":"a","timestamp":"2025-01-01T00:00:00Z","metric_type":"cpu","value":1,"unit":"u","status":"ok"}`

func startGuarded(t *testing.T, log *audit.Log) *guardedServer {
	return startGuardedWith(t, log, local.Config{})
}

func startGuardedWith(t *testing.T, log *audit.Log, c local.Config) *guardedServer {
	t.Helper()
	g := &guardedServer{token: filepath.Join(t.TempDir(), "token"), audit: log}
	g.writeToken(t, goodToken)
	control, err := access.New(g.config(access.Rules{}, access.Limits{}), log)
	if err != nil {
		t.Fatal(err)
	}
	g.control = control
	served := local.Served{
		Dataset: localtest.NewWritable(t, "rows", origintest.New(map[string]string{"a": metricRow, "b": metricRow})),
		JSON:    true, Gate: control.Gate("rows")}
	guarded := api.NewGuarded(served, oneRow{})
	c.CNFMetrics = cnfmetrics.New(cnfmetrics.Config{Dataset: guarded, Lister: guarded})
	c.Explain = func(context.Context, string, string) ([]byte, error) { return []byte("{}\n"), nil }
	g.Server = localtest.Start(t, c, served)
	return g
}

func (g *guardedServer) writeToken(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(g.token, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (g *guardedServer) config(r access.Rules, l access.Limits) access.Config {
	return access.Config{
		Tokens:   map[string]string{"deploy": g.token},
		Datasets: map[string]access.Dataset{"rows": {Rules: r, Limits: l}},
	}
}

func (g *guardedServer) apply(t *testing.T, r access.Rules, l access.Limits) {
	t.Helper()
	if err := g.control.Apply(g.config(r, l)); err != nil {
		t.Fatal(err)
	}
}

type oneRow struct{}

func (oneRow) List(context.Context, origin.ListQuery) ([]origin.Row, error) {
	return []origin.Row{{Key: "a", Value: origin.Value{Data: []byte(metricRow)}}}, nil
}

// knownListener is a listener whose connections are those of one caller.
type knownListener struct {
	net.Listener
	who caller.Caller
}

func (l knownListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return knownConn{c, l.who}, nil
}

type knownConn struct {
	net.Conn
	who caller.Caller
}

// Caller is what caller.Of finds.
func (c knownConn) Caller() caller.Caller { return c.who }

// Listeners of a server for one caller :: name → address.
func (g *guardedServer) listenersOf(t *testing.T, who caller.Caller) map[string]string {
	listen := func(serve func(net.Listener) error) string {
		return g.Listen(t, "tcp", func(ln net.Listener) error { return serve(knownListener{ln, who}) })
	}
	unix := listen(g.ServeUnix)
	routed := listen(func(ln net.Listener) error { return g.ServeRouted(ln, nil) })
	return map[string]string{
		"http": listen(g.ServeHTTP), "grpc": listen(g.ServeGRPC),
		"unix http": unix, "unix grpc": unix, "routed http": routed, "routed grpc": routed,
	}
}

// outcomes of a request.
const allowed, forbidden, unauthenticated = "allowed", "forbidden", "unauthenticated"

func httpOutcome(t *testing.T, address, method, path, body, token string) string {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	q.Host = "localhost"
	q.Header.Set("Content-Type", "application/json")
	if token != "" {
		q.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	challenge := resp.Header.Get("WWW-Authenticate")
	if resp.StatusCode != http.StatusUnauthorized && challenge != "" {
		t.Errorf("%s %s: WWW-Authenticate with status %d", method, path, resp.StatusCode)
	}
	switch resp.StatusCode {
	case http.StatusForbidden, http.StatusUnauthorized:
		text, _ := io.ReadAll(resp.Body)
		checkDenial(t, string(text))
		name := "permission-denied"
		if resp.StatusCode == http.StatusUnauthorized {
			name = "unauthenticated"
			if !strings.HasPrefix(challenge, "Bearer ") {
				t.Errorf("%s %s: WWW-Authenticate %q", method, path, challenge)
			}
		}
		if method != http.MethodHead {
			localtest.CheckProblem(t, resp, string(text), name)
		}
		if name == "unauthenticated" {
			return unauthenticated
		}
		return forbidden
	case http.StatusInternalServerError, http.StatusBadRequest, http.StatusTooManyRequests:
		t.Errorf("%s %s: status %d", method, path, resp.StatusCode)
	}
	return allowed
}

// checkDenial fails if a denial shows a value, a token, or who else is allowed.
func checkDenial(t *testing.T, text string) {
	t.Helper()
	for _, secret := range []string{"canary-token", "metric_type", "/*", "uid=12345"} {
		if strings.Contains(text, secret) {
			t.Errorf("a denial shows %q: %s", secret, text)
		}
	}
}

func grpcOutcome(t *testing.T, what string, err error) string {
	t.Helper()
	switch s := status.Convert(err); s.Code() {
	case codes.PermissionDenied:
		checkDenial(t, s.Message())
		return forbidden
	case codes.Unauthenticated:
		checkDenial(t, s.Message())
		return unauthenticated
	case codes.OK, codes.NotFound, codes.AlreadyExists:
	default:
		t.Errorf("%s: %v", what, err)
	}
	return allowed
}

// sender is a caller and the token that it sends.
type sender struct {
	caller.Caller
	token string
}

func senders() map[string]sender {
	client := func(id string) sender { return sender{Caller: caller.Caller{Kind: caller.Client, ID: id}} }
	unix := func(uid, gid uint32) sender {
		return sender{Caller: caller.Caller{Kind: caller.Unix, UID: uid, GID: gid}}
	}
	return map[string]sender{
		"loopback":             {Caller: caller.Caller{Kind: caller.Loopback}},
		"loopback+token":       {caller.Caller{Kind: caller.Loopback}, goodToken},
		"loopback+wrong token": {caller.Caller{Kind: caller.Loopback}, goodToken + "x"},
		"network":              {Caller: caller.Caller{Kind: caller.Unknown}},
		"network+token":        {caller.Caller{Kind: caller.Unknown}, goodToken},
		"unix 1000:2000":       unix(1000, 2000),
		"unix 1000:1000":       unix(1000, 1000),
		"unix 2000:1000":       unix(2000, 1000),
		"unix 0:0":             unix(0, 0),
		"client a":             client("spiffe://example.org/client/a"),
		"client ab":            client("spiffe://example.org/client/ab"),
		"client a/b":           client("spiffe://example.org/client/a/b"),
		"client":               client("spiffe://example.org/client"),
		"cert":                 client("envoy.example.org"),
		"member":               {Caller: caller.Caller{Kind: caller.Member, ID: "spiffe://example.org/member/m"}},
	}
}

// everySender is who has a rule with *.
var everySender = []string{
	"loopback", "loopback+token", "loopback+wrong token", "network", "network+token", "unix 1000:2000", "unix 1000:1000",
	"unix 2000:1000", "unix 0:0", "client a", "client ab", "client a/b", "client", "cert", "member",
}

// loopbackAndUnix may write by default.
var loopbackAndUnix = []string{
	"loopback", "loopback+token", "loopback+wrong token", "unix 1000:2000", "unix 1000:1000", "unix 2000:1000", "unix 0:0",
}

// accessCases are lists of subjects and who is allowed by them.
var accessCases = []struct {
	subjects []string
	allowed  []string
}{
	{[]string{}, nil},
	{[]string{"*"}, everySender},
	{[]string{"loopback"}, []string{"loopback", "loopback+token", "loopback+wrong token"}},
	{[]string{"unix"}, []string{"unix 1000:2000", "unix 1000:1000", "unix 2000:1000", "unix 0:0"}},
	{[]string{"unix:uid=1000"}, []string{"unix 1000:2000", "unix 1000:1000"}},
	{[]string{"unix:gid=2000"}, []string{"unix 1000:2000"}},
	{[]string{"network"}, []string{"network", "network+token"}},
	{[]string{"client"}, []string{"client a", "client ab", "client a/b", "client", "cert", "member"}},
	{[]string{"spiffe://example.org/client/a"}, []string{"client a"}},
	{[]string{"spiffe://example.org/client/*"}, []string{"client a", "client ab", "client a/b"}},
	{[]string{"spiffe://example.org/client/a/*"}, []string{"client a/b"}},
	{[]string{"cert:envoy.example.org"}, []string{"cert"}},
	{[]string{"token:deploy"}, []string{"loopback+token", "network+token"}},
	{[]string{"token:deploy", "unix:uid=0"}, []string{"loopback+token", "network+token", "unix 0:0"}},
}

// want is the outcome for a sender with a rule.
func want(subjects, allowedSenders []string, name string) string {
	hasToken := slices.Contains(subjects, "token:deploy")
	switch {
	case slices.Contains(allowedSenders, name):
		return allowed
	case hasToken && !strings.HasSuffix(name, "+token"):
		return unauthenticated
	}
	return forbidden
}

func TestAccessTable(t *testing.T) { localtest.EachGRPC(t, testAccessTable) }

func testAccessTable(t *testing.T, grpcGo bool) {
	t.Parallel()
	g := startGuardedWith(t, nil, local.Config{GRPCGo: grpcGo})
	unlimited := access.Limits{Write: access.Rate{Off: true}, Invalidate: access.Rate{Off: true}}
	for name, from := range senders() {
		listeners := g.listenersOf(t, from.Caller)
		check := func(rule string, read, write, invalidate string) {
			for listener, address := range listeners {
				got := g.outcomes(t, listener, address, from.token)
				if wanted := [3]string{read, write, invalidate}; got != wanted {
					t.Errorf("%s over %s with %s: got %v, want %v (read, write, invalidate)", name, listener, rule, got, wanted)
				}
			}
		}
		g.apply(t, access.Rules{}, unlimited)
		change := want(nil, loopbackAndUnix, name)
		check("the defaults", allowed, change, change)
		for _, c := range accessCases {
			w := want(c.subjects, c.allowed, name)
			for o, rules := range []access.Rules{
				{Read: c.subjects, Write: []string{"*"}, Invalidate: []string{}},
				{Read: []string{}, Write: c.subjects, Invalidate: []string{"*"}},
				{Read: []string{"*"}, Write: []string{}, Invalidate: c.subjects},
			} {
				g.apply(t, rules, unlimited)
				each := [3]string{}
				each[o], each[(o+1)%3], each[(o+2)%3] = w, allowed, forbidden
				check(fmt.Sprintf("rules %+v", rules), each[0], each[1], each[2])
			}
		}
	}
}

// outcomes returns those of a read, a write and an invalidation.
func (g *guardedServer) outcomes(t *testing.T, listener, address, token string) (o [3]string) {
	t.Helper()
	if strings.HasSuffix(listener, "http") {
		o[0] = httpOutcome(t, address, "GET", "/v1/rows/a", "", token)
		o[1] = httpOutcome(t, address, "PUT", "/v1/rows/w", metricRow, token)
		o[2] = httpOutcome(t, address, "POST", "/v1/rows:invalidate", `{"keys": ["z"]}`, token)
		return o
	}
	c, ctx := g.client(t, address), withToken(t.Context(), token)
	_, err := c.Get(ctx, &ringsidev1.GetRequest{Dataset: "rows", Key: "a"})
	o[0] = grpcOutcome(t, "Get", err)
	_, err = c.Put(ctx, &ringsidev1.PutRequest{Dataset: "rows", Key: "w", Value: []byte(metricRow)})
	o[1] = grpcOutcome(t, "Put", err)
	_, err = c.Invalidate(ctx, &ringsidev1.InvalidateRequest{Dataset: "rows", Keys: []string{"z"}})
	o[2] = grpcOutcome(t, "Invalidate", err)
	return o
}

func withToken(ctx context.Context, token string) context.Context {
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// client returns a client of an address; there is one connection to each.
func (g *guardedServer) client(t *testing.T, address string) ringsidev1.CacheClient {
	if g.clients == nil {
		g.clients = map[string]ringsidev1.CacheClient{}
	}
	if g.clients[address] == nil {
		g.clients[address] = localtest.Client(t, address)
	}
	return g.clients[address]
}

// operations are all that clients can do, by the permission that each needs.
func httpOperations() map[string][][3]string {
	const metrics = "/cnfmetrics/v1/metrics"
	return map[string][][3]string{
		"read": {
			{"GET", "/v1/rows/a"}, {"HEAD", "/v1/rows/a"}, {"POST", "/v1/rows:batchGet", `{"keys": ["a", "b"]}`},
			{"GET", "/v1/rows:watch?key=a"}, {"HEAD", "/v1/rows:watch?key=a"},
			{"GET", metrics + "/a"}, {"GET", metrics}, {"POST", metrics + ":batchShow", `{"cnf_ids": ["a"]}`},
		},
		"write": {
			{"PUT", "/v1/rows/w", metricRow}, {"DELETE", "/v1/rows/w"}, {"POST", metrics, metricRow},
			{"PUT", metrics + "/a", metricRow}, {"DELETE", metrics + "/a"},
			{"POST", "/v1/rows:batchPut", `{"rows": [{"key": "w", "value": ` + metricRow + `}]}`},
		},
		"invalidate": {
			{"POST", "/v1/rows:invalidate", `{"keys": ["a"]}`}, {"POST", "/v1/rows:invalidate", `{"prefix": "a"}`},
			{"POST", "/v1/rows:invalidate", `{"all": true}`},
		},
	}
}

func grpcOperations(t *testing.T, address string) map[string]map[string]func(context.Context) error {
	connection := localtest.Connect(t, address)
	c, old := ringsidev1.NewCacheClient(connection), groupcachepb.NewGroupCacheClient(connection)
	typed := cnfmetricsv1.NewCnfMetricsServiceClient(connection)
	metric := &cnfmetricsv1.CnfMetric{CnfId: "a", MetricType: "cpu", Unit: "u", Status: "ok", Timestamp: timestamppb.Now()}
	return map[string]map[string]func(context.Context) error{
		"read": {
			"Get": func(ctx context.Context) error {
				_, err := c.Get(ctx, &ringsidev1.GetRequest{Dataset: "rows", Key: "a"})
				return err
			},
			"BatchGet": func(ctx context.Context) error {
				_, err := c.BatchGet(ctx, &ringsidev1.BatchGetRequest{Dataset: "rows", Keys: []string{"a"}})
				return err
			},
			"Watch": func(ctx context.Context) error {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				stream, err := c.Watch(ctx, &ringsidev1.WatchRequest{Dataset: "rows", Keys: []string{"a"}})
				if err == nil {
					_, err = stream.Recv()
				}
				return err
			},
			"groupcache": func(ctx context.Context) error {
				_, err := old.Get(ctx, &groupcachepb.GetRequest{Group: "rows", Key: "a"})
				return err
			},
			"ShowCnfMetric": func(ctx context.Context) error {
				_, err := typed.ShowCnfMetric(ctx, &cnfmetricsv1.ShowCnfMetricRequest{CnfId: "a"})
				return err
			},
			"ListCnfMetrics": func(ctx context.Context) error {
				_, err := typed.ListCnfMetrics(ctx, &cnfmetricsv1.ListCnfMetricsRequest{})
				return err
			},
			"BatchShowCnfMetrics": func(ctx context.Context) error {
				_, err := typed.BatchShowCnfMetrics(ctx, &cnfmetricsv1.BatchShowCnfMetricsRequest{CnfIds: []string{"a"}})
				return err
			},
		},
		"write": {
			"Put": func(ctx context.Context) error {
				_, err := c.Put(ctx, &ringsidev1.PutRequest{Dataset: "rows", Key: "w", Value: []byte(metricRow)})
				return err
			},
			"Delete": func(ctx context.Context) error {
				_, err := c.Delete(ctx, &ringsidev1.DeleteRequest{Dataset: "rows", Key: "w"})
				return err
			},
			"CreateCnfMetric": func(ctx context.Context) error {
				_, err := typed.CreateCnfMetric(ctx, &cnfmetricsv1.CreateCnfMetricRequest{Metric: metric})
				return err
			},
			"UpdateCnfMetric": func(ctx context.Context) error {
				_, err := typed.UpdateCnfMetric(ctx, &cnfmetricsv1.UpdateCnfMetricRequest{Metric: metric})
				return err
			},
			"DeleteCnfMetric": func(ctx context.Context) error {
				_, err := typed.DeleteCnfMetric(ctx, &cnfmetricsv1.DeleteCnfMetricRequest{CnfId: "none"})
				return err
			},
		},
		"invalidate": {
			"Invalidate": func(ctx context.Context) error {
				_, err := c.Invalidate(ctx, &ringsidev1.InvalidateRequest{Dataset: "rows", Prefix: "a"})
				return err
			},
		},
	}
}

// Each operation asks for its permission, and for no other.
func TestEveryOperationAsksForItsPermission(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, nil)
	for _, missing := range []string{"read", "write", "invalidate"} {
		rules := access.Rules{Read: []string{"*"}, Write: []string{"*"}, Invalidate: []string{"*"}}
		switch missing {
		case "read":
			rules.Read = []string{"token:deploy"}
		case "write":
			rules.Write = []string{"token:deploy"}
		case "invalidate":
			rules.Invalidate = []string{"token:deploy"}
		}
		for token, wanted := range map[string]string{"": unauthenticated, "wrong": unauthenticated, goodToken: allowed} {
			for permission, list := range httpOperations() {
				for _, op := range list {
					g.apply(t, rules, access.Limits{}) // what an operation changes does not matter
					w := wanted
					if permission != missing {
						w = allowed
					}
					if strings.Contains(op[1], ":watch") && op[0] == "GET" && w == allowed {
						continue // it does not end; see TestWatchEndsWithItsPermission
					}
					if got := httpOutcome(t, g.HTTP, op[0], op[1], op[2], token); got != w {
						t.Errorf("without %s and token %q: %s %s: got %s, want %s", missing, token, op[0], op[1], got, w)
					}
				}
			}
			for permission, list := range grpcOperations(t, g.GRPC) {
				for name, call := range list {
					w := wanted
					if permission != missing {
						w = allowed
					}
					if got := grpcOutcome(t, name, call(withToken(t.Context(), token))); got != w {
						t.Errorf("without %s and token %q: %s: got %s, want %s", missing, token, name, got, w)
					}
				}
			}
		}
	}
	if got := g.control.Gate("rows").Denied(access.Write); got == 0 {
		t.Error("denied writes are not counted")
	}
}

func TestListHasOnlyDatasetsThatMayBeRead(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, nil)
	list := func(token string) string {
		c := localtest.Dial(t, "tcp", g.HTTP)
		c.Send(localtest.Get("/v1/datasets", "Authorization: Bearer "+token))
		_, body := c.Response("GET")
		return body
	}
	g.apply(t, access.Rules{Read: []string{"token:deploy"}}, access.Limits{})
	if got := list("wrong"); strings.Contains(got, "rows") {
		t.Errorf("without permission: %s", got)
	}
	if got := list(goodToken); !strings.Contains(got, "rows") {
		t.Errorf("with a token: %s", got)
	}
}

// A client that waits for 100 Continue is refused before it sends the content.
func TestExpectIsDeniedBeforeTheContent(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, nil)
	g.apply(t, access.Rules{Write: []string{"unix:uid=12345"}}, access.Limits{})
	for network, address := range map[string]string{"tcp": g.HTTP, "unix": g.Unix} {
		c := localtest.Dial(t, network, address)
		c.Send("PUT /v1/rows/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n")
		resp, body := c.Response("PUT")
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: status %d: %s", network, resp.StatusCode, body)
		}
	}
}

func TestTokenFileIsReloaded(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, nil)
	g.apply(t, access.Rules{Read: []string{"token:deploy"}}, access.Limits{})
	try := func(token, wanted string) {
		t.Helper()
		if got := httpOutcome(t, g.HTTP, "GET", "/v1/rows/a", "", token); got != wanted {
			t.Errorf("token %q: got %s, want %s", token, got, wanted)
		}
	}
	try(goodToken, allowed)
	g.writeToken(t, "next\n"+goodToken)
	if err := g.control.ReloadTokens(); err != nil {
		t.Fatal(err)
	}
	try(goodToken, allowed)
	try("next", allowed)
	g.writeToken(t, "next")
	if err := g.control.ReloadTokens(); err != nil {
		t.Fatal(err)
	}
	try(goodToken, unauthenticated)
	try("next", allowed)
	if err := os.Remove(g.token); err != nil {
		t.Fatal(err)
	}
	if err := g.control.ReloadTokens(); err == nil || strings.Contains(err.Error(), g.token) {
		t.Errorf("a missing file: got error %v, want one without the path", err)
	}
	try("next", unauthenticated)
	try("", unauthenticated)
}

func TestWatchEndsWithItsPermission(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, nil)
	g.apply(t, access.Rules{Read: []string{"token:deploy"}}, access.Limits{})
	ctx := withToken(t.Context(), goodToken)
	stream, err := localtest.Client(t, g.GRPC).Watch(ctx, &ringsidev1.WatchRequest{Dataset: "rows", Keys: []string{"a"}})
	for range 2 { // the state of the key, and current
		if err == nil {
			_, err = stream.Recv()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	events := localtest.Dial(t, "tcp", g.HTTP)
	events.Send(localtest.Get("/v1/rows:watch?key=a", "Authorization: Bearer "+goodToken))
	resp, err := http.ReadResponse(events.Reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() && lines.Text() != "event: current" {
	}
	g.writeToken(t, "another")
	if err := g.control.ReloadTokens(); err != nil {
		t.Fatal(err)
	}
	if got := httpOutcome(t, g.HTTP, "POST", "/v1/rows:invalidate", `{"keys": ["a"]}`, ""); got != allowed {
		t.Fatal(got)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("gRPC: got %v, want UNAUTHENTICATED", err)
	}
	var rest []string
	for lines.Scan() {
		if text := lines.Text(); text != "" && !strings.HasPrefix(text, ":") {
			rest = append(rest, text)
		}
	}
	if end := strings.Join(rest, "\n"); strings.Count(end, "event:") != 1 || !strings.Contains(end, "event: end\ndata: ") || !strings.Contains(end, "unauthenticated") {
		t.Errorf("SSE: got %q after the permission had ended, want the end and its reason", end)
	}
}

func TestLimitsOverEveryProtocol(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, nil)
	once := access.Rate{Count: 1, Per: time.Hour}
	g.apply(t, access.Rules{}, access.Limits{NoCache: once, Watch: once, Write: once, Invalidate: once})
	c := localtest.Client(t, g.GRPC)
	watch := func() error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := c.Watch(ctx, &ringsidev1.WatchRequest{Dataset: "rows", Keys: []string{"a"}})
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	first := []error{watch()}
	_, err := c.Get(t.Context(), &ringsidev1.GetRequest{Dataset: "rows", Key: "a", NoCache: true})
	first = append(first, err)
	_, err = c.Put(t.Context(), &ringsidev1.PutRequest{Dataset: "rows", Key: "w", Value: []byte(metricRow)})
	first = append(first, err)
	_, err = c.Invalidate(t.Context(), &ringsidev1.InvalidateRequest{Dataset: "rows", All: true})
	for i, err := range append(first, err) {
		if err != nil {
			t.Errorf("call %d within the limit: %v", i, err)
		}
	}
	if err := watch(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("watch: got %v, want RESOURCE_EXHAUSTED", err)
	}
	if _, err := c.Explain(t.Context(), &ringsidev1.ExplainRequest{Dataset: "rows", Key: "a"}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("explain: got %v, want RESOURCE_EXHAUSTED", err)
	}
	// All of loopback is one client, over HTTP as well.
	for _, q := range []string{
		localtest.Get("/v1/rows/a", "Cache-Control: no-cache"),
		localtest.Get("/cnfmetrics/v1/metrics/a", "Cache-Control: no-cache"), localtest.Get("/cnfmetrics/v1/metrics"),
		localtest.Post("/v1/rows:batchGet", `{"keys": ["a"]}`, "Cache-Control: no-cache"),
		localtest.Get("/v1/rows:watch?key=a"), localtest.Get("/v1/rows:explain?key=a"),
		localtest.Put("/v1/rows/w", metricRow), localtest.Delete("/v1/rows/w"), localtest.Post("/v1/rows", metricRow),
		localtest.Post("/v1/rows:batchPut", `{"rows": [{"key": "w", "value": `+metricRow+`}]}`),
		localtest.Put("/cnfmetrics/v1/metrics/a", metricRow, "Content-Type: application/json"),
		localtest.Post("/v1/rows:invalidate", `{"prefix": "x"}`),
	} {
		conn := localtest.Dial(t, "tcp", g.HTTP)
		conn.Send(q)
		resp, body := conn.Response("GET")
		first, _, _ := strings.Cut(q, "\r\n")
		if resp.StatusCode != http.StatusTooManyRequests {
			t.Errorf("%s: status %d", first, resp.StatusCode)
			continue
		}
		localtest.CheckProblem(t, resp, body, "rate-limited")
		if after := resp.Header.Get("Retry-After"); after != "3600" {
			t.Errorf("%s: Retry-After %q, want 3600", first, after)
		}
	}
	// Others have limits of their own, and plain reads have none.
	conn := localtest.Dial(t, "unix", g.Unix)
	conn.Send(localtest.Get("/v1/rows/a", "Cache-Control: no-cache"))
	if resp, _ := conn.Response("GET"); resp.StatusCode != http.StatusOK {
		t.Errorf("another client: status %d", resp.StatusCode)
	}
	for range 10 {
		if got := httpOutcome(t, g.HTTP, "GET", "/v1/rows/a", "", ""); got != allowed {
			t.Errorf("a read within memory: %s", got)
		}
	}
	if got := g.control.Gate("rows").Limited(access.Writes); got != 5 {
		t.Errorf("limited writes: counted %d, want 5", got)
	}
}

// The child process of TestUnixSocketKnowsItsProcess.
func TestUnixChild(t *testing.T) {
	socket := os.Getenv("RINGSIDE_TEST_SOCKET")
	if socket == "" {
		t.Log("run by TestUnixSocketKnowsItsProcess")
		return
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	for _, q := range [][2]string{{"GET", ""}, {"PUT", metricRow}} {
		r, err := http.NewRequestWithContext(t.Context(), q[0], "http://localhost/v1/rows/a", strings.NewReader(q[1]))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		fmt.Printf("%s=%d ", q[0], resp.StatusCode)
	}
	_, err := localtest.Client(t, "unix://"+socket).Put(t.Context(), &ringsidev1.PutRequest{
		Dataset: "rows", Key: "a", Value: []byte(metricRow)})
	fmt.Printf("Put=%v ", status.Code(err))
}

// A real process of another user connects.
func TestUnixSocketKnowsItsProcess(t *testing.T) {
	t.Parallel()
	var lines syncBuffer
	log, stop := runAudit(&lines)
	defer stop()
	g := startGuarded(t, log)
	dir, err := os.MkdirTemp("", "ringside") // that of the test is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "test")
	text, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(program, text, 0o755)
	}
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	ln, err := local.ListenUnix(socket)
	if err == nil {
		err = os.Chmod(socket, 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = g.ServeUnix(ln) }()
	child := func(uid, gid uint32) string {
		cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestUnixChild$")
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "RINGSIDE_TEST_SOCKET="+socket)
		if os.Getuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("child: %v\n%s", err, out)
		}
		result, _, _ := strings.Cut(string(out), "PASS")
		return strings.TrimSpace(result)
	}
	g.apply(t, access.Rules{Read: []string{"unix:gid=4322"}, Write: []string{"unix:uid=4321"}}, access.Limits{})
	cases := []struct {
		uid, gid uint32
		want     string
	}{{uint32(os.Getuid()), uint32(os.Getgid()), "GET=403 PUT=403 Put=PermissionDenied"}}
	if os.Getuid() == 0 { // only root can start processes of other users
		cases = append(cases, []struct {
			uid, gid uint32
			want     string
		}{
			{4321, 4322, "GET=200 PUT=200 Put=OK"},
			{4321, 4321, "GET=403 PUT=200 Put=OK"},
			{4322, 4322, "GET=200 PUT=403 Put=PermissionDenied"},
		}...)
	}
	for _, c := range cases {
		if got := child(c.uid, c.gid); got != c.want {
			t.Errorf("uid %d, gid %d: got %q, want %q", c.uid, c.gid, got, c.want)
		}
	}
	stop()
	denied := fmt.Sprintf(`"action":"access","result":"permission-denied","caller":"unix:uid=%d,gid=%d","pid":`, os.Getuid(), os.Getgid())
	if !strings.Contains(lines.String(), denied) {
		t.Errorf("the audit log lacks the denied process:\n%s", lines.String())
	}
}

// syncBuffer is a buffer that may be read while another goroutine writes.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// runAudit runs an audit log. stop waits until all is written, and may be called again.
func runAudit(to io.Writer) (log *audit.Log, stop func()) {
	log = audit.New(to, func(error) {})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = log.Run(ctx) })
	return log, func() { cancel(); running.Wait() }
}

func TestAuditLogHasChangesAndDenials(t *testing.T) {
	t.Parallel()
	var lines syncBuffer
	log, stop := runAudit(&lines)
	defer stop()
	g := startGuarded(t, log)
	g.apply(t, access.Rules{Invalidate: []string{"token:deploy"}},
		access.Limits{Invalidate: access.Rate{Count: 2, Per: time.Hour}})
	httpOutcome(t, g.HTTP, "GET", "/v1/rows/a", "", goodToken) // not logged
	httpOutcome(t, g.HTTP, "PUT", "/v1/rows/k%0A1", metricRow, "")
	httpOutcome(t, g.HTTP, "DELETE", "/v1/rows/none", "", "")
	httpOutcome(t, g.HTTP, "POST", "/v1/rows:invalidate", `{"prefix": "p"}`, "")
	httpOutcome(t, g.HTTP, "POST", "/v1/rows:invalidate", `{"keys": ["p", "q"]}`, goodToken)
	_, err := localtest.Client(t, "unix://"+g.Unix).Put(t.Context(), &ringsidev1.PutRequest{
		Dataset: "rows", Key: "a", Value: []byte(metricRow), IdempotencyId: "canary-id",
		Condition: &ringsidev1.Condition{Row: &ringsidev1.Condition_Absent{Absent: true}}})
	if status.Code(err) != codes.Aborted {
		t.Errorf("a conflict: got %v", err)
	}
	httpOutcome(t, g.HTTP, "PUT", "/cnfmetrics/v1/metrics/a", metricRow, "")
	httpOutcome(t, g.HTTP, "POST", "/v1/rows", metricRow, "")
	stop()
	type line struct {
		Action, Result, Caller, Dataset, Operation, Key, Prefix, Address string
		Keys                                                             []string
		Time                                                             time.Time
	}
	var got []line
	for text := range strings.Lines(lines.String()) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		if time.Since(l.Time) > time.Hour || l.Dataset != "rows" || strings.HasPrefix(l.Caller, "unix") != (l.Address == "") {
			t.Errorf("got %s", text)
		}
		l.Time, l.Dataset, l.Address = time.Time{}, "", ""
		got = append(got, l)
	}
	unix := fmt.Sprintf("unix:uid=%d,gid=%d", os.Getuid(), os.Getgid())
	wanted := []line{
		{Action: "put", Result: "ok", Caller: "loopback", Key: "k\n1"},
		{Action: "delete", Result: "ok", Caller: "loopback", Key: "none"},
		{Action: "access", Result: "unauthenticated", Caller: "loopback", Operation: "invalidate"},
		{Action: "invalidate", Result: "ok", Caller: "token:deploy", Keys: []string{"p", "q"}},
		{Action: "put", Result: "conflict", Caller: unix, Key: "a"},
		{Action: "put", Result: "ok", Caller: "loopback", Key: "a"},
		{Action: "append", Result: "ok", Caller: "loopback", Key: "row-1"},
	}
	if fmt.Sprint(got) != fmt.Sprint(wanted) {
		t.Errorf("got  %+v\nwant %+v", got, wanted)
	}
	for _, secret := range []string{"canary-", "metric_type"} {
		if strings.Contains(lines.String(), secret) {
			t.Errorf("the log has %q:\n%s", secret, lines.String())
		}
	}
}
