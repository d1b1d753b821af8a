package sqldb

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowwrite"
	"github.com/ringside-cache/ringside/origin/sqldb/tables"
)

// WriteMany implements origin.Writer. It makes all changes in one transaction, in the order of their keys, so that two of them rarely
// wait for each other.
func (w *rowWriter) WriteMany(ctx context.Context, cs []origin.Change) []origin.Result {
	ctx = w.source.db.commented(ctx)
	results, tx := make([]origin.Result, len(cs)), new(transaction)
	var order []int // those of cs that tx makes
	for i, c := range cs {
		if err := w.planner.Check(c); err != nil {
			results[i].Err = w.failed(err)
			continue
		}
		order = append(order, i)
	}
	slices.SortFunc(order, func(i, j int) int { return cmp.Compare(cs[i].Key, cs[j].Key) })
	for _, i := range order {
		tx.plans = append(tx.plans, func(t *tables.Table) (*rowwrite.Transaction, error) { return w.planner.Plan(t, cs[i]) })
	}
	rows, err := w.run(ctx, tx)
	for n, i := range order {
		switch {
		case len(order) > 1 && isRefusal(err): // of the whole, such as by a deferred constraint: nothing tells whose fault it is
			results[i].Value, results[i].Err = w.Write(ctx, cs[i]) //guard:one-bad-row-fails-its-batch
		case err != nil && !(errors.Is(err, origin.ErrUnknown) && n < len(rows) && rows[n].err != nil):
			results[i].Err = w.failed(err)
		case rows[n].err != nil:
			results[i].Err = w.failed(rows[n].err)
		default:
			results[i].Value = rows[n].tx.Value()
		}
	}
	return results
}

// isRefusal reports whether err is an answer to a change which says that nothing was written.
func isRefusal(err error) bool { return isOutcome(err) && !errors.Is(err, origin.ErrUnknown) }

// transaction is the changes of one transaction of the database.
type transaction struct {
	plans []planned
	// isolate lets each change fail by itself. It is set once one has failed: savepoints cost round trips, and PostgreSQL more.
	isolate bool
}

// planned returns the statements of a change of a table.
type planned func(*tables.Table) (*rowwrite.Transaction, error)

// row is one change of several. An error is its outcome alone; see isRefusal.
type row struct {
	tx  *rowwrite.Transaction
	err error
}

// rowError is the outcome of one change of several that ends the transaction, which is repeated with isolation.
type rowError struct{ cause error } // nil: the change is to be undone

func (e *rowError) Error() string { return "one of several changes must be undone" }

func (e *rowError) Unwrap() error { return ErrRetry }

// causeOf returns what a rowError hides from those who look for an outcome.
func causeOf(err error) error {
	if e, ok := errors.AsType[*rowError](err); ok {
		return e.cause
	}
	return err
}

// transact makes changes in one transaction of s. An error is that of all.
func (w *rowWriter) transact(ctx context.Context, s WriteSession, t *tables.Table, tx *transaction) ([]row, error) {
	rows, err := tx.plan(t)
	if err != nil || !slices.ContainsFunc(rows, func(r row) bool { return r.err == nil }) {
		return rows, err
	}
	if err := s.Begin(ctx); err != nil {
		return nil, err
	}
	keep := false
	err = w.send(ctx, s, tx, rows)
	for i := 0; i < len(rows) && err == nil; i++ {
		if rows[i].err == nil {
			var kept bool
			kept, err = w.apply(ctx, s, tx, &rows[i])
			keep = keep || kept
		}
	}
	if err != nil || !keep {
		s.Rollback(ctx)
		return rows, err
	}
	return rows, w.rejected(s.Commit(ctx))
}

// send sends the statements of all changes, if the session can and a failure of one may end the transaction.
func (w *rowWriter) send(ctx context.Context, s WriteSession, tx *transaction, rows []row) error {
	pipelined, ok := s.(Pipelined)
	if !ok || tx.isolate || len(rows) == 1 {
		return nil
	}
	var txs []*rowwrite.Transaction
	for _, r := range rows {
		if r.err == nil {
			txs = append(txs, r.tx) // at least one
		}
	}
	err := pipelined.Send(ctx, txs)
	if err == nil {
		return nil
	}
	return tx.end(w.rejected(err))
}

// plan plans all changes.
func (tx *transaction) plan(t *tables.Table) ([]row, error) {
	rows := make([]row, len(tx.plans))
	for i, plan := range tx.plans {
		if rows[i].tx, rows[i].err = plan(t); rows[i].err != nil {
			if err := tx.end(rows[i].err); err != nil {
				return nil, err
			}
		}
	}
	return rows, nil
}

// end returns the error with which the outcome of one change ends the transaction, or nil if it does not.
func (tx *transaction) end(outcome error) error {
	switch {
	case len(tx.plans) == 1, outcome != nil && !isRefusal(outcome):
		return outcome
	case !tx.isolate:
		tx.isolate = true
		return &rowError{outcome}
	}
	return nil
}

// apply makes one change of tx, and reports whether there is something to commit. An error ends the transaction; the outcome of
// the change alone is in r.
func (w *rowWriter) apply(ctx context.Context, s WriteSession, tx *transaction, r *row) (keep bool, err error) {
	if tx.isolate {
		if err := s.Exec(ctx, "SAVEPOINT "+savepoint); err != nil {
			return false, err
		}
	}
	keep, outcome := s.Apply(ctx, r.tx)
	if outcome = w.rejected(outcome); !keep {
		unchanged := !r.tx.Matched() && (outcome == nil || errors.Is(outcome, origin.ErrConflict))
		if !unchanged || len(tx.plans) == 1 { //guard:failed-row-of-a-batch-is-committed
			err = w.undo(ctx, s, tx, outcome)
		}
		r.err = outcome
	}
	if tx.isolate && err == nil {
		err = s.Exec(ctx, "RELEASE SAVEPOINT "+savepoint)
	}
	return keep, err
}

const savepoint = "ringside_row"

// undo undoes one change of tx, or ends the transaction. A trigger of SQLite may have ended it already (RAISE(ROLLBACK)), and with it
// the savepoint: then the outcome of the change is that of all.
func (w *rowWriter) undo(ctx context.Context, s WriteSession, tx *transaction, outcome error) error {
	if err := tx.end(outcome); err != nil || len(tx.plans) == 1 {
		return err
	}
	err := s.Exec(ctx, "ROLLBACK TO SAVEPOINT "+savepoint)
	if err != nil && outcome != nil {
		return outcome
	}
	return err
}
