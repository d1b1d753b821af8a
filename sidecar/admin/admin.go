// Package admin serves the admin listener for operators: the console page, the JSON API behind the page and the command
// line, and pprof if enabled. It is read-only and listens on loopback only.
package admin

import (
	"context"
	"embed"
	"io/fs"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/hotkeys"
	"github.com/ringside-cache/ringside/sidecar/internal/httpfield"
)

// Source is what the listener shows. Its functions may be called concurrently.
type Source struct {
	Node, Version string
	Started       time.Time
	Datasets      func() []*cache.Dataset
	// HotKeys returns the hot keys of this member; may be nil.
	HotKeys func() []hotkeys.Key
	// Ring returns the ring in use; nil or empty if there is no other member.
	Ring func() *ring.Ring
	// Explain explains a key of one of Datasets; the error has a Kind.
	Explain func(ctx context.Context, dataset, key string) (adminapi.Explanation, error)
	// Verification returns what comparisons of a dataset with the database have found.
	Verification func(d *cache.Dataset) adminapi.Verification
	// Audit compares the entries of a dataset with the database: all of them, or so many of them; the error has a Kind.
	Audit func(ctx context.Context, d *cache.Dataset, keys int) (adminapi.Audit, error)
	// Gate returns who may read a dataset; may be nil, and then everybody may.
	Gate func(dataset string) *access.Gate
	// Directory returns the state of the member directory.
	Directory func() adminapi.Directory
	// XDS returns the state of the xDS publisher. It is nil, or returns nil, if the sidecar publishes no ring.
	XDS func() *adminapi.XDS
	// Others fetches the State of each other member of the ring. It returns soon after ctx is done.
	Others func(ctx context.Context) []adminapi.MemberState
	// History returns what the members recorded.
	History HistorySource
	// Errors is the log that has the texts of errors.
	Errors *apierror.Log
	// Hosts are the values, without port, that the Host header may have besides localhost and the loopback addresses.
	Hosts []string
	// Pprof enables /debug/pprof.
	Pprof bool
}

//go:embed console
var embedded embed.FS

// pagePaths are the files of the console. A test compares them with the folder.
var pagePaths = []string{
	"/{$}", "/app.js", "/chart.js", "/dom.js", "/explain.js", "/history.js", "/icon.svg", "/ring.js", "/style.css",
	"/tables.js", "/theme.js",
}

// NewHandler serves the admin listener.
func NewHandler(s Source) http.Handler {
	a := &api{Source: s}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		apierror.New(apierror.NoSuchRoute, "no such path: "+r.URL.Path).Write(w)
	})
	page, _ := fs.Sub(embedded, "console") // fails only for an invalid path
	files := http.FileServerFS(page)
	for _, path := range pagePaths {
		mux.Handle(path, files)
	}
	mux.Handle("/api/state", sameOrigin(a.state))
	mux.Handle("/api/ring", sameOrigin(a.ring))
	mux.Handle("/api/cluster", sameOrigin(a.clusterStates))
	mux.Handle("/api/history", sameOrigin(a.histories))
	mux.Handle("/api/explain", sameOrigin(a.explain))
	mux.Handle("/api/verification", sameOrigin(a.verification))
	mux.Handle("/api/audit", sameOrigin(a.audit))
	if s.Pprof {
		mux.Handle("/debug/pprof/", sameOrigin(pprof.Index))
		mux.Handle("/debug/pprof/cmdline", sameOrigin(cmdline))
		mux.Handle("/debug/pprof/profile", sameOrigin(pprof.Profile))
		mux.Handle("/debug/pprof/symbol", sameOrigin(pprof.Symbol))
		mux.Handle("/debug/pprof/trace", sameOrigin(pprof.Trace))
	}
	return withChecks(mux, s.Hosts)
}

// policy allows the page to load its own files and to call its own API only: no inline script or style, no frames.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func withChecks(next http.Handler, hosts []string) http.Handler {
	allowed := httpfield.NewHosts(hosts)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case !allowed.Allow(r.Host): //guard:dns-rebinding
			apierror.New(apierror.WrongHost, "the Host header must be localhost, a loopback address or one of the configured hosts").Write(w)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			apierror.New(apierror.WrongMethod, "the admin listener is read-only: use GET").Write(w)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// sameOrigin rejects requests that a page of another site makes a browser send. That page could not read the response,
// but it could keep this process busy. (Sec-Fetch-Site: Fetch Metadata, W3C. Other clients do not send it.)
func sameOrigin(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("Sec-Fetch-Site") {
		case "", "same-origin", "none":
			next(w, r)
		default:
			apierror.New(apierror.CrossSite, "the request comes from a page of another site").Write(w)
		}
	})
}
