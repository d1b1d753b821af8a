// Package admin shows a sidecar and its ring to the people who run it: a console page, the JSON that the page and the
// CLI are made of, and pprof where it is switched on. It changes nothing, and it listens on loopback only.
package admin

import (
	"context"
	"embed"
	"io/fs"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

// Source is what the pages show. Its functions may be called at the same time.
type Source struct {
	Node, Version string
	Started       time.Time
	Datasets      []*cache.Dataset
	// Ring returns the ring that reads are routed by; nil or empty where this member is alone.
	Ring func() *ring.Ring
	// Directory says how the members are found and how well.
	Directory func() Directory
	// Feed says how proxies are told of the ring; nil, or returning nil, where they are not.
	Feed func() *Feed
	// Others asks the other members of the ring for their State. It returns soon after ctx is done.
	Others func(ctx context.Context) []MemberState
	// Hosts are the names, without port, that the Host header may carry besides localhost and the loopback addresses.
	Hosts []string
	// Pprof turns /debug/pprof on.
	Pprof bool
}

// Directory is how well the member directory is followed.
type Directory struct {
	Kind       string `json:"kind"`       // etcd, static, xds or none
	Connected  bool   `json:"connected"`  // the list of members is known, and changes are heard of
	Registered bool   `json:"registered"` // this member is in it
	Detail     string `json:"detail,omitempty"`
}

// Feed is how the proxies that route by the ring are told of it.
type Feed struct {
	Version     string       `json:"version"`     // of the endpoints; empty before the first list of members
	Endpoints   int          `json:"endpoints"`   // members in it, those that are leaving included
	Subscribers int          `json:"subscribers"` // proxies that are connected
	Updates     int64        `json:"updates"`
	Refusals    int64        `json:"refusals"` // updates that a proxy did not take
	LastRefusal *FeedRefusal `json:"last_refusal,omitempty"`
}

// FeedRefusal is an update that a proxy did not take, in the proxy's own words.
type FeedRefusal struct {
	At       time.Time `json:"at"`
	Proxy    string    `json:"proxy"`
	Resource string    `json:"resource"`
	Reason   string    `json:"reason"`
}

//go:embed console
var embedded embed.FS

// pagePaths are the files of the console. A test compares them with the folder.
var pagePaths = []string{
	"/{$}", "/app.js", "/chart.js", "/dom.js", "/explain.js", "/history.js", "/icon.svg", "/ring.js", "/style.css",
}

// NewHandler serves the admin listener.
func NewHandler(s Source) http.Handler {
	a := &api{Source: s}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		apierror.New(apierror.NoSuchRoute, "there is no page "+r.URL.Path).Write(w)
	})
	page, _ := fs.Sub(embedded, "console") // fails only for a name that is not a path
	files := http.FileServerFS(page)
	for _, path := range pagePaths {
		mux.Handle(path, files)
	}
	mux.Handle("/api/state", sameOrigin(a.state))
	mux.Handle("/api/ring", sameOrigin(a.ring))
	mux.Handle("/api/cluster", sameOrigin(a.clusterStates))
	mux.Handle("/api/explain", sameOrigin(a.explain))
	if s.Pprof {
		mux.Handle("/debug/pprof/", sameOrigin(pprof.Index))
		mux.Handle("/debug/pprof/cmdline", sameOrigin(pprof.Cmdline))
		mux.Handle("/debug/pprof/profile", sameOrigin(pprof.Profile))
		mux.Handle("/debug/pprof/symbol", sameOrigin(pprof.Symbol))
		mux.Handle("/debug/pprof/trace", sameOrigin(pprof.Trace))
	}
	return guarded(mux, s.Hosts)
}

// policy lets the page load its own files and ask its own API, and nothing else: no inline script or style, no frame.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func guarded(next http.Handler, hosts []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case !allowHost(r.Host, hosts): //guard:page-whose-name-points-loopback-reads
			apierror.New(apierror.WrongHost, "this listener answers to localhost, loopback addresses and the configured hosts only").Write(w)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			apierror.New(apierror.WrongMethod, "nothing can be changed here: use GET").Write(w)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// allowHost reports whether a Host header names localhost, a loopback address or one of hosts, with any port. Without
// that check, a web page whose name an attacker has pointed at loopback (DNS rebinding) reads everything that is here.
func allowHost(header string, hosts []string) bool {
	name := header
	if host, port, err := net.SplitHostPort(header); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return false
		}
		name = host
	}
	named := func(host string) bool { return strings.EqualFold(name, host) }
	if named("localhost") || slices.ContainsFunc(hosts, named) {
		return name != ""
	}
	ip, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}

// sameOrigin refuses what a page of another site makes a browser ask for. That page could not read the answer, but it
// could keep this process busy. (Sec-Fetch-Site: Fetch Metadata, W3C. Other clients do not send it.)
func sameOrigin(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Sec-Fetch-Site") {
		case "", "same-origin", "none":
			next(w, r)
		default:
			apierror.New(apierror.CrossSite, "a page of another site asked").Write(w)
		}
	})
}
