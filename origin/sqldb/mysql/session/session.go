// Package session makes connections to MySQL and MariaDB, and sets and verifies the variables on which reads and writes depend.
package session

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"

	mysqldriver "github.com/go-sql-driver/mysql"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb"
)

// variable is a variable of the session. Its value is as the server prints it.
type variable struct{ name, value string }

// required are the variables on which the bytes of a read, and the safety of reads and writes, depend.
var required = []variable{
	// With autocommit off, each read leaves a transaction open, and with CHAIN, each COMMIT. Its metadata lock blocks ALTER TABLE.
	{"autocommit", "1"},             //guard:mysql-read-leaves-a-transaction-open
	{"completion_type", "NO_CHAIN"}, //guard:mysql-commit-opens-a-transaction
	{"time_zone", "+00:00"},
	{"character_set_client", "utf8mb4"},
	{"character_set_results", "utf8mb4"},
	{"sql_select_limit", "18446744073709551615"}, //guard:mysql-rows-of-a-batch-missing
	{"sql_safe_updates", "0"},
	{"sql_auto_is_null", "0"},
	{"foreign_key_checks", "1"},
	{"unique_checks", "1"},
	{"lc_messages", "en_US"}, //guard:mysql-errors-in-another-language
}

// Parts of sql_mode. The other ones say how the queries of the configuration are read, or which values a write may have: they
// are those of the server or of the DSN.
var (
	requiredModes  = []string{"STRICT_ALL_TABLES", "NO_AUTO_VALUE_ON_ZERO"} // values are not truncated; 0 is a key
	forbiddenModes = []string{"PAD_CHAR_TO_FULL_LENGTH", "EMPTY_STRING_IS_NULL"}
)

// transaction are the variables that SET TRANSACTION changes. MariaDB and MySQL have different names for them, and each
// server skips the comment of the other one.
const transaction = "/*M! @@tx_read_only, @@tx_isolation */ /*!50720 @@transaction_read_only, @@transaction_isolation */"

// Open returns the connector for a DSN and its credentials, without connecting. Its errors contain no part of the DSN.
func Open(c origin.SourceConfig) (driver.Connector, *sqldb.Credentials, error) {
	config, err := parseDSN(c.DSN)
	if err != nil {
		return nil, nil, err
	}
	collation := collationOf(config)
	config.Collation = "" // a handshake with another character set than utf8mb4 is of no use
	credentials, err := sqldb.NewCredentials(c, parseAccount)
	if err != nil {
		return nil, nil, err
	}
	unverified, err := newConnector(config, credentials)
	if err != nil {
		return nil, nil, errBadDSN
	}
	return connector{unverified, config.Addr, collation, &atomic.Int64{}}, credentials, nil
}

func newConnector(config *mysqldriver.Config, credentials *sqldb.Credentials) (driver.Connector, error) {
	err := config.Apply(mysqldriver.BeforeConnect(func(_ context.Context, c *mysqldriver.Config) error {
		now := credentials.Current()
		c.User, c.Passwd = now.User, now.Password //guard:mariadb-password-not-reloaded
		return nil
	}))
	if err != nil {
		return nil, err
	}
	return mysqldriver.NewConnector(config)
}

func parseAccount(dsn string) (sqldb.Account, error) {
	c, err := parseDSN(dsn)
	if err != nil {
		return sqldb.Account{}, err
	}
	return sqldb.Account{Target: c.Net + " " + c.Addr + " " + c.DBName, User: c.User, Password: c.Passwd}, nil
}

// connector sets and verifies the variables of each connection. They win over the server's defaults, its
// init_connect, and the parameters of the DSN, which were set before.
type connector struct {
	driver.Connector
	addr      string
	collation string        // of parameters and literals
	full      *atomic.Int64 // see conn
}

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	raw, err := c.Connector.Connect(ctx)
	switch {
	case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		// Servers of other databases wait for the client to begin.
		return nil, &sqldb.NoAnswerError{Server: "MySQL or MariaDB", Addr: c.addr, Err: ctx.Err()}
	case rejectsVariable(err):
		return nil, fmt.Errorf("the server rejects a parameter of the DSN: %w", err)
	case err != nil:
		return nil, err
	}
	if err = c.start(ctx, raw); err != nil {
		_ = raw.Close() // the first error is returned
		return nil, err
	}
	return &conn{preparing: raw.(preparing), full: c.full}, nil
}

// rejectsVariable knows the errors about variables, their values and missing privileges.
func rejectsVariable(err error) bool {
	e, ok := errors.AsType[*mysqldriver.MySQLError](err)
	return ok && slices.Contains([]uint16{1115, 1193, 1227, 1229, 1231, 1232, 1238, 1273, 1298}, e.Number)
}

func (c connector) start(ctx context.Context, conn driver.Conn) error {
	exec := conn.(driver.ExecerContext)
	_, err := exec.ExecContext(ctx, c.set(), nil)
	if err == nil {
		// Connections can only write in a transaction that begins with READ WRITE.
		_, err = exec.ExecContext(ctx, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY", nil)
	}
	if err != nil {
		return fmt.Errorf("set the variables of the session: %w", err)
	}
	values, err := queryRow(ctx, conn, readBack)
	if err != nil {
		return fmt.Errorf("read the variables of the session: %w", err)
	}
	return verify(values)
}

func (c connector) set() string {
	set := make([]string, len(required))
	for i, v := range required {
		set[i] = v.name + " = '" + v.value + "'"
		if strings.Trim(v.value, "0123456789") == "" {
			set[i] = v.name + " = " + v.value
		}
	}
	mode := "@@sql_mode"
	for _, m := range forbiddenModes {
		mode = "REPLACE(" + mode + ", '" + m + "', '')"
	}
	mode = "CONCAT(" + mode + ", '," + strings.Join(requiredModes, ",") + "')" //guard:mysql-values-truncated
	return "SET " + strings.Join(set, ", ") + ", collation_connection = " + c.collation + ", sql_mode = " + mode
}

var readBack = func() string {
	names := make([]string, len(required))
	for i, v := range required {
		names[i] = "@@" + v.name
	}
	return "SELECT @@sql_mode, @@character_set_connection, " + strings.Join(names, ", ") + ", " + transaction
}()

// verify compares the answer to readBack.
func verify(values []string) error {
	want := append(slices.Clone(required), variable{"transaction_read_only", "1"}, variable{"transaction_isolation", "READ-COMMITTED"})
	if len(values) != len(want)+2 {
		return fmt.Errorf("the server has returned %d variables instead of %d: it is neither MySQL nor MariaDB", len(values), len(want)+2)
	}
	want = append([]variable{{"character_set_connection", "utf8mb4"}}, want...)
	for i, v := range want {
		if got := values[i+1]; got != v.value { //guard:mysql-variable-not-read-back
			return fmt.Errorf("the server, or a proxy in front of it, does not keep %s = %s (it is %q): connect directly, or through a "+
				"proxy that keeps the variables of a session", v.name, v.value, got)
		}
	}
	modes := strings.Split(values[0], ",")
	for _, m := range requiredModes {
		if !slices.Contains(modes, m) {
			return fmt.Errorf("the server, or a proxy in front of it, does not keep %s in sql_mode", m)
		}
	}
	return nil
}

// queryRow returns the values of one row, as text.
func queryRow(ctx context.Context, conn driver.Conn, query string) (texts []string, err error) {
	rows, err := conn.(driver.QueryerContext).QueryContext(ctx, query, nil)
	if err != nil {
		return nil, err
	}
	defer rows.Close() // it is read to its end, or the connection is dropped
	values := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(values); err != nil {
		return nil, err
	}
	for _, v := range values {
		if b, ok := v.([]byte); ok {
			v = string(b)
		}
		texts = append(texts, fmt.Sprint(v))
	}
	if err := rows.Next(values); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("more than one row, or %w", err)
	}
	return texts, nil
}

// collationOf returns the collation of the DSN if it is one of utf8mb4. A column's own collation wins over it anyway.
func collationOf(config *mysqldriver.Config) string {
	name := strings.ToLower(config.Collation)
	if strings.HasPrefix(name, "utf8mb4_") && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == "" {
		return name
	}
	return "utf8mb4_general_ci"
}
