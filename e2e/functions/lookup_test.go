package functions

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"
)

// lookup is the counterpart of a dataset for functions that have no SQL module, such as proxies: the service that their users
// write, which runs one SELECT per request. It has the paths, header fields and statuses of Ringside, so that both
// configurations of the function are the same file.
type lookup struct {
	path        string // of the keys
	query       string
	header      string // for the column; empty: the column is the body
	contentType string // of bodies
	// For a key without a row.
	absent     int
	absentBody string
}

// lookupService is the file that users of SQL need beside the configuration of the function.
const lookupService = "../../../e2e/functions/lookup_test.go"

// lookups returns the addresses from which a function reads: sidecars, or two services with SQL.
func (p *place) lookups(l lookup) (local, secondary string) {
	p.t.Helper()
	if p.local != nil {
		return p.local.HTTP, p.secondary.Peer
	}
	return l.start(p), l.start(p)
}

func (l lookup) start(p *place) (address string) {
	p.t.Helper()
	db, err := sql.Open(p.engine.SQLDriver, p.database.DSN)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { l.serve(db, w, r) }))
	p.t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func (l lookup) serve(db *sql.DB, w http.ResponseWriter, r *http.Request) {
	key, ok := strings.CutPrefix(r.URL.Path, l.path)
	if !ok {
		return // a health check
	}
	ctx, cancel := context.WithTimeout(r.Context(), time.Second) // like load_timeout of a dataset
	defer cancel()
	var value string
	err := db.QueryRowContext(ctx, l.query, key).Scan(&value)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		l.write(w, l.absent, l.absentBody)
	case err != nil:
		w.WriteHeader(http.StatusServiceUnavailable)
	case l.header != "":
		w.Header().Set(l.header, value)
	default:
		l.write(w, http.StatusOK, value)
	}
}

func (l lookup) write(w http.ResponseWriter, status int, body string) {
	if l.contentType != "" {
		w.Header().Set("Content-Type", l.contentType)
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body) // fails only if the function has gone
}
