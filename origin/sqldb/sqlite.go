package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	sqlitedriver "modernc.org/sqlite"

	"github.com/ringside-cache/ringside/origin"
)

// busyTimeout is how long a read waits for a writer that is changing the file's layout; in WAL mode readers hardly
// ever wait. SQLite sleeps through a cancelled context, so that it is well below the usual load_timeout.
const busyTimeout = 250 * time.Millisecond

// sqlite reads a file. The database may be another process's; it is opened read-only, but for the one connection of
// writes.
type sqlite struct{}

func openSQLite(c origin.SourceConfig) (connectors, dialect, error) {
	read, write, err := sqliteURIs(c.DSN)
	if err != nil {
		return connectors{}, nil, err
	}
	reads, err := sqlitedriver.NewConnector(read)
	if err != nil {
		return connectors{}, nil, errBadSQLite
	}
	writes, err := sqlitedriver.NewConnector(write)
	if err != nil {
		return connectors{}, nil, errBadSQLite
	}
	login, err := newLogin(c, func(dsn string) (account, error) { return account{address: dsn}, nil })
	path, _, _ := strings.Cut(strings.TrimPrefix(c.DSN, "file:"), "?")
	return connectors{fileConnector{reads, path}, fileConnector{writes, path}, login}, sqlite{}, err
}

// fileConnector names the file that cannot be opened, and nothing else of the DSN.
type fileConnector struct {
	driver.Connector
	path string
}

func (c fileConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w; there must be a database at this path, which begins where this program was started",
			c.path, err)
	}
	return conn, nil
}

// foreign is what DSNs of other databases have, which must not be printed as the path of a file.
var foreign = regexp.MustCompile(`://|@\w*\(|password\s*=`)

var errBadSQLite = errors.New("the DSN is not one of SQLite: a path, or a URI such as file:/data/rows.db")

// sqliteURIs adds what the connections need to the path or URI of a database: those that read, and the one that writes.
// Neither makes a file where there is none.
func sqliteURIs(dsn string) (read, write string, err error) {
	path, query, isURI := strings.TrimPrefix(dsn, "file:"), "", strings.HasPrefix(dsn, "file:")
	if isURI {
		path, query, _ = strings.Cut(path, "?")
	} else {
		path = (&url.URL{Path: path}).EscapedPath()
	}
	values, err := url.ParseQuery(query)
	if path == "" || err != nil || foreign.MatchString(dsn) && !strings.HasPrefix(dsn, "file://") { //guard:another-databases-dsn-printed-path-file
		return "", "", errBadSQLite
	}
	if path == ":memory:" && values.Get("cache") != "shared" {
		return "", "", errors.New("the DSN :memory: is another, empty database for each connection: use a file")
	}
	writes := maps.Clone(values)
	if !values.Has("mode") {
		values.Set("mode", "ro") //guard:database-made-where-there-none
		writes.Set("mode", "rw")
	}
	values["_pragma"] = append(slices.Clone(values["_pragma"]), pragmaBusy(busyTimeout), "query_only(1)")
	writes["_pragma"] = append(slices.Clone(writes["_pragma"]), pragmaBusy(busySlice), "foreign_keys(1)") //guard:sqlite-ignores-foreign-keys
	return "file:" + path + "?" + values.Encode(), "file:" + path + "?" + writes.Encode(), nil
}

func pragmaBusy(d time.Duration) string { return fmt.Sprintf("busy_timeout(%d)", d.Milliseconds()) }

func (sqlite) quote(name string) string { return quoteWith(`"`, name) }

// keyColumn keeps the driver from reading a key of a column declared DATE or the like as a time.
func (sqlite) keyColumn(column string) string { return "CAST(" + column + " AS TEXT)" }
func (sqlite) isAny() string                  { return " IN (?)" }
func (sqlite) parameter() string              { return "?" }

// badKey is never: SQLite compares anything with anything.
func (sqlite) badKey(error) bool { return false }

// timedOut is never: a context that is done interrupts the statement, which runs in this process.
func (sqlite) timedOut(error) bool { return false }

func (sqlite) describe(ctx context.Context, conn *sql.Conn, st *statement) ([]column, error) {
	return describeByRunning(ctx, conn, expand(st, 1))
}

func (sqlite) read(ctx context.Context, conn *sql.Conn, st *statement, keys []string, c *collector) error {
	kt, err := sqliteKeyType(ctx, conn, st)
	if err != nil {
		return err
	}
	keys = c.ofType(kt, keys)
	if len(keys) == 0 {
		return nil
	}
	r := &reading{st: st, key: keys[0], c: c, cell: sqliteCell}
	return r.run(ctx, conn, expand(st, len(keys)), kt.parameters(keys))
}

func (sqlite) list(ctx context.Context, conn *sql.Conn, st *statement, args []assignment, c *collector) error {
	r := &reading{st: st, c: c, cell: sqliteCell}
	return r.run(ctx, conn, st.sql, step{args: args}.values())
}

// sqliteKeyType asks how the key column is declared, each time: it costs microseconds and nobody tells of changes.
func sqliteKeyType(ctx context.Context, conn *sql.Conn, st *statement) (keyType, error) {
	if st.table == "" {
		return keyType{}, nil
	}
	d := sqlite{}
	rows, err := conn.QueryContext(ctx, "SELECT "+d.quote(st.key)+" FROM "+quoteTable(d, st.table)+" LIMIT 0")
	if err != nil {
		return keyType{}, err
	}
	defer rows.Close()
	_, types, err := columnsOf(rows)
	if err != nil || !strings.Contains(types[0], "INT") { // integer affinity (datatype3.html, 3.1)
		return keyType{}, err
	}
	return keyType{bits: 64}, nil
}

// sqliteCell goes by what the cell holds, and by the column's declared type where that leaves a choice.
func sqliteCell(_, declared string, v any) cell {
	base, _, _ := strings.Cut(declared, "(")
	switch v := v.(type) {
	case nil:
		return cell{}
	case int64:
		return sqliteInteger(base, declared, v)
	case float64:
		return sqliteFloat(base, declared, v)
	case string:
		return sqliteText(base, v)
	case []byte:
		return cell{binary, v}
	case time.Time:
		return sqliteTime(base, v)
	}
	return textCell(fmt.Sprint(v))
}

func sqliteInteger(base, declared string, v int64) cell {
	switch base {
	case "BOOL", "BOOLEAN":
		if v == 0 || v == 1 {
			return boolCell(v == 1)
		}
	case "DATE", "DATETIME", "TIMESTAMP", "TIMESTAMPTZ":
		return sqliteTime(base, time.Unix(v, 0))
	case "DECIMAL", "NUMERIC":
		if scale := scaleOf(declared); scale > 0 {
			return cell{bare, []byte(strconv.FormatInt(v, 10) + "." + strings.Repeat("0", scale))}
		}
	}
	return intCell(v)
}

// julianEpoch is 1970-01-01 as a Julian day number, the third way to hold a time (datatype3.html, 2.2).
const julianEpoch = 2440587.5

func sqliteFloat(base, declared string, v float64) cell {
	switch base {
	case "DATE", "DATETIME", "TIMESTAMP", "TIMESTAMPTZ":
		const dayInMilliseconds = 24 * 60 * 60 * 1000
		return sqliteTime(base, time.UnixMilli(int64(math.Round((v-julianEpoch)*dayInMilliseconds))))
	case "DECIMAL", "NUMERIC":
		if scale := scaleOf(declared); scale > 0 {
			return cell{bare, strconv.AppendFloat(nil, v, 'f', scale, 64)}
		}
	}
	return floatCell(v, 64)
}

// scaleOf returns the 2 of DECIMAL(10,2); SQLite keeps the words and forgets the zeros.
func scaleOf(declared string) int {
	_, inside, _ := strings.Cut(strings.TrimSuffix(declared, ")"), ",")
	scale, err := strconv.Atoi(strings.TrimSpace(inside))
	if err != nil || scale < 0 || scale > 38 {
		return 0
	}
	return scale
}

func sqliteText(base, v string) cell {
	switch base {
	case "JSON", "JSONB":
		return cell{document, []byte(v)}
	case "BLOB", "BYTEA", "BINARY", "VARBINARY":
		return cell{binary, []byte(v)}
	case "TIME":
		return reform(v, timeForm, "15:04:05", "15:04")
	case "DATETIME", "TIMESTAMP", "TIMESTAMPTZ":
		return reform(v, timestampForm, "2006-01-02 15:04:05", "2006-01-02 15:04:05Z07:00", time.RFC3339)
	}
	return textCell(v)
}

func sqliteTime(base string, t time.Time) cell {
	if base == "DATE" {
		return textCell(t.UTC().Format(dateForm))
	}
	return timestampCell(t)
}
