package sqldb

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	mysqldriver "github.com/go-sql-driver/mysql"

	"github.com/ringside-cache/ringside/origin"
)

// mysql reads MySQL and MariaDB.
type mysql struct {
	mariadb atomic.Pointer[bool] // nil until the first connection has been asked
	tables  sync.Map             // :: [2]string{table, key} → *tableTypes
}

func openMySQL(c origin.SourceConfig) (connectors, dialect, error) {
	config, err := mysqldriver.ParseDSN(c.DSN)
	if c.DSN == "" || err != nil || config.Net != "tcp" && config.Net != "unix" { // it would be part of a password
		return connectors{}, nil, errBadMySQL
	}
	config.ParseTime = false         // a time arrives as the database prints it
	config.InterpolateParams = false // a key is never part of a statement
	config.MultiStatements = false
	config.AllowAllFiles = false
	config.Logger = &mysqldriver.NopLogger{} // what it says comes back as an error too
	if config.Params == nil {
		config.Params = map[string]string{}
	}
	config.Params["time_zone"] = "'+00:00'"
	config.Params["sql_mode"] = "CONCAT(" + cmp.Or(config.Params["sql_mode"], "@@sql_mode") + ", ',STRICT_ALL_TABLES')" //guard:server-strict-cuts-values-off
	//guard:write-changes-nothing-meets-no-row
	config.ClientFoundRows = true // an UPDATE that changes nothing has met its row, too
	login, err := newLogin(c, mysqlAccount)
	if err != nil {
		return connectors{}, nil, err
	}
	connector, err := newMySQLConnector(config, login)
	if err != nil {
		return connectors{}, nil, errBadMySQL
	}
	return connectors{reads: readOnlyConnector{connector, config.Addr}, login: login}, &mysql{}, nil
}

func newMySQLConnector(config *mysqldriver.Config, l *login) (driver.Connector, error) {
	err := config.Apply(mysqldriver.BeforeConnect(func(_ context.Context, c *mysqldriver.Config) error {
		now := l.now()
		c.User, c.Passwd = now.user, now.password //guard:rotated-password-never-picked-up-mariadb
		return nil
	}))
	if err != nil {
		return nil, err
	}
	return mysqldriver.NewConnector(config)
}

func mysqlAccount(dsn string) (account, error) {
	c, err := mysqldriver.ParseDSN(dsn)
	if err != nil {
		return account{}, errBadMySQL
	}
	return account{c.Net + " " + c.Addr + " " + c.DBName, c.User, c.Passwd}, nil
}

var errBadMySQL = errors.New("the DSN is not one of MySQL, such as user:password@tcp(host:3306)/database?tls=true")

// readOnlyConnector makes connections that can not write, but in a transaction that says READ WRITE. It is no parameter
// of the DSN, as the variable has two names (tx_read_only, transaction_read_only) and no server knows both.
type readOnlyConnector struct {
	driver.Connector
	addr string
}

func (c readOnlyConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	switch {
	case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, &silentError{c.addr, ctx.Err()}
	case err != nil:
		return nil, err
	}
	_, err = conn.(driver.ExecerContext).ExecContext(ctx,
		"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY", nil)
	if err != nil {
		_ = conn.Close() // the error before says why
		return nil, fmt.Errorf("make the session read-only: %w", err)
	}
	return conn, nil
}

// silentError is about a server that has not greeted in time: those of other databases wait for the client to begin.
type silentError struct {
	addr string
	err  error
}

func (e *silentError) Error() string {
	return fmt.Sprintf("%v: no MySQL or MariaDB has answered at %s: check host and port, and that it is no other database's", e.err,
		e.addr)
}

func (e *silentError) Unwrap() error { return e.err }

func (*mysql) quote(name string) string       { return quoteWith("`", name) }
func (*mysql) keyColumn(column string) string { return column }
func (*mysql) isAny() string                  { return " IN (?)" }
func (*mysql) parameter() string              { return "?" }

// badKey knows 1292, incorrect value (of a type such as UUID or INET6), and 1366, incorrect string value.
func (*mysql) badKey(err error) bool { return errorNumber(err) == 1292 || errorNumber(err) == 1366 }

// timedOut knows 1969, max_statement_time of MariaDB, 3024, MAX_EXECUTION_TIME of MySQL, and 1205, a lock that did not
// come in time.
func (*mysql) timedOut(err error) bool {
	return slices.Contains([]uint16{1205, 1969, 3024}, errorNumber(err))
}

func errorNumber(err error) uint16 {
	if e, ok := errors.AsType[*mysqldriver.MySQLError](err); ok {
		return e.Number
	}
	return 0
}

func (m *mysql) describe(ctx context.Context, conn *sql.Conn, st *statement) ([]column, error) {
	return describeByRunning(ctx, conn, expand(st, 1))
}

func (m *mysql) read(ctx context.Context, conn *sql.Conn, st *statement, keys []string, c *collector) error {
	types, err := m.typesOf(ctx, conn, st)
	if err != nil {
		return err
	}
	keys = c.ofType(types.key, keys)
	if len(keys) == 0 {
		return nil
	}
	query, err := m.withTimeLimit(ctx, conn, expand(st, len(keys)))
	if err != nil {
		return err
	}
	r := &reading{st: st, key: keys[0], c: c, cell: types.cell}
	err = r.run(ctx, conn, query, types.key.parameters(keys))
	if err != nil {
		m.tables.Delete(st.tableKey()) // the table may have been altered
	}
	return err
}

func (m *mysql) list(ctx context.Context, conn *sql.Conn, st *statement, args []assignment, c *collector) error {
	types, err := m.typesOf(ctx, conn, st)
	if err != nil {
		return err
	}
	query, err := m.withTimeLimit(ctx, conn, st.sql)
	if err != nil {
		return err
	}
	r := &reading{st: st, c: c, cell: types.cell}
	return r.run(ctx, conn, query, step{args: args}.values())
}

var selectWord = regexp.MustCompile(`(?i)^\s*SELECT\b`)

// withTimeLimit has the database end the statement before the caller gives it up: MySQL does not notice that a client
// has gone. MySQL itself takes the limit of statements that begin with SELECT only.
func (m *mysql) withTimeLimit(ctx context.Context, conn *sql.Conn, query string) (string, error) {
	mariadb, err := m.isMariaDB(ctx, conn)
	limit := serverTimeout(ctx)
	switch {
	case err != nil:
		return "", err
	case limit == 0:
		return query, nil
	case mariadb:
		return fmt.Sprintf("SET STATEMENT max_statement_time=%.3f FOR %s", limit.Seconds(), query), nil
	}
	hint := fmt.Sprintf("SELECT /*+ MAX_EXECUTION_TIME(%d) */", limit/time.Millisecond)
	return selectWord.ReplaceAllLiteralString(query, hint), nil
}

func (m *mysql) isMariaDB(ctx context.Context, conn *sql.Conn) (bool, error) {
	if known := m.mariadb.Load(); known != nil {
		return *known, nil
	}
	var version string
	if err := conn.QueryRowContext(ctx, "SELECT VERSION()").Scan(&version); err != nil {
		return false, err
	}
	mariadb := strings.Contains(version, "MariaDB")
	m.mariadb.Store(&mariadb)
	return mariadb, nil
}

// typesLife is how long an ALTER TABLE that leaves all statements valid may go unnoticed.
const typesLife = time.Minute

// tableTypes is what the protocol does not tell of a table's columns.
type tableTypes struct {
	read time.Time
	key  keyType
	bool map[string]bool // :: column → declared tinyint(1), which is what BOOL stands for
	json map[string]bool // :: column → a text that MariaDB checks with json_valid, which is what JSON stands for
}

func (st *statement) tableKey() [2]string { return [2]string{st.table, st.key} }

// typesOf returns what the catalog says of a statement's table; nothing where the statement is the user's own.
func (m *mysql) typesOf(ctx context.Context, conn *sql.Conn, st *statement) (*tableTypes, error) {
	if st.table == "" {
		return &tableTypes{}, nil
	}
	if known, ok := m.tables.Load(st.tableKey()); ok && time.Since(known.(*tableTypes).read) < typesLife {
		return known.(*tableTypes), nil
	}
	types, err := m.readTypes(ctx, conn, st)
	if err == nil {
		m.tables.Store(st.tableKey(), types)
	}
	return types, err
}

func (m *mysql) readTypes(ctx context.Context, conn *sql.Conn, st *statement) (*tableTypes, error) {
	schema, table, ok := strings.Cut(st.table, ".")
	if !ok {
		schema, table = "", st.table
	}
	types := &tableTypes{read: time.Now(), bool: map[string]bool{}}
	err := eachPair(ctx, conn, `SELECT COLUMN_NAME, COLUMN_TYPE FROM information_schema.COLUMNS
		WHERE TABLE_SCHEMA = COALESCE(NULLIF(?, ''), DATABASE()) AND TABLE_NAME = ?`, schema, table,
		func(name, columnType string) {
			types.bool[name] = columnType == "tinyint(1)"
			if strings.EqualFold(name, st.key) {
				types.key = mysqlKeyType(columnType)
			}
		})
	if err != nil {
		return nil, err
	}
	types.json, err = m.checkedJSON(ctx, conn, schema, table)
	return types, err
}

// jsonCheck knows both quotes, as the server prints those of its sql_mode.
var jsonCheck = regexp.MustCompile("^json_valid\\([`\"](.*)[`\"]\\)$")

func (m *mysql) checkedJSON(ctx context.Context, conn *sql.Conn, schema, table string) (map[string]bool, error) {
	if mariadb, err := m.isMariaDB(ctx, conn); err != nil || !mariadb {
		return nil, err // MySQL has a type JSON, which the protocol tells
	}
	columns := map[string]bool{}
	err := eachPair(ctx, conn, `SELECT CHECK_CLAUSE, '' FROM information_schema.CHECK_CONSTRAINTS
		WHERE CONSTRAINT_SCHEMA = COALESCE(NULLIF(?, ''), DATABASE()) AND TABLE_NAME = ?`, schema, table,
		func(clause, _ string) {
			if m := jsonCheck.FindStringSubmatch(clause); m != nil {
				columns[m[1]] = true
			}
		})
	return columns, err
}

func eachPair(ctx context.Context, conn *sql.Conn, query, schema, table string, each func(a, b string)) error {
	rows, err := conn.QueryContext(ctx, query, schema, table)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var a, b string
		if err := rows.Scan(&a, &b); err != nil {
			return err
		}
		each(a, b)
	}
	return rows.Err()
}

// mysqlKeyType reads a column type such as "int(10) unsigned".
func mysqlKeyType(columnType string) keyType {
	name, _, _ := strings.Cut(strings.ToLower(columnType), "(")
	name, _, _ = strings.Cut(name, " ")
	bits := map[string]int{"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}[name]
	return keyType{bits: bits, unsigned: strings.Contains(columnType, "unsigned"), uuid: name == "uuid"}
}

func (t *tableTypes) cell(name, typeName string, v any) cell {
	switch v := v.(type) {
	case nil:
		return cell{}
	case int64:
		if t.bool[name] && (v == 0 || v == 1) {
			return boolCell(v == 1)
		}
		return intCell(v)
	case uint64:
		return cell{bare, strconv.AppendUint(nil, v, 10)}
	case float32:
		return floatCell(float64(v), 32)
	case float64:
		return floatCell(v, 64)
	case []byte:
		if t.json[name] {
			return cell{document, v}
		}
		return mysqlText(typeName, v)
	}
	return textCell(fmt.Sprint(v))
}

func mysqlText(typeName string, text []byte) cell {
	switch typeName {
	case "DECIMAL", "UNSIGNED BIGINT": // above the largest int64 it comes as text
		return cell{bare, text}
	case "DATETIME", "TIMESTAMP":
		return reform(string(text), timestampForm, "2006-01-02 15:04:05")
	case "TIME":
		return reform(string(text), timeForm, "15:04:05")
	case "JSON":
		return cell{document, text}
	case "BIT":
		return cell{bare, new(big.Int).SetBytes(text).Append(nil, 10)}
	case "BINARY", "VARBINARY", "TINYBLOB", "BLOB", "MEDIUMBLOB", "LONGBLOB", "GEOMETRY", "VECTOR":
		return cell{binary, text}
	}
	return cell{quoted, text}
}
