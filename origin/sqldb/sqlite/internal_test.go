package sqlite

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

func FuzzSQLiteURI(f *testing.F) {
	for _, seed := range []string{
		"rows.db", "/a b/rows?.db", "file:x.db?mode=rw&_pragma=a", "file::memory:?cache=shared", "file:%zz",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, dsn string) {
		read, write, err := connectionURIs(dsn)
		if err != nil {
			return
		}
		for uri, pragma := range map[string]string{read: "query_only(1)", write: "foreign_keys(1)"} {
			path, query, _ := strings.Cut(strings.TrimPrefix(uri, "file:"), "?")
			values, err := url.ParseQuery(query)
			if err != nil || !values.Has("mode") || !slices.Contains(values["_pragma"], pragma) {
				t.Fatalf("%q: %v", uri, err)
			}
			if plain, err := url.PathUnescape(path); !strings.HasPrefix(dsn, "file:") && (err != nil || plain != dsn) {
				t.Fatalf("%q became %q, %v", dsn, plain, err)
			}
		}
	})
}
