package httpapi_test

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

func TestMountedAPIHasTheChecksOfTheHandler(t *testing.T) {
	s := localtest.Start(t, local.Config{CNFMetrics: localtest.Mounted{}})
	for _, c := range []struct {
		request string // first line and headers, without Host
		body    string
		status  int
		want    string
	}{
		{"GET /cnfmetrics/x", "", 418, "GET /cnfmetrics/x  <nil>"},
		{"POST /cnfmetrics/a%2Fb//../c?d=e%20f", "body", 418, "POST /cnfmetrics/a%2Fb//../c?d=e%20f body <nil>"},
		{"GET http://localhost/cnfmetrics/x?y=1", "", 418, "GET /cnfmetrics/x?y=1"},
		{"GET /cnfmetrics/x#y", "", 400, "malformed-request"},
		{"GET /cnfmetrics/%zz", "", 400, "malformed-request"},
		{"B@D /cnfmetrics/x", "", 400, "malformed-request"},
		{"GET /cnfmetrics/panic", "", 500, "problems/internal"},
		{"GET /cnfmetrics", "", 404, "no-such-route"},
		{"GET /v1/cnf-metrics/CNF-001?x", "", 400, "malformed-request"},
		{"DELETE /cnfmetrics/x", "body", 400, "malformed-request"},
		{"DELETE /cnfmetrics/post", "body", 418, "DELETE /cnfmetrics/post body <nil>"},
		{"GET /cnfmetrics/x|Sec-Fetch-Site: cross-site", "", 403, "cross-site"},
		{"POST /cnfmetrics/x|Sec-Fetch-Site: same-site", "", 403, "cross-site"},
		{"POST /cnfmetrics/x|Origin: http://evil.example", "", 403, "cross-site"},
		{"GET http://evil.example/cnfmetrics/x", "", 421, "wrong-host"},
	} {
		conn := localtest.Dial(t, "tcp", s.HTTP)
		line, header, _ := strings.Cut(c.request, "|")
		if header != "" {
			header += "\r\n"
		}
		conn.Send(fmt.Sprintf("%s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n%s", line, header, len(c.body), c.body))
		resp, body := conn.Response("GET")
		if resp.StatusCode != c.status || !strings.Contains(body, c.want) || strings.Contains(body, "canary") {
			t.Errorf("%s: %d %s, want %d %s", c.request, resp.StatusCode, body, c.status, c.want)
		}
		if resp.StatusCode == 418 && (resp.Header.Get("Allow") != "GET" || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8") {
			t.Errorf("%s: %v", c.request, resp.Header)
		}
	}
	if n := s.Config().Errors.Defects(); n != 1 {
		t.Errorf("%d defects", n)
	}
}

// Clients that route by the ring come from other pods.
func TestMountedAPIIsNotOnTheRoutedListener(t *testing.T) {
	s := localtest.Start(t, local.Config{CNFMetrics: localtest.Mounted{}})
	routed := s.Listen(t, "tcp", func(ln net.Listener) error { return s.ServeRouted(ln, nil) })
	if err := localtest.CallMounted(t, routed, ""); status.Code(err) != codes.Unimplemented {
		t.Errorf("gRPC: %v", err)
	}
	target := url.URL{Scheme: "http", Host: routed, Path: "/cnfmetrics/x"}
	resp, err := http.Get(target.String())
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("HTTP: %d", resp.StatusCode)
	}
}

func TestSidecarWithoutMount(t *testing.T) {
	s := localtest.Start(t, local.Config{})
	if err := localtest.CallMounted(t, s.GRPC, ""); status.Code(err) != codes.Unimplemented {
		t.Errorf("gRPC: %v", err)
	}
	conn := localtest.Dial(t, "tcp", s.HTTP)
	conn.Send("GET /cnfmetrics/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if resp, body := conn.Response("GET"); resp.StatusCode != http.StatusNotFound || !strings.Contains(body, "no-such-route") {
		t.Errorf("HTTP: %d %s", resp.StatusCode, body)
	}
}
