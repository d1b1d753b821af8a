package sqldb_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin"
)

// bothMySQL runs test on MySQL and on MariaDB.
func bothMySQL(t *testing.T, test func(t *testing.T, d database)) {
	for name, start := range map[string]func(testing.TB) string{"mysql8": rig.MySQL, "mariadb": rig.MariaDB} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := start(t)
			test(t, database{DB: connect(t, "mysql", dsn+"?autocommit=1&sql_mode=''&foreign_key_checks=1&sql_select_limit=1000&sql_safe_updates=0"),
				driver: "mysql", dsn: dsn})
		})
	}
}

// hostile are defaults of a server under which nothing works without variables of the session.
var hostile = []string{
	"SET GLOBAL autocommit = 0", "SET GLOBAL completion_type = 'CHAIN'", "SET GLOBAL time_zone = '+09:00'",
	"SET GLOBAL sql_mode = 'PAD_CHAR_TO_FULL_LENGTH,NO_UNSIGNED_SUBTRACTION,HIGH_NOT_PRECEDENCE,REAL_AS_FLOAT'",
	"SET GLOBAL sql_select_limit = 1", "SET GLOBAL foreign_key_checks = 0", "SET GLOBAL unique_checks = 0",
	"SET GLOBAL TRANSACTION ISOLATION LEVEL SERIALIZABLE",
	// Not for accounts with the rights of an administrator.
	"SET GLOBAL init_connect = 'SET NAMES latin1, autocommit = 0, sql_select_limit = 1, sql_safe_updates = 1, sql_auto_is_null = 1'",
}

var account = []string{
	"CREATE USER 'rw'@'127.0.0.1' IDENTIFIED BY 'rw'", "GRANT SELECT, INSERT, UPDATE, DELETE ON ringside.* TO 'rw'@'127.0.0.1'",
}

var variablesTables = []string{
	"CREATE TABLE parent (id INT PRIMARY KEY) ENGINE = InnoDB", "INSERT INTO parent VALUES (1)",
	`CREATE TABLE r (k VARCHAR(20) PRIMARY KEY, ver BIGINT, c CHAR(5), v VARCHAR(100) CHARACTER SET utf8mb4, at TIMESTAMP(3) NULL, p INT,
		FOREIGN KEY (p) REFERENCES parent (id)) ENGINE = InnoDB CHARACTER SET utf8mb4`,
	"SET time_zone = '+00:00'",
	"INSERT INTO r VALUES ('é', 1, 'ab', 'smile 😀', '2024-02-03 04:05:06.5', 1), ('b', 1, 'ab', 'smile 😀', '2024-02-03 04:05:06.5', 1), " +
		"('c', 1, 'ab', 'smile 😀', '2024-02-03 04:05:06.5', 1)",
	"CREATE TABLE counted (k INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(9)) ENGINE = InnoDB",
}

// TestVariablesOfMySQL has a server, or a DSN, with the wrong value of each variable.
func TestVariablesOfMySQL(t *testing.T) {
	bothMySQL(t, func(t *testing.T, d database) {
		admin, err := d.Conn(t.Context()) // one session, so that the defaults do not reach it
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { admin.Close() })
		exec := func(statement string) {
			t.Helper()
			if _, err := admin.ExecContext(t.Context(), statement); err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
		}
		root := database{DB: connect(t, "mysql", strings.Replace(d.dsn, "ringside:ringside", "root:", 1))}
		for _, statement := range account {
			root.exec(t, statement)
		}
		exec("SET NAMES utf8mb4")
		for _, statement := range variablesTables {
			exec(statement)
		}
		exec("SET lock_wait_timeout = 10")
		for _, parameters := range []string{
			"charset=latin1", "charset=utf8&collation=utf8_general_ci", "collation=latin1_swedish_ci", "charset=utf8&parseTime=True&loc=Local",
			"charset=utf8mb4&collation=utf8mb4_bin", "autocommit=0", "completion_type=1", "time_zone='%2B09:00'", "sql_select_limit=1",
			"sql_mode='PAD_CHAR_TO_FULL_LENGTH,NO_ZERO_DATE'", "parseTime=true&loc=Asia%2FTokyo", "columnsWithAlias=true",
			"interpolateParams=true", "rejectReadOnly=true", "clientFoundRows=false", "foreign_key_checks=0", "sql_safe_updates=1", "AUTOCOMMIT=0",
			"multiStatements=true", "character_set_results=latin1", "hostile",
		} {
			if parameters == "hostile" {
				for _, statement := range hostile {
					exec(statement)
				}
			}
			ours := d
			ours.dsn += "?" + parameters
			if parameters == "hostile" {
				ours.dsn = strings.Replace(d.dsn, "ringside:ringside", "rw:rw", 1)
			}
			t.Run(parameters, func(t *testing.T) { testVariables(t, ours, admin) })
		}
	})
}

func testVariables(t *testing.T, d database, admin *sql.Conn) {
	db, ds := d.open(t), origin.Dataset{Name: "rows", Table: "r", Key: []string{"k"}, Version: "ver"}
	o, err := db.Dataset(ds)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Check(soon(t), ds); err != nil {
		t.Error(err)
	}
	if err := db.CheckWritable(soon(t), ds); err != nil {
		t.Error(err)
	}
	const row = `{"k":%q,"ver":1,"c":"ab","v":"smile 😀","at":"2024-02-03T04:05:06.500000Z","p":1}`
	keys := []string{"é", "b", "c"}
	results, err := o.Load(soon(t), keys)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if want := fmt.Sprintf(row, keys[i]); r.Err != nil || string(r.Value.Data) != want {
			t.Errorf("%s: got %s, %v\nwant %s", keys[i], r.Value.Data, r.Err, want)
		}
	}
	alter(t, admin) // while the pool has idle connections
	w, err := db.Writer(ds)
	if err != nil {
		t.Fatal(err)
	}
	const value = `{"c":"x","v":"é 😀","at":"2024-02-03T04:05:06.500000Z","p":1}`
	v, err := w.Write(soon(t), origin.Change{Key: "neu ü", Data: []byte(value)})
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf(`{"k":"neu ü","ver":%d,`, v.Version) + value[1:]; string(v.Data) != want {
		t.Errorf("written: got %s, want %s", v.Data, want)
	}
	alter(t, admin)
	var stored string
	err = admin.QueryRowContext(soon(t), "SELECT CONCAT_WS(' ', HEX(k), HEX(c), HEX(v), at, p) FROM r WHERE k = 'neu ü'").Scan(&stored)
	if want := "6E657520C3BC 78 C3A920F09F9880 2024-02-03 04:05:06.500 1"; err != nil || stored != want {
		t.Errorf("stored: got %s, %v, want %s", stored, err, want)
	}
	if _, err := w.Write(soon(t), origin.Change{Key: "z", Data: []byte(`{"c":"too long","v":"","at":null,"p":1}`)}); err == nil {
		t.Error("a value that is too long was written")
	}
	if _, err := w.Write(soon(t), origin.Change{Key: "z", Data: []byte(`{"c":"","v":"","at":null,"p":2}`)}); err == nil {
		t.Error("a foreign key was ignored")
	}
	if _, err := w.Write(soon(t), origin.Change{Key: "neu ü", Delete: true}); err != nil {
		t.Error(err)
	}
	counted := origin.Dataset{Name: "counted", Table: "counted", Key: []string{"k"}, Value: "v"}
	if w, err = db.Writer(counted); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(soon(t), origin.Change{Key: "0", Data: []byte("zero")}); err != nil { // without a mode of the session, 0 becomes the next number
		t.Errorf("key 0: %v", err)
	}
	if _, err := w.Write(soon(t), origin.Change{Key: "0", Delete: true}); err != nil {
		t.Error(err)
	}
}

// alter fails if a connection holds a transaction open.
func alter(t *testing.T, admin *sql.Conn) {
	t.Helper()
	for _, statement := range []string{"ALTER TABLE r ADD COLUMN more INT", "ALTER TABLE r DROP COLUMN more"} {
		if _, err := admin.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// The modes of the DSN, and of the server, by which a query is read remain.
func TestModesOfAQuery(t *testing.T) {
	bothMySQL(t, func(t *testing.T, d database) {
		d.exec(t, "CREATE TABLE r (k VARCHAR(20) PRIMARY KEY, v VARCHAR(9))")
		d.exec(t, "INSERT INTO r VALUES ('a', 'x')")
		query := origin.Dataset{Query: `SELECT "v" || 'y' AS both_ FROM r WHERE k = ?`}
		d.wantValue(t, d.dataset(t, query), "a", `{"both_":0}`)
		modes := d
		modes.dsn += "?sql_mode='ANSI_QUOTES,PIPES_AS_CONCAT'"
		d.wantValue(t, modes.dataset(t, query), "a", `{"both_":"xy"}`)
	})
}

// A proxy that drops SET is rejected.
func TestProxyThatDropsVariablesIsRejected(t *testing.T) {
	bothMySQL(t, func(t *testing.T, d database) {
		d.exec(t, "CREATE TABLE r (k VARCHAR(20) PRIMARY KEY, v VARCHAR(9))")
		d.exec(t, "SET GLOBAL autocommit = 0")
		_, host, _ := strings.Cut(d.dsn, "(")
		host, _, _ = strings.Cut(host, ")")
		d.dsn = strings.Replace(d.dsn, host, interpose(t, host, dropVariables), 1)
		err := d.open(t).Check(soon(t), origin.Dataset{Name: "rows", Table: "r", Key: []string{"k"}})
		if err == nil || !strings.Contains(err.Error(), `does not keep autocommit = 1 (it is "0")`) {
			t.Errorf("got %v", err)
		}
	})
}

// dropVariables turns each SET into a statement without effect.
func dropVariables(client, server net.Conn) {
	go func() {
		defer client.Close()
		_, _ = io.Copy(client, server) // ends with either connection
	}()
	buffer := make([]byte, 1<<16)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		const command = "\x03SET " // a COM_QUERY follows four bytes of header
		if m := buffer[:n]; n > 4 && bytes.HasPrefix(m[4:], []byte(command)) {
			copy(m[5:], "DO 1"+strings.Repeat(" ", n-9))
		}
		if _, err := server.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// The error of a DSN names the parameter that is wrong, and nothing else of the DSN.
func TestErrorsOfAMySQLDSN(t *testing.T) {
	for parameters, want := range map[string]string{
		"tls=custom":                      "the parameter tls of the DSN is wrong: use true, skip-verify, preferred or false",
		"charset=utf8&tls=custom":         "the parameter tls of the DSN is wrong",
		"loc=Mars%2FPhobos":               "the parameter loc of the DSN is wrong: it is not the name of a time zone",
		"loc=%zz":                         "the parameter loc of the DSN is not percent-encoded",
		"parseTime=" + canary:             "the parameter parseTime of the DSN has an invalid value",
		"timeout=5&loc=UTC":               "the parameter timeout of the DSN has an invalid value",
		"readTimeout=5":                   "the parameter readTimeout of the DSN has an invalid value",
		"serverPubKey=" + canary:          "the parameter serverPubKey of the DSN has an invalid value",
		canary + "=%zz":                   "this is not a DSN of MySQL",
		"loc=Europe%2FBerlin":             "",
		"tls=skip-verify&loc=US%2FAlaska": "",
	} {
		for _, password := range []string{canary, canary + "/?tls=" + canary + "&x", canary + "@:(/)", canary + "%zz"} {
			_, err := openDB("mysql", origin.SourceConfig{Name: "db", DSN: "user:" + password + "@tcp(127.0.0.1:1)/db?" + parameters})
			if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), canary)) {
				t.Errorf("%s: got %v, want %q", parameters, err, want)
			}
		}
	}
}

// An image without zoneinfo has the zones that are part of the program.
func TestZonesArePartOfTheProgram(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "list", "-deps", "-json=ImportPath", "../../sidecar/cmd/ringside").Output()
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct{ ImportPath string }
		if err := d.Decode(&p); err != nil {
			t.Fatalf("time/tzdata is not part of the program: %v", err)
		}
		if p.ImportPath == "time/tzdata" {
			return
		}
	}
}
