package sqldb_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin"
)

// throughPoolers runs test on PostgreSQL, directly and through PgBouncer in each mode. The connection of the database is
// direct, its DSN is that of the pooler. There are fewer sessions of the server than clients, so that clients change them.
func throughPoolers(t *testing.T, test func(t *testing.T, d database)) {
	for _, mode := range []rig.PoolMode{"direct", rig.SessionPool, rig.TransactionPool} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			server := rig.NewPostgres(t)
			d := database{DB: connect(t, "pgx", server.DSN), driver: "postgres", dsn: server.DSN}
			switch mode {
			case rig.SessionPool:
				d.dsn = rig.PgBouncer(t, server, mode).DSN
			case rig.TransactionPool:
				d.dsn = rig.PgBouncer(t, server, mode, "default_pool_size = 3").DSN
			}
			test(t, d)
		})
	}
}

const formats = `CREATE TABLE formats (k text PRIMARY KEY, ver bigint, b bytea, f double precision, r real, i interval, d date, tz timestamptz,
	list text[], days date[], zones timestamptz[], x xml, ranges tstzrange)`

const formatsRow = `INSERT INTO formats VALUES ('é', 1, '\x00ff41', 0.1::float8 + 0.2::float8, 1.1, '1 day 02:03:04', '2024-02-03',
	'2024-02-03 04:05:06+00', ARRAY[NULL, 'NULL'], ARRAY[date '2024-02-03'], ARRAY[timestamptz '2024-02-03 04:05:06+00'],
	'<a/>', tstzrange('2024-02-03 04:05:06+00', NULL))`

const formatsValue = `{"k":"é","ver":1,"b":"AP9B","f":0.30000000000000004,"r":1.1,"i":"1 day 02:03:04","d":"2024-02-03",` +
	`"tz":"2024-02-03T04:05:06.000000Z","list":"{NULL,\"NULL\"}","days":"{2024-02-03}",` +
	`"zones":"{\"2024-02-03 04:05:06+00\"}","x":"<a/>","ranges":"[\"2024-02-03 04:05:06+00\",)"}`

// formatsQuery has literals whose meaning depends on settings while the statement is parsed.
const formatsQuery = `SELECT '01/02/2024'::date AS d, '2024-01-01'::timestamptz AS tz, 'a\b' AS backslash, ARRAY[0.1::float8 + 0.2::float8] AS f,
	to_json(tz) AS js, xmlelement(name e, b) AS x, encode(b, 'hex') AS hex, i::text AS i, '{NULL}'::text[] AS list FROM formats WHERE k = $1`

const formatsQueryValue = `{"d":"2024-01-02","tz":"2024-01-01T00:00:00.000000Z","backslash":"a\\b","f":"{0.30000000000000004}",` +
	`"js":"2024-02-03T04:05:06+00:00","x":"<e>AP9B</e>","hex":"00ff41","i":"1 day 02:03:04","list":"{NULL}"}`

// otherFormats are the defaults of the role and of the database.
var otherFormats = []string{
	"ALTER DATABASE postgres SET bytea_output = 'escape'", "ALTER ROLE ringside SET extra_float_digits = -15",
	"ALTER DATABASE postgres SET intervalstyle = 'iso_8601'", "ALTER ROLE ringside SET datestyle = 'German, DMY'",
	"ALTER DATABASE postgres SET timezone = 'Asia/Tokyo'", "ALTER ROLE ringside SET xmlbinary = 'hex'",
	"ALTER ROLE ringside SET standard_conforming_strings = off", "ALTER DATABASE postgres SET array_nulls = off",
	"ALTER ROLE ringside SET client_encoding = 'LATIN1'", "ALTER ROLE ringside SET quote_all_identifiers = on",
}

// TestSettingsOfPostgres reads and writes while another client of the pooler changes every setting of its sessions.
func TestSettingsOfPostgres(t *testing.T) {
	throughPoolers(t, func(t *testing.T, d database) {
		d.exec(t, formats)
		d.exec(t, formatsRow)
		for _, statement := range otherFormats {
			d.exec(t, statement)
		}
		stop := d.disturb(t)
		defer stop()
		table := d.dataset(t, origin.Dataset{Table: "formats", Key: []string{"k"}, Version: "ver"})
		query := d.dataset(t, origin.Dataset{Query: formatsQuery})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 50 {
					d.wantValue(t, table, "é", formatsValue)
					d.wantValue(t, query, "é", formatsQueryValue)
				}
			})
		}
		wg.Wait()
		w, err := d.open(t).Writer(origin.Dataset{Name: "rows", Table: "formats", Key: []string{"k"}, Version: "ver"})
		if err != nil {
			t.Fatal(err)
		}
		for range 20 { // the value that was read, without its version
			v, err := w.Write(soon(t), origin.Change{Key: "é", Data: []byte(strings.Replace(formatsValue, `"ver":1,`, "", 1))})
			if want := fmt.Sprintf(`"ver":%d,`, v.Version); err != nil || string(v.Data) != strings.Replace(formatsValue, `"ver":1,`, want, 1) {
				t.Fatalf("write: got %s, %v", v.Data, err)
			}
		}
		var same bool
		d.scan(t, &same, `SELECT b = '\x00ff41' AND f = 0.1::float8 + 0.2::float8 AND i = '1 day 02:03:04'::interval AND
			tz = '2024-02-03 04:05:06+00' AND list[1] IS NULL AND list[2] = 'NULL' AND d = make_date(2024, 2, 3) FROM formats`)
		if !same {
			t.Error("a value that was read and written back has changed the row")
		}
	})
}

func (d database) wantValue(t *testing.T, o origin.Origin, key, want string) {
	t.Helper()
	results, err := o.Load(soon(t), []string{key})
	if err != nil {
		t.Errorf("%q: %v", key, err)
		return
	}
	if results[0].Err != nil || string(results[0].Value.Data) != want {
		t.Errorf("%q: got  %s, %v\nwant %s", key, results[0].Value.Data, results[0].Err, want)
	}
}

func (d database) scan(t testing.TB, to any, query string, args ...any) {
	t.Helper()
	if err := d.QueryRow(query, args...).Scan(to); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// disturb is an application behind the same pooler: it changes all settings of the sessions that it gets, and fails the test
// if it cannot write in one.
func (d database) disturb(t *testing.T) (stop func()) {
	t.Helper()
	d.exec(t, "CREATE TABLE application (n int)")
	ctx, cancel := context.WithCancel(t.Context())
	app := connect(t, "pgx", d.dsn+"&default_query_exec_mode=simple_protocol&client_encoding=UTF8&standard_conforming_strings=on")
	app.SetMaxOpenConns(2)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, err := app.ExecContext(ctx, "SET bytea_output = escape; SET IntervalStyle = sql_standard; SET DateStyle = 'SQL, DMY'; "+
					"SET TimeZone = 'America/New_York'; SET extra_float_digits = 0; SET array_nulls = off; SET xmlbinary = hex")
				if err == nil {
					_, err = app.ExecContext(ctx, "INSERT INTO application VALUES (1)")
				}
				if err != nil && ctx.Err() == nil {
					t.Errorf("the application cannot write through the pooler: %v", err)
					return
				}
				var digits string // 3 is what Ringside sets
				if err = app.QueryRowContext(ctx, "SELECT current_setting('extra_float_digits')").Scan(&digits); err == nil && digits == "3" {
					t.Error("the application has got a session with the settings of Ringside")
					return
				}
			}
		})
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// A parameter of the DSN must reach each transaction: with another search_path, a read finds another table.
func TestParametersOfADSN(t *testing.T) {
	throughPoolers(t, func(t *testing.T, d database) {
		for _, schema := range []string{"public", "mine"} {
			if schema != "public" {
				d.exec(t, "CREATE SCHEMA "+schema)
			}
			d.exec(t, "CREATE TABLE "+schema+".r (k text PRIMARY KEY, v text, ver bigint)")
			d.exec(t, "INSERT INTO "+schema+".r VALUES ('a', $1, 1)", schema)
		}
		d.exec(t, "CREATE TABLE mine.hidden (k int PRIMARY KEY, v text)") // cannot be parsed without the search_path
		d.exec(t, "INSERT INTO mine.hidden VALUES (7, 'mine')")
		ds := origin.Dataset{Name: "rows", Table: "r", Key: []string{"k"}, Value: "v", Version: "ver"}
		for _, parameters := range []string{
			"", "&search_path=mine", "&options=-c%20search_path%3Dmine", "&options=--search-path%3Dmine,public%20-cwork_mem%3D1MB",
			"&search_path=mine&bytea_output=escape&timezone=Asia/Tokyo&statement_timeout=1&default_transaction_read_only=off",
			"&search_path=\"mine\"&lock_timeout=3s&my.setting=it's%20%5C",
		} {
			want := "public"
			if parameters != "" {
				want = "mine"
			}
			pooled := d
			pooled.dsn += parameters
			db := pooled.open(t)
			for range 3 {
				o, err := db.Dataset(ds)
				if err != nil {
					t.Fatal(err)
				}
				d.wantValue(t, o, "a", want)
			}
			if want == "mine" {
				hidden, err := db.Dataset(origin.Dataset{Name: "rows", Query: "SELECT v FROM hidden WHERE k = $1", Value: "v"})
				if err != nil {
					t.Fatal(err)
				}
				d.wantValue(t, hidden, "7", "mine")
			}
			bytes, err := db.Dataset(origin.Dataset{Name: "rows", Query: `SELECT '\x00ff'::bytea AS v WHERE $1 <> ''`})
			if err != nil {
				t.Fatal(err)
			}
			d.wantValue(t, bytes, "a", `{"v":"AP8="}`)
			if err := errors.Join(db.Check(soon(t), ds), db.CheckWritable(soon(t), ds)); err != nil {
				t.Errorf("%s: %v", parameters, err)
			}
			l, err := db.Lister(ds)
			if err != nil {
				t.Fatal(err)
			}
			if rows, err := l.List(soon(t), origin.ListQuery{Limit: 10}); err != nil || len(rows) != 1 || string(rows[0].Value.Data) != want {
				t.Errorf("%s: list: got %v, %v", parameters, rows, err)
			}
			w, err := db.Writer(ds)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(soon(t), origin.Change{Key: "b", Data: []byte("x")}); err != nil {
				t.Errorf("%s: write: %v", parameters, err)
			}
			var n int
			d.scan(t, &n, "SELECT count(*) FROM "+want+".r WHERE k = 'b'")
			if n != 1 {
				t.Errorf("%s: the row was not written to schema %s", parameters, want)
			}
			d.exec(t, "DELETE FROM "+want+".r WHERE k = 'b'")
		}
		for parameters, want := range map[string]string{
			"&no_such_parameter=1": "no_such_parameter", "&work_mem=much": "work_mem", "&options=-c%20work_mem%3Dmuch": "work_mem",
			"&role=nobody_of_this_name": "nobody_of_this_name",
		} {
			wrong := d
			wrong.dsn += parameters
			if err := wrong.open(t).Check(soon(t), ds); err == nil || !strings.Contains(err.Error(), want) ||
				!strings.Contains(err.Error(), "parameter of the DSN") {
				t.Errorf("%s: got %v", parameters, err)
			}
		}
	})
}

// A dataset without the right to read is rejected, in a transaction of any session.
func TestCheckOfATableWithoutRights(t *testing.T) {
	throughPoolers(t, func(t *testing.T, d database) {
		d.exec(t, "CREATE TABLE r (k text PRIMARY KEY, v text)")
		d.exec(t, "CREATE ROLE reader")
		d.dsn += "&role=reader"
		err := d.open(t).Check(soon(t), origin.Dataset{Name: "rows", Table: "r", Key: []string{"k"}})
		if err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("got %v, want permission denied", err)
		}
	})
}

// A load cannot write, whichever session of the server it gets.
func TestLoadsThroughPoolersCannotWrite(t *testing.T) {
	throughPoolers(t, func(t *testing.T, d database) {
		d.exec(t, "CREATE TABLE r (k text PRIMARY KEY)")
		d.exec(t, "CREATE FUNCTION put(k text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO r VALUES (k); RETURN k; END $$")
		stop := d.disturb(t)
		defer stop()
		o := d.dataset(t, origin.Dataset{Query: "SELECT put($1) AS v"})
		for i := range 20 {
			results, err := o.Load(soon(t), []string{fmt.Sprint("k", i)})
			if err == nil && results[0].Err == nil {
				t.Errorf("got %s, want an error", results[0].Value.Data)
			}
		}
		var n int
		if d.scan(t, &n, "SELECT count(*) FROM r"); n != 0 {
			t.Errorf("loads have written %d rows", n)
		}
	})
}

// A key column whose type changes behind a pooler is parsed again.
func TestAlteredKeyThroughPoolers(t *testing.T) {
	throughPoolers(t, func(t *testing.T, d database) {
		d.exec(t, "CREATE TABLE r (k int PRIMARY KEY, v text)")
		d.exec(t, "INSERT INTO r VALUES (7, 'x')")
		o := d.dataset(t, origin.Dataset{Table: "r", Key: []string{"k"}, Value: "v"})
		d.wantValue(t, o, "7", "x")
		d.exec(t, "ALTER TABLE r ADD COLUMN more int")
		d.wantValue(t, o, "7", "x")
	})
}

// A notify feed behind a pooler in transaction mode would be live, as its own pings arrive, and silent.
func TestNotifyThroughPoolers(t *testing.T) {
	throughPoolers(t, func(t *testing.T, d database) {
		d.exec(t, rowsTable)
		r := d.record(t, rowsDataset, origin.FeedConfig{Kind: origin.FeedNotify})
		ctx := soon(t)
		err := r.db.CheckFeed(ctx, r.ds, origin.FeedConfig{Kind: origin.FeedNotify})
		if !strings.HasSuffix(t.Name(), string(rig.TransactionPool)) {
			if err != nil {
				t.Fatal(err)
			}
			f := r.started(t)
			d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
			f.want(map[string]int64{"a": 1})
			return
		}
		if !errors.Is(err, origin.ErrFeedUnavailable) || !strings.Contains(err.Error(), "pool_mode = session") {
			t.Errorf("check: got %v", err)
		}
		feed, err := r.db.Feed(r.ds, r.config)
		if err != nil {
			t.Fatal(err)
		}
		err = feed.Follow(ctx, func(c origin.Changes) { t.Errorf("the feed was live: %+v", c) })
		if !errors.Is(err, origin.ErrFeedUnavailable) {
			t.Errorf("follow: got %v", err)
		}
	})
}

// TestTargetSessionAttrs has a primary and a standby. Each value must find a server that is as libpq defines the value
// (PostgreSQL, 34.1.2), whichever host is first.
func TestTargetSessionAttrs(t *testing.T) {
	t.Parallel()
	primary := rig.NewPostgres(t)
	d := database{DB: connect(t, "pgx", primary.DSN), driver: "postgres", dsn: primary.DSN}
	standby := newStandby(t, d)
	readOnlyRole := "ALTER ROLE ringside SET default_transaction_read_only = on"
	none := ""
	for _, c := range []struct{ setup, attrs, both, onlyPrimary, onlyStandby string }{
		{none, "any", "first", "primary", "standby"},
		{none, "read-write", "primary", "primary", none},
		{none, "read-only", "standby", none, "standby"},
		{none, "primary", "primary", "primary", none},
		{none, "standby", "standby", none, "standby"},
		{none, "prefer-standby", "standby", "primary", "standby"},
		{readOnlyRole, "read-write", none, none, none},
		{readOnlyRole, "read-only", "first", "primary", "standby"},
		{readOnlyRole, "primary", "primary", "primary", none},
	} {
		if c.setup != none {
			d.exec(t, c.setup)
			d.waitForReplay(t, standby)
		}
		try := func(want string, hosts ...string) {
			t.Helper()
			dsn := fmt.Sprintf("postgres://ringside@%s/postgres?sslmode=disable&target_session_attrs=%s", strings.Join(hosts, ","), c.attrs)
			o := database{driver: "postgres", dsn: dsn}.dataset(t, origin.Dataset{
				Query: "SELECT CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END AS v WHERE $1 <> ''", Value: "v"})
			results, err := o.Load(soon(t), []string{"k"})
			switch {
			case want == none && (err == nil || !strings.Contains(err.Error(), "target_session_attrs")):
				t.Errorf("%s of %v: got %v, want an error that names target_session_attrs", c.attrs, hosts, err)
			case want != none && (err != nil || string(results[0].Value.Data) != want):
				t.Errorf("%s of %v: got %v, %v, want %s", c.attrs, hosts, results, err, want)
			}
		}
		first := func(name string) string {
			if c.both == "first" {
				return name
			}
			return c.both
		}
		p, s := hostOf(primary.DSN), hostOf(standby)
		try(first("primary"), p, s)
		try(first("standby"), s, p)
		try(c.onlyPrimary, p)
		try(c.onlyStandby, s)
	}
}

func hostOf(dsn string) string {
	_, rest, _ := strings.Cut(dsn, "@")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// An origin that looks for a standby cannot have writable datasets; validate calls Writer.
func TestWritesOnAStandbyAreRejected(t *testing.T) {
	for attrs, rejected := range map[string]bool{
		"any": false, "read-write": false, "primary": false, "standby": true, "prefer-standby": true, "read-only": true,
	} {
		for _, dsn := range []string{
			"postgres://user@127.0.0.1:1/db?sslmode=disable&target_session_attrs=" + attrs,
			"host=127.0.0.1 port=1 user='a b' target_session_attrs = '" + attrs + "' sslmode=disable",
		} {
			db := database{driver: "postgres", dsn: dsn}.open(t)
			_, err := db.Writer(origin.Dataset{Name: "rows", Table: "r", Key: []string{"k"}})
			if (err != nil) != rejected || rejected && !strings.Contains(err.Error(), "target_session_attrs="+attrs) {
				t.Errorf("%s: got %v", dsn, err)
			}
			if _, err := db.Dataset(origin.Dataset{Name: "rows", Table: "r", Key: []string{"k"}}); err != nil {
				t.Errorf("%s: %v", dsn, err)
			}
		}
	}
}

// A pooler in which each statement is a transaction of its own would lose the settings between two of them.
func TestPoolerThatSplitsTransactionsIsRejected(t *testing.T) {
	t.Parallel()
	server := rig.NewPostgres(t)
	d := database{DB: connect(t, "pgx", server.DSN), driver: "postgres", dsn: server.DSN}
	d.exec(t, "CREATE TABLE r (k text PRIMARY KEY, v text)")
	d.exec(t, "ALTER ROLE ringside SET bytea_output = 'escape'")
	d.exec(t, "ALTER ROLE ringside SET timezone = 'UTC'")
	d.dsn = strings.Replace(d.dsn, hostOf(d.dsn), interpose(t, hostOf(d.dsn), split), 1)
	err := d.open(t).Check(soon(t), origin.Dataset{Name: "rows", Table: "r", Key: []string{"k"}})
	if err == nil || !strings.Contains(err.Error(), `does not keep bytea_output = "hex"`) || !strings.Contains(err.Error(), "pool_mode") {
		t.Errorf("got %v", err)
	}
}

// split ends the transaction after each statement of a batch: it adds a Sync after each Execute that is not followed by one, and
// removes the answers to these from the stream.
func split(client, server net.Conn) {
	added := make(chan struct{}, 100) // for each Sync, the answer of which the client does not expect
	go func() {
		defer client.Close()
		for started := false; ; {
			m, err := readMessage(server, false)
			if err != nil {
				return
			}
			const readyForQuery = 'Z'
			if m[0] == readyForQuery && started && len(added) > 0 {
				<-added
				continue
			}
			started = started || m[0] == readyForQuery
			if _, err := client.Write(m); err != nil {
				return
			}
		}
	}()
	for startup := true; ; startup = false {
		m, err := readMessage(client, startup)
		if err != nil {
			return
		}
		if !startup && m[0] == 'E' {
			added <- struct{}{}
			m = append(m, 'S', 0, 0, 0, 4)
		}
		if _, err := server.Write(m); err != nil {
			return
		}
	}
}

// readMessage reads one message; the first of a client has no type.
func readMessage(c io.Reader, startup bool) ([]byte, error) {
	head := make([]byte, 5)
	if startup {
		head = head[:4]
	}
	if _, err := io.ReadFull(c, head); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[len(head)-4:])-4)
	_, err := io.ReadFull(c, body)
	return append(head, body...), err
}

// newStandby starts a standby of a server, and returns its DSN.
func newStandby(t *testing.T, primary database) (dsn string) {
	t.Helper()
	return rig.NewStandby(t, primary.dsn).DSN
}

// waitForReplay waits until a standby has what the primary has committed.
func (d database) waitForReplay(t *testing.T, standby string) {
	t.Helper()
	var at string
	d.scan(t, &at, "SELECT pg_current_wal_lsn()::text")
	replica := database{DB: connect(t, "pgx", standby)}
	for ctx := soon(t); ; time.Sleep(10 * time.Millisecond) {
		var done bool
		if replica.scan(t, &done, "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", at); done {
			return
		}
		if ctx.Err() != nil {
			t.Fatal("the standby does not follow")
		}
	}
}
