package sqldb_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// placeholders replaces each ? of a query in its order, for PostgreSQL.
func (d database) placeholders(query string) string {
	for n := 1; d.driver == "postgres" && strings.Contains(query, "?"); n++ {
		query = strings.Replace(query, "?", fmt.Sprint("$", n), 1)
	}
	return query
}

// hardComponents have what the text of a key escapes, and what it does not.
var hardComponents = []string{"", "a", "A", "a/b", "/", "100%", "%2F", "%25", "%", " ", "a ", "ä/%", `"'\`, "日本", "a,b", "{}", "NULL"}

// userTable has a composite primary key; in MySQL with a collation that distinguishes all of hardComponents.
func (d database) userTable(t *testing.T) {
	t.Helper()
	collate := map[string]string{"mysql8": " COLLATE utf8mb4_0900_bin", "mariadb": " COLLATE utf8mb4_nopad_bin"}[d.engine]
	d.exec(t, fmt.Sprintf(`CREATE TABLE users (realm VARCHAR(50)%s NOT NULL, name VARCHAR(50)%s NOT NULL, v VARCHAR(100), ver BIGINT,
		PRIMARY KEY (realm, name))`, collate, collate))
}

var users = origin.Dataset{Name: "users", Table: "users", Key: []string{"realm", "name"}, Version: "ver", Value: "v"}

// compositeDatasets read the table in each way.
func (d database) compositeDatasets() map[string]origin.Dataset {
	query := d.placeholders("SELECT realm, name, v, ver FROM users WHERE realm = ? AND name = ?")
	batch := "SELECT realm, name, v, ver FROM users WHERE (realm, name) IN (?)"
	if d.driver == "postgres" {
		batch = "SELECT realm, name, v, ver FROM users WHERE (realm, name) IN (SELECT * FROM unnest($1::text[], $2::text[]))"
	}
	return map[string]origin.Dataset{
		"table": users,
		"query": {Query: query, Key: users.Key, Version: "ver", Value: "v"},
		"batch": {Query: query, Batch: batch, Key: users.Key, Version: "ver", Value: "v"},
	}
}

func testCompositeKeys(t *testing.T, d database) {
	d.userTable(t)
	want := map[string]string{
		"alice": "invalid", "a/b/c": "invalid", "a%2fb/c": "invalid", "a%/c": "invalid", "none/none": "absent", "a/%2F": "absent",
		"a\x00/b": "invalid", "\xff/b": "invalid",
	}
	insert := d.placeholders("INSERT INTO users VALUES (?, ?, ?, 1)")
	for i, realm := range hardComponents {
		for j, name := range hardComponents {
			key := origin.JoinKey(realm, name)
			if want[key] = "absent"; (i+j)%3 > 0 {
				want[key] = fmt.Sprint("v", i, "-", j)
				d.exec(t, insert, realm, name, want[key])
			}
		}
	}
	for name, ds := range d.compositeDatasets() {
		t.Run(name, func(t *testing.T) {
			ds.Name = "users"
			if err := d.open(t).Check(soon(t), ds); err != nil {
				t.Error(err)
			}
			checkOutcomes(t, d.dataset(t, ds), want)
		})
	}
	r := loadAll(t, d.dataset(t, users), "alice")[0]
	if r.Err == nil || !strings.Contains(r.Err.Error(), "1 of 2 components: want realm/name") {
		t.Errorf("got %v; want an error that names the columns", r.Err)
	}
}

// Each component is compared by its bytes, whatever the collation of its column.
func testCompositeKeysIgnoreCollations(t *testing.T, d database) {
	column := map[string]string{
		"postgres": `TEXT COLLATE "C"`, "mysql": "VARCHAR(50) COLLATE utf8mb4_general_ci", "sqlite": "TEXT COLLATE NOCASE",
	}[d.driver]
	d.exec(t, "CREATE TABLE users (realm "+column+" NOT NULL, name "+column+" NOT NULL, v VARCHAR(9), ver INT, PRIMARY KEY (realm, name))")
	d.exec(t, "INSERT INTO users VALUES ('Example.org', 'alice', 'x', 1)")
	want := map[string]string{"Example.org/alice": "x", "example.org/alice": "absent", "Example.org/Alice": "absent", "EXAMPLE.ORG/ALICE": "absent"}
	for name, ds := range d.compositeDatasets() {
		t.Run(name, func(t *testing.T) { checkOutcomes(t, d.dataset(t, ds), want) })
	}
}

func testCompositeKeysOfOtherTypes(t *testing.T, d database) {
	uuid := map[string]string{"postgres": "uuid", "mysql8": "CHAR(36)", "mariadb": "UUID", "sqlite": "TEXT"}[d.engine]
	if d.driver == "postgres" {
		uuid = "uuid"
	}
	const id, upper = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"
	d.exec(t, "CREATE TABLE cells (tac BIGINT NOT NULL, at DATE NOT NULL, id "+uuid+" NOT NULL, v VARCHAR(9), PRIMARY KEY (id, at, tac))")
	d.exec(t, "INSERT INTO cells VALUES (9007199254740993, '2024-02-29', '"+id+"', 'x'), (7, '2024-03-01', '"+id+"', 'y')")
	want := map[string]string{
		"9007199254740993/2024-02-29/" + id: "x", "7/2024-03-01/" + id: "y", "9007199254740992/2024-02-29/" + id: "absent",
		"7/2024-02-29/" + id: "absent", "07/2024-03-01/" + id: "invalid", "/2024-03-01/" + id: "invalid", "7a/2024-03-01/" + id: "invalid",
	}
	if d.is("postgres") || d.is("mariadb") {
		want["7/2024-03-01/"+upper] = "invalid"
	}
	if d.is("postgres") { // the others compare a text with the column
		want["7/yesterday, or so/"+id] = "invalid"
	}
	o := d.dataset(t, origin.Dataset{Table: "cells", Key: []string{"tac", "at", "id"}, Value: "v"})
	checkOutcomes(t, o, want)
	r := loadAll(t, o, "07/2024-03-01/"+id)[0]
	if r.Err == nil || !strings.Contains(r.Err.Error(), "component tac: ") {
		t.Errorf("got %v; want an error that names the column", r.Err)
	}
	// A column without a type, in SQLite, has values of all types.
	if d.driver == "sqlite" {
		d.exec(t, "CREATE TABLE bare (a, b INTEGER, v TEXT, PRIMARY KEY (a, b))")
		d.exec(t, "INSERT INTO bare VALUES (7, 1, 'integer'), ('8', 1, 'text'), (x'39', 1, 'blob'), (1.5, 2, 'real')")
		checkOutcomes(t, d.dataset(t, origin.Dataset{Table: "bare", Key: []string{"a", "b"}, Value: "v"}), map[string]string{
			"7/1": "integer", "8/1": "text", "9/1": "blob", "1.5/2": "real", "7/2": "absent", "7/x": "invalid",
		})
	}
}

// A plan that reads the index for each key reads few rows of a large table, for one key and for a batch.
func testCompositeKeysUseTheIndex(t *testing.T, d database) {
	d.userTable(t)
	d.exec(t, map[string]string{
		"postgres": "INSERT INTO users SELECT 'realm' || (i / 300), 'user' || (i % 300), 'x', 1 FROM generate_series(0, 89999) AS i",
		"mysql": `INSERT INTO users SELECT CONCAT('realm', a.i), CONCAT('user', b.i), 'x', 1
			FROM (` + digits("i", 300) + `) a, (` + digits("i", 300) + `) b`,
		"sqlite": `WITH n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 89999)
			INSERT INTO users SELECT 'realm' || (i / 300), 'user' || (i % 300), 'x', 1 FROM n`,
	}[d.driver])
	analyze := map[string]string{"postgres": "ANALYZE users", "mysql": "ANALYZE TABLE users", "sqlite": "ANALYZE"}[d.driver]
	rows, err := d.Query(analyze)
	if err != nil {
		t.Fatal(err)
	}
	rows.Close()
	for _, n := range []int{1, 2, 100} {
		plan := d.planOfKeys(t, n)
		t.Logf("%d keys: %s", n, plan)
		scans := map[string]string{"postgres": "Seq Scan on users", "mysql": `"access_type": "ALL"|"access_type": "index"`, "sqlite": "SCAN t"}[d.driver]
		uses := map[string]string{"postgres": "users_pkey", "mysql": "PRIMARY", "sqlite": "(realm=? AND name=?)"}[d.driver]
		for scan := range strings.SplitSeq(scans, "|") {
			if strings.Contains(plan, scan) || !strings.Contains(plan, uses) {
				t.Errorf("%d keys: the plan does not use the primary key: %s", n, plan)
			}
		}
		if d.driver == "postgres" && !(strings.Contains(plan, "(realm)::text =") && strings.Contains(plan, "(name)::text =")) {
			t.Errorf("%d keys: the plan does not look up both columns: %s", n, plan)
		}
		if d.driver == "mysql" && !(strings.Contains(plan, `"realm"`) && strings.Contains(plan, `"name"`)) {
			t.Errorf("%d keys: the plan does not look up both columns: %s", n, plan)
		}
	}
}

func digits(name string, n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprint("SELECT ", i, " AS ", name)
	}
	return strings.Join(all, " UNION ALL ")
}

// planOfKeys returns the plan of the statement that loads n keys.
func (d database) planOfKeys(t *testing.T, n int) string {
	t.Helper()
	list, arrays := "", [2]string{}
	for i := range n {
		list += fmt.Sprintf(",('realm%d','user%d')", i, i*7%100)
		arrays[0] += fmt.Sprintf(",realm%d", i)
		arrays[1] += fmt.Sprintf(",user%d", i*7%100)
	}
	statement := map[string]string{
		"mysql":  "EXPLAIN FORMAT=JSON SELECT t.realm, t.name, t.v FROM users AS t WHERE (t.realm, t.name) IN (" + list[1:] + ")",
		"sqlite": "EXPLAIN QUERY PLAN SELECT t.realm, t.name, t.v FROM users AS t WHERE (t.realm, t.name) IN (VALUES " + list[1:] + ")",
		"postgres": "EXPLAIN " + strings.NewReplacer("$1", "'{"+arrays[0][1:]+"}'::varchar[]", "$2", "'{"+arrays[1][1:]+"}'::varchar[]").Replace(
			"WITH types AS (SELECT FROM users AS t WHERE t.realm = ANY($1) AND t.name = ANY($2)) SELECT t.realm, t.name, t.v FROM users AS t "+
				"WHERE (t.realm, t.name) IN (SELECT * FROM unnest($1, $2))"),
	}[d.driver]
	rows, err := d.Query(statement)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	plan := ""
	for rows.Next() {
		columns, err := rows.Columns()
		if err != nil {
			t.Fatal(err)
		}
		values, targets := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			targets[i] = &values[i]
		}
		if err := rows.Scan(targets...); err != nil {
			t.Fatal(err)
		}
		if text, ok := values[len(values)-1].([]byte); ok {
			plan += string(text) + "\n"
		} else {
			plan += fmt.Sprint(values[len(values)-1]) + "\n"
		}
	}
	return plan
}

func testCompositeWrites(t *testing.T, d database) {
	d.userTable(t)
	ds := users
	ds.Value = ""
	db := d.open(t)
	if err := db.CheckWritable(soon(t), ds); err != nil {
		t.Fatal(err)
	}
	w, err := db.Writer(ds)
	if err != nil {
		t.Fatal(err)
	}
	o, err := db.Dataset(ds)
	if err != nil {
		t.Fatal(err)
	}
	write := func(c origin.Change, want error) origin.Value {
		t.Helper()
		v, err := w.Write(soon(t), c)
		if !errors.Is(err, want) {
			t.Errorf("%+v: %v; want %v", c, err, want)
		}
		return v
	}
	for _, realm := range hardComponents[:9] {
		key := origin.JoinKey(realm, "b/%")
		created := write(origin.Change{Key: key, Data: []byte(`{"v":"x"}`), If: origin.Condition{Absent: true}}, nil)
		if got := loadOne(t, o, key); string(got.Data) != string(created.Data) || got.Version != created.Version {
			t.Errorf("wrote %s, loaded %s", created.Data, got.Data)
		}
		again := write(origin.Change{Key: key, Data: created.Data, If: origin.Condition{Version: created.Version}}, nil)
		if again.Version <= created.Version {
			t.Errorf("version %d after %d", again.Version, created.Version)
		}
		write(origin.Change{Key: key, Data: []byte(`{"v":"x"}`), If: origin.Condition{Absent: true}}, origin.ErrConflict)
		write(origin.Change{Key: key, Data: []byte(`{"v":"x"}`), If: origin.Condition{Version: created.Version}}, origin.ErrConflict)
		write(origin.Change{Key: key, Data: []byte(`{"name":"b/%","v":"y"}`)}, nil)
		write(origin.Change{Key: key, Data: []byte(`{"name":"other","v":"y"}`)}, origin.ErrInvalidValue)
		write(origin.Change{Key: key, Data: []byte(`{"realm":"other","v":"y"}`)}, origin.ErrInvalidValue)
		write(origin.Change{Key: origin.JoinKey(realm, "none"), Data: []byte(`{"v":"y"}`), If: origin.Condition{Present: true}}, origin.ErrConflict)
		if got := string(loadOne(t, o, key).Data); !strings.Contains(got, `"v":"y"`) {
			t.Errorf("%q is %s", key, got)
		}
	}
	before := d.count(t, "SELECT count(*) FROM users")
	write(origin.Change{Key: "a/b%2F%25", Delete: true, If: origin.Condition{Present: true}}, nil)
	write(origin.Change{Key: "a/b%2F%25", Delete: true}, nil)
	if n := d.count(t, "SELECT count(*) FROM users"); n != before-1 {
		t.Errorf("%d rows after the deletion of one of %d", n, before)
	}
	write(origin.Change{Key: "a", Data: []byte(`{"v":"x"}`)}, origin.ErrInvalidKey)
	write(origin.Change{Key: "a/b/c", Delete: true}, origin.ErrInvalidKey)
	if _, err := db.Lister(ds); err == nil {
		t.Error("a key of two columns can be listed")
	}
}

// Only a unique index of exactly the key columns makes a write change one row.
func testCompositeKeyThatIsNotUnique(t *testing.T, d database) {
	for i, c := range []struct {
		index string
		ok    bool
	}{
		{"UNIQUE (realm, name)", true}, {"UNIQUE (name, realm)", true}, {"UNIQUE (realm, name, v)", false}, {"UNIQUE (realm)", false},
		{"UNIQUE (realm, v)", false}, {"PRIMARY KEY (name, realm)", true}, {"PRIMARY KEY (name)", false}, {"CHECK (v <> '')", false},
	} {
		ds := origin.Dataset{Name: "users", Table: fmt.Sprint("users", i), Key: []string{"realm", "name"}}
		d.exec(t, fmt.Sprintf("CREATE TABLE %s (realm VARCHAR(50) NOT NULL, name VARCHAR(50) NOT NULL, v VARCHAR(50) NOT NULL, %s)", ds.Table, c.index))
		err := d.open(t).CheckWritable(soon(t), ds)
		if c.ok != (err == nil) || err != nil && !strings.Contains(err.Error(), "the combination of columns realm, name") {
			t.Errorf("%s: %v", c.index, err)
		}
	}
}

// TestCompositeKeysOfFeedsAreThoseOfReads writes rows with random components in sessions with unusual settings, moves and deletes them.
func TestCompositeKeysOfFeedsAreThoseOfReads(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	components := map[string][][2]string{
		"postgres": {{"text", "varchar(60)"}, {"integer", "char(30)"}, {"timestamptz", "bytea"}},
		"mysql":    {{"VARCHAR(60) COLLATE utf8mb4_bin", "VARCHAR(60) CHARACTER SET latin1 COLLATE latin1_bin"}, {"INT", "CHAR(30)"}, {"TIMESTAMP(3)", "VARBINARY(30)"}},
		"sqlite":   {{"TEXT", "TEXT"}, {"INTEGER", "BLOB"}, {"DATETIME", "TEXT"}},
	}
	hard := func(r *rand.Rand) string { return quoted(hardComponents[r.IntN(len(hardComponents))]) }
	random := func(r *rand.Rand) string {
		if r.IntN(2) == 0 {
			return texts(asciiLetters, 8)(r)
		}
		return strings.ReplaceAll(hard(r), `\`, "") // MySQL reads it as an escape
	}
	literals := func(d database, declared string) func(r *rand.Rand) string {
		switch base := strings.ToLower(declared); {
		case strings.HasPrefix(base, "int"):
			return integers(-1<<31, 1<<31-1)
		case strings.HasPrefix(base, "timestamp"), base == "datetime":
			return times("2006-01-02 15:04:05", 1999, 2030)
		case base == "bytea":
			return hexes(`'\x`, "'", 5)
		case base == "blob", strings.HasPrefix(base, "varbinary"):
			// Without 0, at which SQLite's replace() ends a text: no read can name such a row.
			return func(r *rand.Rand) string { return fmt.Sprintf("x'2f25%02x%02x'", 1+r.IntN(255), 1+r.IntN(255)) }
		case strings.Contains(base, "latin1"), strings.HasPrefix(base, "char"):
			return texts(`ab%/2F5 `, 8)
		}
		return random
	}
	eachKind(t, func(t *testing.T, server database) {
		d, n := server.empty(t, "compositefeeds"), 0
		d.prepareKeyTypes(t)
		for i, pair := range components[d.driver] {
			for _, c := range d.feeds() {
				for several, second := range map[string][]string{"": nil, "/several": {"c", "d"}} {
					t.Run(strings.Join(pair[:], "+")+"/"+c.Kind+several, func(t *testing.T) {
						first, last := literals(d, pair[0]), literals(d, pair[1])
						p := &keyProperty{
							database: d, t: t, random: rand.New(rand.NewPCG(seed, uint64(i))), table: fmt.Sprint("keys", i, c.Kind, len(second)),
							columns: []string{"a", "b"}, second: second, types: pair[:],
							literals: func(r *rand.Rand) []string { return []string{first(r), last(r)} },
						}
						n += p.test(c)
					})
				}
			}
		}
		t.Logf("%s: %d keys, seed %d", d.engine, n, seed)
	})
}
