package e2e

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/e2e/rig"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
)

// valueForms are the datasets of each database, and the media type of their values.
var valueForms = []struct{ name, dataset, mediaType string }{
	{"lists", "table: entries, key: k, columns: [prio, name, price], rows: many, order: [-prio]", "application/json"},
	{"names", "table: entries, key: k, value: name, rows: many, order: [price]", "application/json"},
	{"rows", "table: units, key: k", "application/json"},
	{"docs", "table: units, key: k, value: doc", "application/json"},
	{"notes", "table: units, key: k, value: note", "text/plain; charset=utf-8"},
	{"raws", "table: units, key: k, value: raw", "application/octet-stream"},
	{"pages", "table: units, key: k, value: note, content_type: text/html", "text/html"},
}

// valueTypes are the types of columns in each database, and how it writes bytes.
var valueTypes = map[string]struct{ driver, key, json, bytes, literal string }{
	"postgres": {"postgres", "text", "jsonb", "bytea", `'\x%x'`},
	"mysql8":   {"mysql", "VARCHAR(20)", "JSON", "BLOB", "x'%x'"},
	"mariadb":  {"mysql", "VARCHAR(20)", "JSON", "BLOB", "x'%x'"},
	"sqlite":   {"sqlite", "TEXT", "JSON", "BLOB", "x'%x'"},
}

// fillValues writes the same random rows into a database, in an order of its own.
func fillValues(t *testing.T, db *sql.DB, kind string, seed uint64) {
	types := valueTypes[kind]
	random := rand.New(rand.NewPCG(seed, 0))
	words := []string{"a", "A", "b", "é", "e", "", "ab", "Z", "10", "9", "ß", "😀", `"`, "<&>"}
	word := func() string { return words[random.IntN(len(words))] }
	var entries, units []string
	for i := range 20 {
		for range random.IntN(9) {
			entries = append(entries, fmt.Sprintf("('k%d', %d, '%s', %d.%02d)", i, random.IntN(5), word(), random.IntN(30), random.IntN(100)))
		}
		units = append(units, fmt.Sprintf("('k%d', '%s', '[%d]', %s)", i, word()+word(), random.IntN(100), fmt.Sprintf(types.literal, word()+"\x00\xff")))
	}
	rand.Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
	for _, statement := range []string{
		"CREATE TABLE entries (k " + types.key + ", prio INT, name " + types.key + ", price DECIMAL(8,2))",
		"CREATE TABLE units (k " + types.key + " PRIMARY KEY, note " + types.key + ", doc " + types.json + ", raw " + types.bytes + ")",
		"INSERT INTO entries VALUES " + strings.Join(entries, ", "),
		"INSERT INTO units VALUES " + strings.Join(units, ", "),
	} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatalf("%s: %s: %v", kind, statement, err)
		}
	}
}

// startValues starts three sidecars in front of all databases.
func startValues(t *testing.T, seed uint64) []*rig.Sidecar {
	dsns := map[string]string{
		"postgres": rig.Postgres(t), "mysql8": rig.MySQL(t), "mariadb": rig.MariaDB(t), "sqlite": filepath.Join(t.TempDir(), "rows.db"),
	}
	var origins, datasets strings.Builder
	for kind, dsn := range dsns {
		driver := map[string]string{"postgres": "pgx"}[kind]
		if driver == "" {
			driver = valueTypes[kind].driver
		}
		db, err := sql.Open(driver, dsn)
		if err != nil {
			t.Fatal(err)
		}
		fillValues(t, db, kind, seed)
		_ = db.Close()
		fmt.Fprintf(&origins, "  %s: {driver: %s, dsn: %q}\n", kind, valueTypes[kind].driver, dsn)
		for _, form := range valueForms {
			fmt.Fprintf(&datasets, "  %s-%s: {origin: %s, ttl: 10m, local_ttl: 10m, load_timeout: 5s, %s}\n", kind, form.name, kind, form.dataset)
		}
	}
	return rig.StaticSidecars(t, 3, func(members string) string {
		return fmt.Sprintf("membership: {static: [%s]}\norigins:\n%sdatasets:\n%s", members, origins.String(), datasets.String())
	})
}

// read is what a client gets for a key.
type read struct{ value, mediaType string }

func readHTTP(t *testing.T, s *rig.Sidecar, dataset, key string) (r read) {
	t.Helper()
	response, err := http.Get(s.URL(dataset, key))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode == http.StatusNotFound {
		return read{}
	}
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s/%s: %d %s", dataset, key, response.StatusCode, body)
	}
	return read{string(body), response.Header.Get("Content-Type")}
}

func readGRPC(t *testing.T, client ringsidev1.CacheClient, dataset, key string) read {
	t.Helper()
	response, err := client.Get(t.Context(), &ringsidev1.GetRequest{Dataset: dataset, Key: key})
	if status.Code(err) == codes.NotFound {
		return read{}
	}
	if err != nil {
		t.Fatalf("%s/%s: %v", dataset, key, err)
	}
	return read{string(response.GetValue()), response.GetMeta().GetContentType()}
}

// The value of a key and its media type are the same from every database, through every member, whether it owns the key, has a
// copy, or neither, over HTTP and gRPC, and in a batch.
func TestListsAndTypedValuesAreTheSameEverywhere(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	sidecars := startValues(t, seed)
	keys := []string{"none"}
	for i := range 20 {
		keys = append(keys, fmt.Sprint("k", i))
	}
	want := map[string]read{} // :: form/key → what the first read returned
	sources := map[string]int{}
	for round := range 2 { // cold, and from memory
		for i, s := range sidecars {
			conn, err := grpc.NewClient(s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			client := ringsidev1.NewCacheClient(conn)
			for kind := range valueTypes {
				for _, form := range valueForms {
					dataset := kind + "-" + form.name
					for _, key := range keys {
						got := readHTTP(t, s, dataset, key)
						first, ok := want[form.name+"/"+key]
						if !ok {
							want[form.name+"/"+key], first = got, got
						}
						if over := readGRPC(t, client, dataset, key); got != first || over != first {
							t.Errorf("round %d, sidecar %d, %s/%s: got %q over HTTP and %q over gRPC, want %q", round, i, dataset, key, got, over, first)
						}
						if got.value != "" && got.mediaType != form.mediaType {
							t.Errorf("%s/%s has the type %q, want %q", dataset, key, got.mediaType, form.mediaType)
						}
					}
					checkValueBatch(t, client, dataset, keys, func(key string) read { return want[form.name+"/"+key] }, sources)
				}
			}
		}
	}
	checkSorted(t, want)
	for _, source := range []string{"SOURCE_HIT", "SOURCE_LOCAL_HIT"} {
		if sources[source] == 0 {
			t.Errorf("no value came from %s: %v", source, sources)
		}
	}
}

func checkValueBatch(t *testing.T, client ringsidev1.CacheClient, dataset string, keys []string, want func(string) read, sources map[string]int) {
	t.Helper()
	batch, err := client.BatchGet(t.Context(), &ringsidev1.BatchGetRequest{Dataset: dataset, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range batch.GetResults() {
		found := r.GetFound()
		if got := (read{string(found.GetValue()), found.GetMeta().GetContentType()}); got != want(r.GetKey()) {
			t.Errorf("batch of %s: %s is %q, want %q", dataset, r.GetKey(), got, want(r.GetKey()))
		}
		sources[found.GetMeta().GetSource().String()]++
	}
}

// checkSorted fails unless the lists are in their order, and some have several rows.
func checkSorted(t *testing.T, values map[string]read) {
	t.Helper()
	most := 0
	for name, r := range values {
		if !strings.HasPrefix(name, "lists/") || r.value == "" {
			continue
		}
		var rows []struct{ Prio int }
		if err := json.Unmarshal([]byte(r.value), &rows); err != nil {
			t.Fatalf("%s: %v: %s", name, err, r.value)
		}
		most = max(most, len(rows))
		if !slices.IsSortedFunc(rows, func(a, b struct{ Prio int }) int { return b.Prio - a.Prio }) {
			t.Errorf("%s is not in descending order: %s", name, r.value)
		}
	}
	if most < 2 {
		t.Errorf("the longest list has %d rows", most)
	}
}
