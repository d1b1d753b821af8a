package httporigin_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/httporigin"
)

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A value that has not changed is transferred once, as long as the cache holds it.
func TestRenewal(t *testing.T) {
	for name, h := range map[string]struct{ validator, condition string }{
		"ETag":          {"ETag", "If-None-Match"},
		"Last-Modified": {"Last-Modified", "If-Modified-Since"},
	} {
		t.Run(name, func(t *testing.T) {
			const validator = `"Mon, 03 Feb 2031 04:05:06 GMT"`
			var bodies, renewed atomic.Int64
			o := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set(h.validator, validator)
				w.Header().Set("Cache-Control", fmt.Sprintf("max-age=%d", 100+renewed.Load()))
				w.Header().Set("Content-Type", "application/json")
				if r.Header.Get(h.condition) == validator {
					renewed.Add(1)
					w.WriteHeader(http.StatusNotModified)
					return
				}
				bodies.Add(1)
				_, _ = w.Write([]byte(`{"a":1}`))
			})
			first := one(t, o, "k")
			second := one(t, o, "k")
			if bodies.Load() != 1 || renewed.Load() != 1 {
				t.Errorf("got %d bodies and %d renewals, want 1 and 1", bodies.Load(), renewed.Load())
			}
			for _, r := range []origin.Result{first, second} {
				if r.Err != nil || string(r.Value.Data) != `{"a":1}` || r.Value.Content != origin.ContentJSON || r.Value.Version != 0 {
					t.Errorf("got %q, %v, %v, version %d", r.Value.Data, r.Value.Content, r.Err, r.Value.Version)
				}
				if left := time.Until(r.Value.Expires); left < 0 || left > 101*time.Second {
					t.Errorf("it ends in %v, want 100 s", left)
				}
			}
			if other := one(t, o, "other"); other.Err != nil || bodies.Load() != 2 {
				t.Errorf("another key: %v, %d bodies", other.Err, bodies.Load())
			}
			runtime.KeepAlive(first)
			runtime.KeepAlive(second)
		})
	}
}

// The values that the cache has evicted are collected, and with them what is known of them.
func TestEvictedValuesAreLoadedAgain(t *testing.T) {
	var bodies atomic.Int64
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		if r.Header.Get("If-None-Match") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		bodies.Add(1)
		_, _ = w.Write([]byte("value"))
	})
	for bodies.Load() < 2 {
		if r := one(t, o, "k"); r.Err != nil || string(r.Value.Data) != "value" {
			t.Fatalf("got %q, %v", r.Value.Data, r.Err)
		}
		runtime.GC()
	}
}

func TestStatusCodes(t *testing.T) {
	handler := func(w http.ResponseWriter, r *http.Request) {
		var code int
		_, _ = fmt.Sscan(r.URL.Query().Get("name"), &code)
		w.WriteHeader(code)
	}
	o := serve(t, handler)
	server := httptest.NewServer(http.HandlerFunc(handler))
	t.Cleanup(server.Close)
	own := open(t, origin.SourceConfig{DSN: server.URL}, origin.HTTPValues{URL: "/?name={key}", NotFound: []int{403}, Invalid: []int{404}})
	for code, want := range map[int][2]error{
		200: {nil, nil}, 203: {nil, nil}, 204: {origin.ErrNotFound, errFailure}, 404: {origin.ErrNotFound, origin.ErrInvalidKey},
		410: {origin.ErrNotFound, errFailure}, 400: {origin.ErrInvalidKey, errFailure}, 422: {origin.ErrInvalidKey, errFailure},
		403: {errFailure, origin.ErrNotFound}, 500: {errFailure, errFailure}, 409: {errFailure, errFailure}, 302: {errFailure, errFailure},
	} {
		for i, o := range []origin.Origin{o, own} {
			if got := kindOf(one(t, o, fmt.Sprint(code)).Err); got != want[i] {
				t.Errorf("status %d, dataset %d: got %v, want %v", code, i, got, want[i])
			}
		}
	}
	results, err := o.Load(soon(t), []string{"500", "200", "404"})
	if err != nil || kindOf(results[0].Err) != errFailure || results[1].Err != nil || kindOf(results[2].Err) != origin.ErrNotFound {
		t.Errorf("one failure of three keys: got %+v, %v", results, err)
	}
}

var errFailure = errors.New("failure")

func kindOf(err error) error {
	for _, kind := range []error{origin.ErrNotFound, origin.ErrInvalidKey} {
		if errors.Is(err, kind) {
			return kind
		}
	}
	if err != nil {
		return errFailure
	}
	return nil
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestRetryAfterIsHonored(t *testing.T) {
	var requests atomic.Int64
	o := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	first, second := one(t, o, "a").Err, one(t, o, "b").Err
	if first == nil || second == nil || !strings.Contains(second.Error(), "Retry-After") || requests.Load() != 1 {
		t.Errorf("got %v and %v with %d requests; want the second one without a request", first, second, requests.Load())
	}
}

func TestRequestsInFlightAreLimited(t *testing.T) {
	var flying, peak atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := flying.Add(1)
		defer flying.Add(-1)
		for most := peak.Load(); n > most && !peak.CompareAndSwap(most, n); most = peak.Load() {
		}
		runtime.Gosched()
	}))
	t.Cleanup(server.Close)
	o := open(t, origin.SourceConfig{DSN: server.URL, MaxConns: 2}, origin.HTTPValues{URL: "/{key}"})
	keys := make([]string, 100)
	for i := range keys {
		keys[i] = fmt.Sprint(i)
	}
	if _, err := o.Load(soon(t), keys); err != nil || peak.Load() > 2 {
		t.Errorf("got %d requests at once, %v; want at most 2", peak.Load(), err)
	}
}

func TestCredentials(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(r.Header.Get("Authorization")))
	}))
	t.Cleanup(server.Close)
	values, file := origin.HTTPValues{URL: "/{key}"}, filepath.Join(t.TempDir(), "secret")
	o := open(t, origin.SourceConfig{DSN: server.URL, Auth: origin.Auth{TokenFile: file}}, values)
	for _, token := range []string{"first", "second"} {
		write(t, file, token+"\n")
		if r := one(t, o, "k"); string(r.Value.Data) != "Bearer "+token {
			t.Errorf("got %q, %v; want the token %s", r.Value.Data, r.Err, token)
		}
	}
	for _, wrong := range []string{"", "canary\r\nX-Admin: 1", "canary\x00", strings.Repeat("canary", 20_000)} {
		write(t, file, wrong)
		if r := one(t, o, "k"); r.Err == nil || !strings.Contains(r.Err.Error(), "token_file: want one line") || strings.Contains(r.Err.Error(), "canary") {
			t.Errorf("%.20q: got %.100v; want an error without the token", wrong, r.Err)
		}
	}
	write(t, file, "pass:word")
	o = open(t, origin.SourceConfig{DSN: server.URL, Auth: origin.Auth{Username: "u", PasswordFile: file}}, values)
	if r := one(t, o, "k"); string(r.Value.Data) != "Basic dTpwYXNzOndvcmQ=" {
		t.Errorf("got %q, %v", r.Value.Data, r.Err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if r := one(t, o, "k"); r.Err == nil || !strings.Contains(r.Err.Error(), "password_file") {
		t.Errorf("without the file: got %v", r.Err)
	}
}

func TestTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.Proto, " ", len(r.TLS.PeerCertificates))
	}))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	server.StartTLS()
	t.Cleanup(server.Close)
	values := origin.HTTPValues{URL: "/{key}"}
	if r := one(t, open(t, origin.SourceConfig{DSN: server.URL}, values), "k"); r.Err == nil || !strings.Contains(r.Err.Error(), "certificate") {
		t.Errorf("without the authority: got %q, %v", r.Value.Data, r.Err)
	}
	dir, c := t.TempDir(), server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(name, kind string, der []byte) string {
		return write(t, filepath.Join(dir, name), string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
	}
	auth := origin.Auth{
		CAFile: encode("ca.crt", "CERTIFICATE", server.Certificate().Raw), CertFile: encode("tls.crt", "CERTIFICATE", c.Certificate[0]),
		KeyFile: encode("tls.key", "PRIVATE KEY", key),
	}
	o := open(t, origin.SourceConfig{DSN: server.URL, Auth: auth}, values)
	for range 2 {
		if r := one(t, o, "k"); string(r.Value.Data) != "HTTP/2.0 1" {
			t.Errorf("got %q, %v; want HTTP/2 with a client certificate", r.Value.Data, r.Err)
		}
	}
}

func TestHTTP2WithoutTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, r.Proto) }))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	o := open(t, origin.SourceConfig{DSN: strings.Replace(server.URL, "http:", "h2c:", 1)}, origin.HTTPValues{URL: "/{key}"})
	results, err := o.Load(soon(t), []string{"a", "b", "c", "d", "e", "f"})
	if err != nil || slices.ContainsFunc(results, func(r origin.Result) bool { return string(r.Value.Data) != "HTTP/2.0" }) {
		t.Errorf("got %+v, %v", results, err)
	}
}

func TestContents(t *testing.T) {
	o := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.URL.Query().Get("name"))
		_, _ = w.Write([]byte(`"\u00e9"`))
	})
	for media, want := range map[string]origin.Content{
		"application/json; charset=utf-8": origin.ContentJSON, "application/problem+json": origin.ContentJSON, "text/plain": origin.ContentText,
		"application/octet-stream": origin.ContentBytes, "": origin.ContentUnknown, ";;": origin.ContentUnknown,
	} {
		if r := one(t, o, media+" "); r.Err != nil || r.Value.Content != want {
			t.Errorf("%q: got %v, %v; want %v", media, r.Value.Content, r.Err, want)
		}
	}
}

func TestCacheControlIsHonoredOrIgnored(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		_, _ = w.Write([]byte("v"))
	}))
	t.Cleanup(server.Close)
	for _, ignore := range []bool{false, true} {
		o := open(t, origin.SourceConfig{DSN: server.URL}, origin.HTTPValues{URL: "/{key}", IgnoreCacheControl: ignore})
		v := one(t, o, "k").Value
		if v.Expires.IsZero() != ignore || (v.MaxStale == nil) != ignore {
			t.Errorf("ignore %t: got the end %v, stale %v", ignore, v.Expires, v.MaxStale)
		}
	}
}

func TestOpenRejects(t *testing.T) {
	for dsn, want := range map[string]string{
		"": "no URL", "host:80": "no URL", "ftp://host": "no URL", "http://": "no URL", "https://u:canary@host": "token_file",
		"http://host/?x=canary": "belong to url", "http://host/{key}": "belong to url", "http://[canary": "no URL",
	} {
		if _, err := httporigin.Driver().Open(origin.SourceConfig{DSN: dsn}); err == nil || !strings.Contains(err.Error(), want) ||
			strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: got %v, want %q in it, and nothing of the DSN", dsn, err, want)
		}
	}
	for want, auth := range map[string]origin.Auth{
		"both or neither": {Username: "u"}, "set either token_file": {Username: "u", PasswordFile: "p", TokenFile: "t"},
		"want https": {CAFile: "ca"}, "cert_file and key_file": {CertFile: "c"},
	} {
		if _, err := httporigin.Driver().Open(origin.SourceConfig{DSN: "http://host", Auth: auth}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q in it", auth, err, want)
		}
	}
}

func TestCheck(t *testing.T) {
	var status atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/base/things/0" {
			t.Errorf("got the path %s", r.URL.Path)
		}
		w.WriteHeader(int(status.Load()))
	}))
	t.Cleanup(server.Close)
	source := openSource(t, origin.SourceConfig{DSN: server.URL + "/base/"})
	ds := origin.Dataset{Name: "things", HTTP: origin.HTTPValues{URL: "/things/{key}"}}
	for code, want := range map[int]bool{200: true, 404: true, 400: true, 500: false, 401: false, 301: false} {
		status.Store(int64(code))
		if err := source.Check(soon(t), ds); (err == nil) != want {
			t.Errorf("status %d: got %v", code, err)
		}
	}
}

func TestNoCompressionIsRequested(t *testing.T) {
	o := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(r.Header.Get("Accept-Encoding"))) })
	if r := one(t, o, "k"); string(r.Value.Data) != "identity" {
		t.Errorf("got Accept-Encoding %q, %v; want identity", r.Value.Data, r.Err)
	}
}

// A panic of the callback, or of a request, is raised on the goroutine of the caller.
func TestPanicReachesTheCaller(t *testing.T) {
	o := serve(t, func(http.ResponseWriter, *http.Request) {})
	defer func() {
		if p := recover(); !strings.Contains(fmt.Sprint(p), "of the caller") {
			t.Errorf("got the panic %v", p)
		}
	}()
	err := origin.LoadEach(soon(t), o, []string{"a", "b", "c"}, func(int, origin.Result) { panic("of the caller") })
	t.Errorf("it returned %v", err)
}
