package rowwrite

import (
	"context"

	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
	"github.com/ringside-cache/ringside/origin/sqldb/tables"
)

// Stepwise makes a change statement by statement, in a database whose changes do not return rows as Load reads
// them.
type Stepwise struct {
	Transaction *Transaction
	// TriggersDecide says that a trigger can suppress a change of its table, or change a row again.
	TriggersDecide bool

	Exec   func(ctx context.Context, s sqltext.Step) (rows int64, err error)
	Insert func(ctx context.Context, s sqltext.Step) (key string, err error) // of an append; "" if no row was inserted
	Read   func(ctx context.Context) error                                   // reads the row and locks it
}

// Apply makes the change in a transaction that has begun, and reports whether to keep it.
func (s *Stepwise) Apply(ctx context.Context) (keep bool, err error) {
	tx := s.Transaction
	if tx.Appends != tables.NotGenerated {
		key, err := s.Insert(ctx, tx.Steps[0])
		if err == nil {
			err = tx.SetKey(key)
		}
		if err != nil {
			return false, err
		}
		return tx.VerifyWritten(func() error { return s.Read(ctx) })
	}
	if tx.Change.Delete { // there is nothing to read afterwards
		if err := s.Read(ctx); err != nil {
			return false, err
		}
	}
	read := func() error { return s.Read(ctx) }
	matched, err := tx.Match(Attempts{
		Compare: read, Try: func() (bool, error) { return s.tryEach(ctx) }, Read: read,
		Suppresses: func() bool { return s.TriggersDecide },
	})
	switch {
	case err != nil:
		return false, err
	case matched && tx.Change.Delete && s.TriggersDecide:
		return tx.VerifyDeleted(read)
	case matched && !tx.Change.Delete:
		return tx.VerifyWritten(read)
	}
	return tx.Verify()
}

// tryEach runs the steps until one matches the row.
func (s *Stepwise) tryEach(ctx context.Context) (matched bool, err error) {
	for _, step := range s.Transaction.Steps {
		n, err := s.Exec(ctx, step)
		if err != nil || n > 0 {
			return n > 0, err
		}
	}
	return false, nil
}
