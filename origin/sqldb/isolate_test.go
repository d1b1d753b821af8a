package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/bits"
	"math/rand"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// rejecting is a database that rejects a statement that has a key with the prefix "bad", and has a row for every other key.
type rejecting struct {
	driver.Conn
	Reader
	class   errclass.Class
	queries int
	probes  int
	broken  error // of every statement
}

var errRejected = errors.New("rejected: canary")

func (r *rejecting) Connect(context.Context) (driver.Conn, error) { return r, nil }
func (r *rejecting) Driver() driver.Driver                        { return nil }
func (r *rejecting) Close() error                                 { return nil }
func (r *rejecting) Class(err error) errclass.Class {
	if errors.Is(err, errRejected) {
		return r.class
	}
	return errclass.Origin
}
func (r *rejecting) Code(error) string { return "code 1" }

func (r *rejecting) Read(_ context.Context, _ *sql.Conn, _ *sqltext.Query, keys []string, set *rowset.Set) error {
	r.queries++
	if r.broken != nil {
		return r.broken
	}
	for _, key := range keys {
		if strings.HasPrefix(key, "bad") {
			return errRejected
		}
	}
	if err := set.Columns([]string{"v"}); err != nil {
		return err
	}
	for _, key := range keys {
		set.Row(key, []rowjson.Cell{rowjson.Text(key)})
	}
	return nil
}

func (r *rejecting) Probe(context.Context, *sql.Conn, *sqltext.Query) error {
	r.probes++
	return r.broken
}

func (r *rejecting) source(t *testing.T) *source {
	db, err := Open(Driver{Connect: func(c origin.SourceConfig) (*Database, error) {
		return &Database{Reads: r, Reader: r, Errors: r, Syntax: nil}, nil
	}}, origin.SourceConfig{Name: "db", DSN: "x"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return &source{db: db, dataset: origin.Dataset{Name: "rows", Value: "v"}, query: &sqltext.Query{List: true, Keyed: true}}
}

func TestRejectedKeysAreIsolatedInFewQueries(t *testing.T) {
	for seed := range int64(300) {
		random := rand.New(rand.NewSource(seed))
		n := 1 + random.Intn(200)
		bad := min(random.Intn(4), n)
		keys := make([]string, n)
		for i, at := range random.Perm(n) {
			keys[at] = fmt.Sprint(map[bool]string{true: "bad", false: "good"}[i < bad], i)
		}
		r := &rejecting{class: []errclass.Class{errclass.Statement, errclass.Row}[seed%2]}
		results, err := r.source(t).Load(t.Context(), keys)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for i, key := range keys {
			isBad, err := strings.HasPrefix(key, "bad"), results[i].Err
			invalid := errors.Is(err, origin.ErrInvalidKey)
			if !isBad && (err != nil || string(results[i].Value.Data) != key) || isBad && invalid != (r.class == errclass.Statement) {
				t.Errorf("seed %d: %s: got %q, %v", seed, key, results[i].Value.Data, err)
			}
			if isBad && (err == nil || strings.Contains(err.Error(), "canary") || !strings.Contains(err.Error(), "code 1")) {
				t.Errorf("seed %d: got %v, want the code and not the message", seed, err)
			}
		}
		if most := 1 + bad*2*bits.Len(uint(n)); r.queries > most || r.probes > 1 {
			t.Errorf("seed %d: %d queries and %d probes for %d bad keys among %d, want at most %d and 1", seed, r.queries, r.probes, bad, n, most)
		}
	}
}

// A query that fails for every key is a fault of the origin, even if the code is unknown.
func TestQueryThatFailsWithAnUnknownCode(t *testing.T) {
	r := &rejecting{class: errclass.Statement, broken: errRejected}
	s := r.source(t)
	for _, n := range []int{1, 100} {
		r.queries = 0
		keys := make([]string, n)
		for i := range keys {
			keys[i] = fmt.Sprint("k", i)
		}
		_, err := s.Load(t.Context(), keys)
		if err == nil || errors.Is(err, origin.ErrInvalidKey) || !strings.Contains(err.Error(), "fails for every key") {
			t.Errorf("%d keys: got %v, want an error of the origin", n, err)
		}
		if most := 1 + bits.Len(uint(n)); r.queries > most {
			t.Errorf("%d keys: %d queries, want at most %d", n, r.queries, most)
		}
	}
}

// Callers with bad keys must not double the queries.
func TestQueryThatWorkedIsNotProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rejecting{class: errclass.Statement}
		s := r.source(t)
		for i := range 3 {
			for range 10 {
				if _, err := s.Load(t.Context(), []string{"bad"}); err != nil {
					t.Fatal(err)
				}
			}
			if r.probes != i+1 {
				t.Errorf("%d probes after %d seconds, want %d", r.probes, i, i+1)
			}
			time.Sleep(worksFor)
		}
	})
}
