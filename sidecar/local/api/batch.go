package api

import (
	"context"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// PrepaidResponse is the size of the responses that a connection has paid for: reads of small values are answered while
// other clients have used up the budget. A response takes all of its bytes from the budget if it is larger.
const PrepaidResponse = 8 << 10

// ReadBatch reads the keys of a batch, whose values together fill at most Config.MaxBatchBytes. They take their bytes from
// loan, except the first PrepaidResponse ones.
func (b *Backend) ReadBatch(
	ctx context.Context, d Dataset, keys []string, o kv.ReadOptions, loan *budget.Loan,
) []kv.Result {
	return d.GetMany(ctx, keys, o, kv.BatchLimit{Bytes: b.config.MaxBatchBytes, Memory: loan, Prepaid: PrepaidResponse}) //guard:batch-larger-than-the-budget
}
