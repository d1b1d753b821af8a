package postgres

import (
	"cmp"
	"context"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
	"github.com/ringside-cache/ringside/origin/sqldb/postgres/session"
	"github.com/ringside-cache/ringside/origin/sqldb/rowwrite"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// maxSent and maxSentBytes bound the changes that travel together. They fit into the buffers of a connection, so that the server takes
// all of them although nobody reads its results yet. Otherwise those would wait in the memory of this side.
const maxSent, maxSentBytes = 100, 64 << 10

// sentChange is a change whose steps have run until one has matched the row: step, with the times of writeSession.
type sentChange struct {
	step         sqltext.Step
	began, ended int64
}

// Send implements sqldb.Pipelined. If a row must be read before it is changed, nothing is sent: batches lock their rows in one order.
func (t *writeSession) Send(ctx context.Context, txs []*rowwrite.Transaction) error {
	if slices.ContainsFunc(txs, func(tx *rowwrite.Transaction) bool { return len(tx.Steps) == 0 }) {
		return nil
	}
	t.sent = make(map[*rowwrite.Transaction]sentChange, len(txs))
	own := session.Of(t.conn)
	now, err := own.Statement(ctx, t.conn, clock)
	if err != nil {
		t.tx = txs[0]
		err = t.explain(errclass.Keyless(err), nil)
	}
	for step := 0; err == nil; step++ {
		var next []*rowwrite.Transaction
		for _, tx := range txs {
			if len(tx.Steps) > step && !tx.Matched() {
				next = append(next, tx)
			}
		}
		if len(next) == 0 {
			return nil
		}
		for len(next) > 0 && err == nil {
			n := together(next, step)
			err = t.sendSteps(ctx, next[:n], step, now)
			next = next[n:]
		}
	}
	own.Failed(clock, err)
	return err
}

// together returns how many of the changes, at least one, travel together.
func together(txs []*rowwrite.Transaction, step int) (n int) {
	for bytes := 0; n < len(txs) && n < maxSent && bytes < maxSentBytes; n++ { //guard:statements-sent-without-limit
		s := txs[n].Steps[step]
		bytes += len(s.SQL)
		for _, p := range textParameters(s.Parameters) {
			bytes += len(p)
		}
	}
	return n
}

// sendSteps runs one step of each change, in one round trip. now is the statement clock. A statement that is the same as the one
// before is not parsed again, which takes the server longer than to run it.
func (t *writeSession) sendSteps(ctx context.Context, txs []*rowwrite.Transaction, step int, now *pgconn.StatementDescription) error {
	batch := &pgconn.Batch{}
	before := t.addBegin(ctx, batch)
	answers, comment, parsed := make([][]answer, len(txs)), sqltext.Comment(ctx), ""
	for i, tx := range txs {
		t.tx = tx
		s := tx.Steps[step]
		if s.SQL == parsed { //guard:batch-runs-another-statement
			batch.ExecPrepared("", textParameters(s.Parameters), nil, nil)
		} else {
			batch.ExecParams(s.SQL+comment, textParameters(s.Parameters), nil, nil, nil)
			parsed = s.SQL
		}
		if s.Creates {
			session.AddStatement(batch, now)
			answers[i] = append(answers[i], t.setClock)
			if now.Name == "" { //guard:batch-runs-the-clock
				parsed = ""
			}
		}
		if i == 0 && t.triggers == "" {
			batch.ExecParams(triggersOf, t.tableName(), nil, nil, nil)
			answers[i] = append(answers[i], t.setTriggers)
			parsed = ""
		}
	}
	results := t.conn.ExecBatch(ctx, batch)
	err := t.next(results, before, func(r *pgconn.ResultReader) error {
		_, err := r.Close()
		return err
	})
	if err != nil {
		return t.explain(errOfBegin(cmp.Or(err, results.Close())), nil)
	}
	for i, tx := range txs {
		t.tx, t.began, t.ended = tx, 0, 0
		if err := t.readStep(results, answers[i]); err != nil {
			_ = results.Close() // the same error
			return t.explain(err, tx.Steps[step].Parameters)
		}
		t.sent[tx] = sentChange{tx.Steps[step], t.began, t.ended}
	}
	if results.NextResult() {
		return session.WantResults(1, 0, results.Close())
	}
	return t.explain(results.Close(), nil)
}

// readStep reads the results for one change, t.tx.
func (t *writeSession) readStep(results *pgconn.MultiResultReader, answers []answer) error {
	err := t.next(results, 1, func(r *pgconn.ResultReader) error {
		return readRows(r, t.tx.Query, t.tx.Change.Key, t.tx.Rows)
	})
	for i := 0; i < len(answers) && err == nil; i++ {
		err = t.next(results, 1, func(r *pgconn.ResultReader) error {
			result := r.Read()
			if result.Err != nil {
				return result.Err
			}
			return answers[i](result.Rows)
		})
	}
	return err
}

// next reads the next n results.
func (*writeSession) next(results *pgconn.MultiResultReader, n int, read func(*pgconn.ResultReader) error) error {
	for range n {
		if !results.NextResult() {
			return session.WantResults(0, 1, results.Close())
		}
		if err := read(results.ResultReader()); err != nil {
			return err
		}
	}
	return nil
}
