package postgres

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ringside-cache/ringside/origin/sqldb"
	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
	"github.com/ringside-cache/ringside/origin/sqldb/postgres/session"
	"github.com/ringside-cache/ringside/origin/sqldb/rowwrite"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
	"github.com/ringside-cache/ringside/origin/sqldb/tables"
)

// writer implements sqldb.Writer.
type writer struct{ settings *session.Settings }

func (writer) Use(conn *sql.Conn, use func(sqldb.WriteSession) error) error {
	return conn.Raw(func(raw any) error {
		return use(&writeSession{conn: raw.(*stdlib.Conn).Conn().PgConn()})
	})
}

func (w writer) Rehearsal() (begin, prefix string) { return w.settings.Rehearsal(), "EXPLAIN " }

// writeSession implements sqldb.WriteSession. It runs a write in two round trips: the statements that open the transaction travel
// together with the change, and COMMIT travels alone, so that nothing was written if the connection ends before it. If triggers
// complete the row, a third one reads it; another one reads it before if it must be compared. Of several changes, the statements of
// many travel together.
type writeSession struct {
	conn  *pgconn.PgConn
	begun bool
	tx    *rowwrite.Transaction                // of the change that is being made
	sent  map[*rowwrite.Transaction]sentChange // the steps of these changes have run

	triggers string // the answer to triggersOf; empty while it is not known
	began    int64  // when the transaction began, as a version
	ended    int64  // when the step ended, as a version
}

// Begin lets the first statement begin the transaction.
func (t *writeSession) Begin(context.Context) error { return nil }

// addBegin adds the statements that open the transaction, if they are needed, and returns their number.
func (t *writeSession) addBegin(ctx context.Context, batch *pgconn.Batch) int {
	if t.begun {
		return 0
	}
	t.begun = true
	return session.Of(t.conn).AddBegin(ctx, batch)
}

// Exec implements sqldb.WriteSession.
func (t *writeSession) Exec(ctx context.Context, statement string) error {
	t.triggers = "" // ROLLBACK TO ends locks
	batch := &pgconn.Batch{}
	before := t.addBegin(ctx, batch)
	batch.ExecParams(statement, nil, nil, nil, nil)
	n, err := t.receive(t.conn.ExecBatch(ctx, batch), before, func(r *pgconn.ResultReader) error {
		_, err := r.Close()
		return err
	})
	if err != nil && n < before {
		err = errOfBegin(err)
	}
	return err
}

// Apply implements sqldb.WriteSession.
func (t *writeSession) Apply(ctx context.Context, tx *rowwrite.Transaction) (keep bool, err error) {
	t.tx, t.began, t.ended = tx, 0, 0
	return t.steps(ctx)
}

func (t *writeSession) steps(ctx context.Context) (keep bool, err error) {
	read := func() error { return t.readAgain(ctx, "") }
	if t.tx.Appends != tables.NotGenerated {
		if err := t.insert(ctx); err != nil {
			return false, err
		}
		return t.tx.VerifyWritten(read)
	}
	matched, err := t.tx.Match(rowwrite.Attempts{
		Compare: func() error { return t.readBefore(ctx) },
		Try:     func() (bool, error) { return t.tryEach(ctx) }, Read: func() error { return t.readAgain(ctx, t.lock()) },
		Suppresses: func() bool { return t.triggers != "none" },
	})
	switch {
	case err != nil:
		return false, err
	case matched && t.completes() && t.tx.Change.Delete:
		return t.tx.VerifyDeleted(read)
	case matched && t.completes(): //guard:value-from-before-after-triggers
		return t.tx.VerifyWritten(read)
	}
	return t.tx.Verify()
}

// readBefore reads the row before it is changed, and locks it as an UPDATE does.
func (t *writeSession) readBefore(ctx context.Context) error {
	batch := &pgconn.Batch{}
	before := t.addBegin(ctx, batch)
	lock := " FOR NO KEY UPDATE"
	if t.tx.View {
		lock = ""
	}
	if err := t.addRead(batch, lock); err != nil {
		return err
	}
	return t.runBatch(ctx, batch, before, nil)
}

// addRead adds the query of the row.
func (t *writeSession) addRead(batch *pgconn.Batch, lock string) error {
	parameters, err := keyParameters(t.tx.Query, []string{t.tx.Change.Key})
	if err == nil {
		batch.ExecParams(t.tx.Query.SQL+lock, parameters, nil, nil, nil)
	}
	return err
}

// runBatch runs a batch of which the first results are those of begin.
func (t *writeSession) runBatch(ctx context.Context, batch *pgconn.Batch, begin int, parameters []sqltext.Parameter,
	answers ...answer,
) error {
	n, err := t.read(t.conn.ExecBatch(ctx, batch), begin, answers...)
	switch {
	case err == nil:
		return nil
	case n < begin:
		err = errOfBegin(err)
	}
	return t.explain(err, parameters)
}

// tryEach runs the steps until one matches the row.
func (t *writeSession) tryEach(ctx context.Context) (matched bool, err error) {
	if s, ok := t.sent[t.tx]; ok {
		delete(t.sent, t.tx) // the next attempt runs them again
		if !t.tx.Matched() {
			return false, nil
		}
		t.began, t.ended = s.began, s.ended
		return true, t.renew(ctx, s.step)
	}
	t.tx.Forget()
	for _, step := range t.tx.Steps {
		batch := &pgconn.Batch{}
		before := t.addBegin(ctx, batch)
		batch.ExecParams(step.SQL+sqltext.Comment(ctx), textParameters(step.Parameters), nil, nil, nil)
		var answers []answer
		if step.Creates {
			batch.ExecParams(clock, nil, nil, nil, nil)
			answers = append(answers, t.setClock)
		}
		if t.triggers == "" { // the lock of an earlier change prevents new triggers
			batch.ExecParams(triggersOf, t.tableName(), nil, nil, nil)
			answers = append(answers, t.setTriggers)
		}
		if err := t.runBatch(ctx, batch, before, step.Parameters, answers...); err != nil {
			return false, err
		}
		if t.tx.Matched() {
			return true, t.renew(ctx, step)
		}
	}
	return false, nil
}

// insert runs the step of an append, which returns the key.
func (t *writeSession) insert(ctx context.Context) error {
	batch, step, key := &pgconn.Batch{}, t.tx.Steps[0], ""
	before := t.addBegin(ctx, batch)
	batch.ExecParams(step.SQL+sqltext.Comment(ctx), textParameters(step.Parameters), nil, nil, nil)
	n, err := t.receive(t.conn.ExecBatch(ctx, batch), before, func(r *pgconn.ResultReader) error {
		result := r.Read()
		if len(result.Rows) == 1 && len(result.Rows[0]) == 1 {
			key = string(result.Rows[0][0])
		}
		return result.Err
	})
	switch {
	case err == nil:
		return t.tx.SetKey(key)
	case n < before:
		err = errOfBegin(err)
	}
	return t.explain(err, step.Parameters)
}

// clock returns the time of the start of the transaction, and the time now, as versions.
const clock = "SELECT (extract(epoch FROM now()) * 1000000)::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

// renew gives the row that a step has created another version, if the step has waited. A row that it has updated has an earlier
// version than the transaction.
func (t *writeSession) renew(ctx context.Context, step sqltext.Step) error {
	version := t.tx.Rows.Result(t.tx.Change.Key).Value.Version
	if version < t.began || !t.tx.Waited(step, time.Duration(t.ended-version)*time.Microsecond) {
		return nil
	}
	t.tx.Forget()
	step, batch := t.tx.Renew(), &pgconn.Batch{}
	batch.ExecParams(step.SQL+sqltext.Comment(ctx), textParameters(step.Parameters), nil, nil, nil)
	err := t.runBatch(ctx, batch, 0, step.Parameters)
	if t.tx.NotRenewed(t.tx.Rows.Rows(), err) {
		return sqldb.ErrNotRenewed
	}
	return err
}

// triggersOf says what may suppress a change of a table, or change the row after RETURNING, other than Ringside's triggers:
// "before" only triggers that run before, "after" others too, rules, or foreign keys whose actions reach other tables, which
// may have triggers. Views, foreign tables and tables with partitions may hide any of these. It runs after the change, whose
// lock prevents new triggers.
const triggersOf = `WITH own AS (SELECT tgtype FROM pg_catalog.pg_trigger WHERE tgrelid = to_regclass($1) AND NOT tgisinternal
		AND tgenabled <> 'D' AND tgtype & 28 <> 0 AND tgname !~ '^ringside_(notify|poll)_')
	SELECT CASE
	WHEN c.relkind NOT IN ('r', 'p') THEN 'view'
	WHEN c.relkind = 'p' OR c.relhassubclass OR c.relhasrules
		OR EXISTS (SELECT FROM pg_catalog.pg_constraint f WHERE f.confrelid = c.oid AND concat(f.confupdtype, f.confdeltype) ~ '[cnd]')
		OR EXISTS (SELECT FROM own WHERE tgtype & 2 = 0) THEN 'after'
	WHEN EXISTS (SELECT FROM own) THEN 'before'
	ELSE 'none' END
	FROM pg_catalog.pg_class c WHERE c.oid = to_regclass($1)`

// tableName is the parameter of triggersOf.
func (t *writeSession) tableName() [][]byte {
	return [][]byte{[]byte(sqltext.QuoteTable(syntax{}, t.tx.Query.Table))}
}

// completes reports whether something may have changed the row after RETURNING.
func (t *writeSession) completes() bool { return t.triggers != "none" && t.triggers != "before" }

// lock ends a query of rows that must not change. Rows of views may be impossible to lock.
func (t *writeSession) lock() string {
	if t.triggers == "view" {
		return ""
	}
	return " FOR UPDATE"
}

// readAgain reads the row as it will be committed: it makes deferred triggers run now, and not at COMMIT.
func (t *writeSession) readAgain(ctx context.Context, lock string) error {
	batch := &pgconn.Batch{}
	batch.ExecParams("SET CONSTRAINTS ALL IMMEDIATE", nil, nil, nil, nil) //guard:deferred-triggers-run-after-read
	if err := t.addRead(batch, lock); err != nil {
		return err
	}
	if _, err := t.read(t.conn.ExecBatch(ctx, batch), 1); err != nil {
		return t.explain(err, nil)
	}
	return nil
}

// answer receives the rows of a result.
type answer func(rows [][][]byte) error

// read adds the rows of the result that follows the first ones to the transaction; the next results are the answers. It returns
// how many results have begun.
func (t *writeSession) read(results *pgconn.MultiResultReader, before int, answers ...answer) (n int, err error) {
	return t.receive(results, before, func(r *pgconn.ResultReader) error {
		return readRows(r, t.tx.Query, t.tx.Change.Key, t.tx.Rows)
	}, answers...)
}

// receive passes the result that follows the first ones to main, and the next ones to the answers.
func (t *writeSession) receive(results *pgconn.MultiResultReader, before int, main func(*pgconn.ResultReader) error, answers ...answer) (
	n int, err error,
) {
	for ; err == nil && results.NextResult(); n++ {
		switch {
		case n == before:
			err = main(results.ResultReader())
		case n > before && n <= before+len(answers):
			result := results.ResultReader().Read()
			if err = result.Err; err == nil {
				err = answers[n-before-1](result.Rows)
			}
		default:
			_, err = results.ResultReader().Close()
		}
	}
	err = cmp.Or(err, results.Close()) // otherwise it returns the same error
	return n, session.WantResults(n, before+1+len(answers), err)
}

func (t *writeSession) setClock(rows [][][]byte) (err error) {
	if len(rows) != 1 || len(rows[0]) != 2 {
		return session.ErrOutOfStep
	}
	t.began, err = strconv.ParseInt(string(rows[0][0]), 10, 64)
	if err == nil {
		t.ended, err = strconv.ParseInt(string(rows[0][1]), 10, 64)
	}
	return err
}

func (t *writeSession) setTriggers(rows [][][]byte) error {
	t.triggers = ""
	if len(rows) == 1 && len(rows[0]) == 1 {
		t.triggers = string(rows[0][0])
	}
	return nil
}

// errOfBegin attributes an error of the statements that open a transaction to the server. A standby answers BEGIN READ WRITE
// with 0A000, feature not supported.
func errOfBegin(err error) error {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == "0A000" {
		return &readOnlyError{e}
	}
	return errclass.Keyless(err)
}

// readOnlyError is an error of a server that accepts no writes.
type readOnlyError struct{ error }

func (e *readOnlyError) Unwrap() error { return e.error }

// Rollback makes the connection usable again; what is not committed is not written.
func (t *writeSession) Rollback(ctx context.Context) {
	if t.conn.IsClosed() || t.conn.TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sqldb.RollbackTimeout)
	defer cancel()
	_ = t.conn.Exec(ctx, "ROLLBACK").Close() // if it fails, the pool finds the connection closed or in a transaction, and drops it
}

// Commit does not use pgconn.SafeToRetry, which considers a lost answer safe.
func (t *writeSession) Commit(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		t.Rollback(ctx)
		return err
	}
	results, err := t.conn.Exec(ctx, "COMMIT").ReadAll()
	switch {
	case err == nil && len(results) == 1 && results[0].CommandTag.String() == "COMMIT":
		return nil
	case err == nil && len(results) == 1 && results[0].CommandTag.String() == "ROLLBACK":
		return errors.New("the database answered COMMIT with ROLLBACK")
	case err == nil: //guard:postgres-commit-answered-out-of-step
		err = session.ErrOutOfStep
	case isRefusal(err):
		return t.explain(err, nil)
	}
	return sqldb.Unknown(err) //guard:postgres-lost-commit-answer-retried
}

// isRefusal reports whether a COMMIT that failed with err was certainly rolled back, as after an ERROR. A FATAL error, and
// a pooler's error about a lost server (class 08), may follow a successful COMMIT.
func isRefusal(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.SeverityUnlocalized == "ERROR" && !strings.HasPrefix(e.Code, "08") && !strings.HasPrefix(e.Code, "57P") && //guard:fatal-commit-assumed-rolled-back
		e.Code != "40003" || ok && isRaised(e) // 40003: completion unknown
}

// explain classifies an error before COMMIT.
func (t *writeSession) explain(err error, parameters []sqltext.Parameter) error {
	e, ok := errors.AsType[*pgconn.PgError](err)
	switch class := errclass.Of(err, errorClasses{}.Class); {
	case !ok && t.conn.IsClosed():
		return errclass.DropConn(err)
	case !ok:
		return err
	case e.Code == "42P10": // ON CONFLICT needs a unique index
		return tables.ErrNotUnique
	case class == errclass.Retry:
		return fmt.Errorf("%w: %w", sqldb.ErrRetry, err)
	case class == errclass.Statement:
		return refusal(e, t.tx.Rows.Dataset.Key, parameters)
	}
	return err
}
