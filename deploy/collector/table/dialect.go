package table

import (
	"database/sql"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // the parameter loc of MySQL names a zone, also in an image without zoneinfo

	mysqldriver "github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	sqlitedriver "modernc.org/sqlite"
)

// dialect has the differences between databases.
type dialect struct {
	schema    string                // file of the package schema
	parameter func(i int) string    // the i-th parameter of a statement, from 0
	onHeld    string                // the end of an upsert
	time      func(t time.Time) any // as a parameter
}

func (d dialect) parameters(first, n int) string {
	p := make([]string, n)
	for i := range p {
		p[i] = d.parameter(first + i)
	}
	return strings.Join(p, ", ")
}

func (d dialect) upsert(rows int) string {
	values := make([]string, rows)
	for i := range values {
		values[i] = "(" + d.parameters(7*i, 7) + ")"
	}
	return "INSERT INTO cnf_metrics (cnf_id, timestamp, metric_type, value, unit, status, ver) VALUES " +
		strings.Join(values, ", ") + " " + d.onHeld
}

const (
	onConflict = "ON CONFLICT (cnf_id) DO UPDATE SET timestamp = excluded.timestamp, " +
		"metric_type = excluded.metric_type, value = excluded.value, unit = excluded.unit, " +
		"status = excluded.status, ver = cnf_metrics.ver + 1"
	// VALUES() is the only form that both MySQL and MariaDB support.
	onDuplicateKey = "ON DUPLICATE KEY UPDATE timestamp = VALUES(timestamp), metric_type = VALUES(metric_type), " +
		"value = VALUES(value), unit = VALUES(unit), status = VALUES(status), ver = ver + 1"
)

func question(int) string { return "?" }
func dollar(i int) string { return "$" + strconv.Itoa(i+1) }

// zoneless formats a UTC time to the microsecond for databases without time zones.
func zoneless(t time.Time) any { return t.UTC().Format("2006-01-02 15:04:05.000000") }

func openPostgres(dsn string) (*sql.DB, dialect, error) {
	config, err := pgx.ParseConfig(dsn)
	if dsn == "" || err != nil {
		return nil, dialect{}, errors.New("the DSN is not a PostgreSQL DSN such as " +
			"postgres://user:password@host:5432/database (percent-encode special characters of the password)")
	}
	config.RuntimeParams["application_name"] = "ringside-collector"
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // a pooler in transaction mode may have no prepared statements
	keep := func(t time.Time) any { return t }
	return stdlib.OpenDB(*config), dialect{"postgres.sql", dollar, onConflict, keep}, nil
}

func openMySQL(dsn string) (*sql.DB, dialect, error) {
	errDSN := errors.New("the DSN is not a MySQL DSN such as user:password@tcp(host:3306)/database")
	config, err := mysqldriver.ParseDSN(dsn)
	if dsn == "" || err != nil {
		return nil, dialect{}, errDSN
	}
	config.Logger = &mysqldriver.NopLogger{} // its messages are also returned as errors
	if err := setVariables(config); err != nil {
		return nil, dialect{}, errDSN
	}
	connector, err := mysqldriver.NewConnector(config)
	if err != nil {
		return nil, dialect{}, errDSN
	}
	return sql.OpenDB(connector), dialect{"mysql.sql", question, onDuplicateKey, zoneless}, nil
}

// setVariables overrides the DSN and the server: in another character set, text is lost, and without autocommit, rows.
func setVariables(config *mysqldriver.Config) error {
	if config.Params == nil {
		config.Params = map[string]string{}
	}
	for name := range config.Params {
		if own := strings.ToLower(name); own == "autocommit" || own == "completion_type" {
			delete(config.Params, name)
		}
	}
	config.Params["autocommit"], config.Params["completion_type"] = "1", "0"
	config.Collation = ""
	return config.Apply(mysqldriver.Charset("utf8mb4", ""))
}

// openSQLite uses a write-ahead log (WAL), so that sidecars can read while a batch is written.
func openSQLite(dsn string) (*sql.DB, dialect, error) {
	errDSN := errors.New("the DSN is not a SQLite DSN: want a path, or a URI such as file:/data/rows.db")
	path, query, _ := strings.Cut(strings.TrimPrefix(dsn, "file:"), "?")
	if !strings.HasPrefix(dsn, "file:") {
		path, query = (&url.URL{Path: dsn}).EscapedPath(), ""
	}
	values, err := url.ParseQuery(query)
	if path == "" || err != nil {
		return nil, dialect{}, errDSN
	}
	for _, pragma := range []string{"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(NORMAL)"} {
		values.Add("_pragma", pragma)
	}
	connector, err := sqlitedriver.NewConnector("file:" + path + "?" + values.Encode())
	if err != nil {
		return nil, dialect{}, errDSN
	}
	return sql.OpenDB(connector), dialect{"sqlite.sql", question, onConflict, zoneless}, nil
}
