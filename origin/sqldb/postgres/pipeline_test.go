package postgres

import (
	"testing"

	"github.com/ringside-cache/ringside/origin/sqldb/rowwrite"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

func TestStatementsThatTravelTogetherAreLimited(t *testing.T) {
	for bytes, want := range map[int]int{10: maxSent, maxSentBytes / 4: 4, maxSentBytes / 2: 2, 2 * maxSentBytes: 1} {
		var txs []*rowwrite.Transaction
		for range 2 * maxSent {
			step := sqltext.Step{Parameters: []sqltext.Parameter{{Column: "v", Value: string(make([]byte, bytes))}}}
			txs = append(txs, &rowwrite.Transaction{Steps: []sqltext.Step{step}})
		}
		if got := together(txs, 0); got != want {
			t.Errorf("%d changes of %d bytes travel together, want %d", got, bytes, want)
		}
		if got := together(txs[:1], 0); got != 1 {
			t.Errorf("%d changes of 1 travel together", got)
		}
	}
}
