// Package session runs statements of PostgreSQL under settings that Ringside chooses, directly or through a pooler: it verifies
// that a connection keeps the settings, and prepares statements where no pooler prevents it.
package session

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ringside-cache/ringside/origin/sqldb"
	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
	"github.com/ringside-cache/ringside/origin/sqldb/postgres/dsn"
	"github.com/ringside-cache/ringside/origin/sqldb/tables"
)

// required are the settings on which the bytes of a read depend, and what a value that is written means.
var required = []dsn.Parameter{
	{Name: "client_encoding", Value: "UTF8"},
	{Name: "standard_conforming_strings", Value: "on"},
	{Name: "TimeZone", Value: "UTC"},
	{Name: "DateStyle", Value: "ISO, MDY"},
	{Name: "IntervalStyle", Value: "postgres"},
	{Name: "bytea_output", Value: "hex"},
	{Name: "extra_float_digits", Value: "3"}, // since PostgreSQL 12 the same as 1; before, only 3 prints all digits
	{Name: "xmlbinary", Value: "base64"},
	{Name: "array_nulls", Value: "on"},
	{Name: "quote_all_identifiers", Value: "off"},
}

// readOnly makes a statement that writes fail.
var readOnly = dsn.Parameter{Name: "transaction_read_only", Value: "on"}

const timeLimit = "statement_timeout"

// Settings belong to each transaction, not to the session, and travel in its round trip: a pooler may drop startup
// parameters, and gives each transaction another server session, where SET would apply to the transactions of others. A session
// that is certainly not a pooler's has the fixed ones from its start, and each transaction verifies that.
type Settings struct {
	read      string // sets everything for a transaction that reads; $1 is the time limit in milliseconds
	write     string // the same for one that writes
	rehearse  string // begins a transaction that writes, for statements that are only checked
	fixed     []dsn.Parameter
	readBack  string   // returns the server's process, and the value of each setting
	described sync.Map // :: SQL → *description, of connections behind a pooler
	// pooled is whether a prepared statement has disappeared, so that there is a pooler although the process is the expected one.
	pooled atomic.Bool
	// changed is whether a session has lost settings that it was given for all its transactions.
	changed atomic.Bool
}

// New returns those that every transaction needs, and those of the DSN.
func New(ofDSN []dsn.Parameter) *Settings {
	s := &Settings{fixed: slices.Concat(required, ofDSN)}
	s.read = "SELECT " + strings.Join(s.calls(append(slices.Clone(s.fixed), readOnly)), ", ") +
		", set_config('" + timeLimit + "', $1, true)"
	s.write = "SELECT " + strings.Join(s.calls(s.fixed), ", ") +
		", set_config('" + timeLimit + "', $1, true), set_config('idle_in_transaction_session_timeout', $1, true)"
	s.rehearse = "BEGIN READ WRITE; SELECT " + strings.Join(s.calls(s.fixed), ", ")
	s.readBack = "SELECT pg_backend_pid(), inet_client_port()"
	for _, f := range append(slices.Clone(s.fixed), readOnly) {
		s.readBack += ", current_setting(" + literal(f.Name) + ")"
	}
	return s
}

// Own are the names of the settings that Ringside chooses, whatever the DSN says.
func Own() (names []string) {
	for _, r := range required {
		names = append(names, r.Name)
	}
	return names
}

// Startup are the settings on which the bytes of a read depend, for the startup packet of a connection that no pooler may serve.
func Startup() map[string]string {
	parameters := map[string]string{}
	for _, r := range required {
		parameters[r.Name] = r.Value
	}
	return parameters
}

// Rehearsal begins a transaction that writes, for statements that are only checked.
func (s *Settings) Rehearsal() string { return s.rehearse }

// calls sets each of list until the end of the transaction.
func (*Settings) calls(list []dsn.Parameter) []string {
	calls := make([]string, len(list))
	for i, s := range list {
		calls[i] = "set_config(" + literal(s.Name) + ", " + literal(s.Value) + ", true)" //guard:setting-of-the-session
	}
	return calls
}

// literal is read alike with and without standard_conforming_strings.
func literal(text string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(text) + "'"
}

// limitOf is the time limit in the server for a statement.
func limitOf(ctx context.Context) []byte {
	return strconv.AppendInt(nil, sqldb.ServerTimeout(ctx).Milliseconds(), 10)
}

// Session is what is known about one connection. It is not safe for concurrent use, like the connection.
type Session struct {
	settings *Settings
	// direct is whether there is no pooler between this program and the server's process: statements can be prepared.
	direct   bool
	read     string                  // Settings.read, or what is left of it if the session has the fixed settings
	verifies bool                    // the result of read says whether the session has the fixed settings
	prepared map[string]*description // :: SQL → statement, if direct
	names    int                     // of statements that were prepared
}

// Direct reports whether there is no pooler between this program and the server's process.
func (s *Session) Direct() bool { return s.direct }

const sessionKey = "ringside"

// Of returns the session of a connection that Start has checked.
func Of(conn *pgconn.PgConn) *Session { return conn.CustomData()[sessionKey].(*Session) }

// Start checks a new connection: it reads back in a second statement what the first one has set, in one round trip, as
// each load does.
func (s *Settings) Start(ctx context.Context, conn *pgconn.PgConn) error {
	batch := &pgconn.Batch{}
	batch.ExecParams(s.read, [][]byte{limitOf(ctx)}, nil, nil, nil)
	batch.ExecParams(s.readBack, nil, nil, nil, nil)
	results, err := conn.ExecBatch(ctx, batch).ReadAll()
	for _, r := range results {
		err = cmp.Or(err, r.Err)
	}
	if err != nil {
		return s.explain(err)
	}
	if err := WantResults(len(results), 2, nil); err != nil {
		return err
	}
	set, now := OnlyRow(results[0]), OnlyRow(results[1])
	//guard:pooler-sends-results-of-another-session
	if len(set) != len(s.fixed)+2 || len(now) != len(s.fixed)+3 { // the time limit; the process and port, and both readOnly
		return ErrOutOfStep
	}
	for i, want := range append(slices.Clone(s.fixed), readOnly) {
		if got := string(now[i+2]); got != string(set[i]) { //guard:setting-not-read-back
			return fmt.Errorf("the server, or a pooler in front of it, does not keep %s = %q for the next statement of the same "+
				"transaction (it is %q): connect directly, or through a pooler with pool_mode = session or transaction",
				want.Name, set[i], got)
		}
	}
	pid, err := strconv.ParseUint(string(now[0]), 10, 32)
	if err != nil {
		return fmt.Errorf("pg_backend_pid: %w", err)
	}
	//guard:statements-prepared-through-a-pooler
	direct := uint32(pid) == conn.PID() && !s.pooled.Load() // a pooler makes up the process ID that it announces
	session := &Session{settings: s, direct: direct, read: s.read, prepared: map[string]*description{}}
	conn.CustomData()[sessionKey] = session
	if direct && !s.changed.Load() && isOwnPort(conn, string(now[1])) {
		return session.own(ctx, conn, set)
	}
	return nil
}

// isOwnPort reports whether the server sees the port of this end of the connection: a pooler has connections of its own.
func isOwnPort(conn *pgconn.PgConn, port string) bool {
	local, ok := conn.Conn().LocalAddr().(*net.TCPAddr)
	return ok && port == strconv.Itoa(local.Port) //guard:settings-stay-in-a-session-that-a-proxy-shares
}

// own gives the session the fixed settings, of which values are what the server prints.
func (s *Session) own(ctx context.Context, conn *pgconn.PgConn, values [][]byte) error {
	var set, same []string
	for i, f := range s.settings.fixed {
		if !strings.EqualFold(f.Name, timeLimit) { // that of the DSN would end what sets another one
			set = append(set, "set_config("+literal(f.Name)+", "+literal(f.Value)+", false)")
			same = append(same, "current_setting("+literal(f.Name)+") = "+literal(string(values[i])))
		}
	}
	if _, err := conn.ExecParams(ctx, "SELECT "+strings.Join(set, ", "), nil, nil, nil, nil).Close(); err != nil {
		return s.settings.explain(err)
	}
	s.verifies = true
	s.read = "SELECT " + strings.Join(same, " AND ") + ", " + strings.Join(s.settings.calls([]dsn.Parameter{readOnly}), "") +
		", set_config('" + timeLimit + "', $1, true)"
	return nil
}

// explain says which parameter of the DSN the server rejects.
func (s *Settings) explain(err error) error {
	switch SQLState(err) {
	case "42704", "22023", "42501", "55P02": // unknown, invalid value, no right, cannot be changed now
		return fmt.Errorf("the server rejects a parameter of the DSN: %w", err)
	}
	return err
}

// AddSettings adds the settings of a transaction that reads to the start of a batch.
func (s *Session) AddSettings(ctx context.Context, batch *pgconn.Batch) {
	limit := [][]byte{limitOf(ctx)}
	if sd := s.prepared[s.read]; sd != nil {
		batch.ExecPrepared(sd.Name, limit, nil, nil)
		return
	}
	batch.ExecParams(s.read, limit, nil, nil, nil)
}

// AddBegin adds what opens a transaction that may write, with the settings, and returns how many results that has. The limits
// make the database end it if this side stops sending.
func (s *Session) AddBegin(ctx context.Context, batch *pgconn.Batch) (results int) {
	batch.ExecParams("BEGIN READ WRITE", nil, nil, nil, nil)
	batch.ExecParams(s.settings.write, [][]byte{limitOf(ctx)}, nil, nil, nil)
	return 2
}

// AddStatement adds a statement that Statement has returned.
func AddStatement(batch *pgconn.Batch, sd *pgconn.StatementDescription, parameters ...[]byte) {
	if sd.Name != "" {
		batch.ExecPrepared(sd.Name, parameters, nil, nil)
		return
	}
	batch.ExecParams(sd.SQL, parameters, nil, nil, nil)
}

// description is a statement as it was parsed at a time.
type description struct {
	*pgconn.StatementDescription
	at time.Time
}

// recheckAfter is the age from which a rejected key causes another look at the types of a statement.
const recheckAfter = time.Second

// StatementFor returns a statement for keys, which fit the types of its parameters or do not. In that case it parses the statement
// again: the type of the key column may have changed, which the server does not report for a key that is not sent.
func (s *Session) StatementFor(ctx context.Context, conn *pgconn.PgConn, sql string, fit func(oids []uint32) bool) (
	*pgconn.StatementDescription, error,
) {
	sd, err := s.Statement(ctx, conn, sql)
	if err != nil || fit(sd.ParamOIDs) || !s.forget(ctx, conn, sql) {
		return sd, errclass.Keyless(err)
	}
	sd, err = s.Statement(ctx, conn, sql)
	return sd, errclass.Keyless(err)
}

// forget makes a statement be parsed again, unless it was parsed a moment ago.
func (s *Session) forget(ctx context.Context, conn *pgconn.PgConn, sql string) bool {
	known := s.prepared[sql]
	if !s.direct {
		shared, _ := s.settings.described.Load(sql)
		known, _ = shared.(*description)
	}
	if known == nil || time.Since(known.at) < recheckAfter {
		return false
	}
	s.settings.described.Delete(sql)
	delete(s.prepared, sql)
	return known.Name == "" || conn.Deallocate(ctx, known.Name) == nil
}

// Statement returns the types of a statement. It is prepared if there is no pooler, and only parsed otherwise: in the
// next transaction there may be another server session.
func (s *Session) Statement(ctx context.Context, conn *pgconn.PgConn, sql string) (*pgconn.StatementDescription, error) {
	if !s.direct {
		return s.describe(ctx, conn, sql)
	}
	for _, sql := range []string{s.read, sql} {
		if s.prepared[sql] != nil {
			continue
		}
		s.names++
		sd, err := s.Prepare(ctx, conn, "ringside_"+strconv.Itoa(s.names), sql)
		if err != nil {
			return nil, err
		}
		s.prepared[sql] = &description{sd, time.Now()}
	}
	return s.prepared[sql].StatementDescription, nil
}

// describe parses a statement once a minute, so that an ALTER TABLE is noticed.
func (s *Session) describe(ctx context.Context, conn *pgconn.PgConn, sql string) (*pgconn.StatementDescription, error) {
	if known, ok := s.settings.described.Load(sql); ok && time.Since(known.(*description).at) < tables.Lifetime {
		return known.(*description).StatementDescription, nil
	}
	sd, err := s.Prepare(ctx, conn, "", sql)
	if err == nil {
		s.settings.described.Store(sql, &description{sd, time.Now()})
	}
	return sd, err
}

// Prepare parses a statement under the settings: they decide what its names and literals mean.
func (s *Session) Prepare(ctx context.Context, conn *pgconn.PgConn, name, sql string) (sd *pgconn.StatementDescription, err error) {
	p := conn.StartPipeline(ctx)
	p.SendQueryParams(s.settings.read, [][]byte{limitOf(ctx)}, nil, nil, nil) //guard:statement-parsed-without-settings
	p.SendPrepare(name, sql, nil)
	if err := p.Sync(); err != nil {
		_ = p.Close() // the first error is returned
		return nil, err
	}
	for range 2 {
		result, err := p.GetResults()
		if err != nil {
			_ = p.Close() // the first error is returned
			return nil, err
		}
		switch result := result.(type) {
		case *pgconn.ResultReader:
			_, _ = result.Close() // GetResults returns the same error
		case *pgconn.StatementDescription:
			sd, result.Name, result.SQL = result, name, sql
		}
	}
	err = p.Close()
	if err == nil && sd == nil {
		err = ErrOutOfStep
	}
	return sd, err
}

// Failed makes a statement be parsed again after an error, as its types may have changed.
func (s *Session) Failed(sql string, err error) {
	s.settings.described.Delete(sql)
	if state := SQLState(err); state == "26000" || state == "42P05" { // no such statement; it exists already
		s.settings.pooled.Store(true)
	}
}
