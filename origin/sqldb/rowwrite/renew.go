package rowwrite

import (
	"errors"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// Waited reports whether the row that a step has created must be renewed, as the step has taken this long. Its version is from
// before it waited for the lock of other writes of the key, and they may have used later versions. They need more time than
// maxUnlocked: at least one creates the row and commits, and another deletes it and commits, with all that travels between.
func (tx *Transaction) Waited(step sqltext.Step, took time.Duration) bool {
	return step.Creates && tx.Rows.Dataset.Version != "" && took > maxUnlocked //guard:version-from-before-a-wait
}

const maxUnlocked = 200 * time.Microsecond

// Renew returns the statement that makes the version of the row that the transaction has created, and locks, the present time.
func (tx *Transaction) Renew() sqltext.Step { return tx.plan.Renew() }

// NotRenewed reports whether a trigger has refused or suppressed the statement of Renew, which has matched this many rows. Another
// attempt of the transaction perhaps need not wait.
func (tx *Transaction) NotRenewed(rows int, err error) bool {
	return err == nil && rows == 0 || errors.Is(err, origin.ErrInvalidValue)
}
