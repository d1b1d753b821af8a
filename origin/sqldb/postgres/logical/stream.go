package logical

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/postgres/session"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// walSenderTimeout is after which silence of a reader the server ends its session, and with it the slot. It bounds for how long a
// reader that is stopped, or whose host is lost, holds the log.
const walSenderTimeout = "30s"

// Prepare makes a configuration one of a replication connection. It is started with the settings on which the texts of keys depend.
func Prepare(c *pgconn.Config) {
	for name, value := range session.Startup() {
		c.RuntimeParams[name] = value //guard:logical-key-depends-on-settings
	}
	c.RuntimeParams["replication"] = "database"
	c.RuntimeParams["wal_sender_timeout"] = walSenderTimeout
	c.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(&frames{Reader: r, limit: maxMessage}, w)
	}
}

// openReplication opens a replication connection, or says what is missing.
func (f *feed) openReplication(ctx context.Context) (*pgconn.PgConn, error) {
	soon, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	conn, err := f.connect.Replication(soon)
	switch session.SQLState(err) {
	case "42501":
		err = fmt.Errorf("%w: the account of the DSN may not replicate: run ALTER ROLE … REPLICATION (Amazon RDS: GRANT rds_replication TO …): %w",
			origin.ErrFeedUnavailable, err)
	case "08P01": // of PgBouncer
		err = fmt.Errorf("%w: a pooler does not pass on replication: connect to the database directly, or use a feed of kind poll: %w",
			origin.ErrFeedUnavailable, err)
	case "28000":
		err = fmt.Errorf("%w: pg_hba.conf must let the account replicate from this host: %w", origin.ErrFeedUnavailable, err)
	case "53300":
		err = fmt.Errorf("raise max_wal_senders: each dataset with a feed of kind logical needs two, and two more while members change: %w", err)
	}
	return conn, err
}

// stream is the replication connection of a reader that has begun.
type stream struct {
	conn *pgconn.PgConn
	slot string
}

// startStream creates a slot, and waits until every commit that it does not report is visible to reads.
func (f *feed) startStream(ctx context.Context, q *queries) (*stream, error) {
	conn, err := f.openReplication(ctx)
	if err != nil {
		return nil, err
	}
	s := &stream{conn: conn, slot: "ringside_" + strings.ToLower(rand.Text())}
	if err = s.start(ctx, q, f.Publication); err != nil {
		closeSoon(conn)
		return nil, err
	}
	return s, nil
}

func (s *stream) start(ctx context.Context, q *queries, publication string) error {
	soon, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	_, err := s.conn.Exec(soon, "CREATE_REPLICATION_SLOT "+s.slot+" TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT").ReadAll()
	if err != nil {
		return explainSlot(ctx, soon, err)
	}
	// Also proves that both connections lead to the same server.
	if _, err := q.heldBy(ctx, s.slot); err != nil {
		return err
	}
	if err := awaitVisible(soon, q.snapshot); err != nil {
		return explainSlot(ctx, soon, err)
	}
	names := sqltext.QuoteWith("'", sqltext.QuoteWith(`"`, publication))
	return s.copyBoth(ctx, "START_REPLICATION SLOT "+s.slot+" LOGICAL 0/0 (proto_version '1', publication_names "+names+")")
}

// awaitVisible waits until all transactions have ended that are in progress: the log of one may have had its commit before the slot
// began, although reads do not see it yet.
func awaitVisible(ctx context.Context, now func(context.Context) (snapshot, error)) error {
	first, err := now(ctx)
	for err == nil {
		var later snapshot
		if later, err = now(ctx); err != nil || later.xmin >= first.xmax { //guard:commit-before-the-slot-is-missed
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(recheck):
		}
	}
	return err
}

func explainSlot(ctx, soon context.Context, err error) error {
	switch {
	case ctx.Err() == nil && soon.Err() != nil:
		return fmt.Errorf("the server has not created a replication slot within %v: it waits for the transactions that are open, also those of "+
			"other databases; see xact_start in pg_stat_activity: %w", startTimeout, soon.Err())
	case session.SQLState(err) == "53400":
		return fmt.Errorf("raise max_replication_slots: each dataset with a feed of kind logical needs two, and two more while members change: %w",
			err)
	}
	return err
}

// copyBoth starts the stream.
func (s *stream) copyBoth(ctx context.Context, statement string) error {
	soon, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	s.conn.Frontend().SendQuery(&pgproto3.Query{String: statement})
	if err := s.conn.Frontend().Flush(); err != nil {
		return err
	}
	for {
		received, err := s.conn.ReceiveMessage(soon)
		if err != nil {
			return err
		}
		switch received := received.(type) {
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(received)
		case *pgproto3.CopyBothResponse:
			return nil
		case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus:
		default:
			return errMalformed
		}
	}
}

// buffered reports whether more has arrived.
func (s *stream) buffered() bool { return s.conn.Frontend().ReadBufferLen() > 0 }

// receive returns the next message, or that none has come in time.
func (s *stream) receive(ctx context.Context, until time.Time) (e envelope, ok bool, err error) {
	wait, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	received, err := s.conn.ReceiveMessage(wait)
	switch {
	case ctx.Err() != nil:
		return envelope{}, false, ctx.Err()
	case err != nil && wait.Err() != nil && !s.conn.IsClosed():
		return envelope{}, false, nil
	case err != nil:
		return envelope{}, false, err
	}
	switch received := received.(type) {
	case *pgproto3.CopyData:
		e, err = parseEnvelope(received.Data)
		return e, true, err
	case *pgproto3.ErrorResponse:
		return envelope{}, false, explainEnd(pgconn.ErrorResponseToPgError(received))
	case *pgproto3.NoticeResponse, *pgproto3.ParameterStatus:
		return envelope{}, false, nil
	}
	return envelope{}, false, errEnded
}

var errEnded = errors.New("the server has ended the replication")

func explainEnd(err error) error {
	if session.SQLState(err) == "42704" { // the publication
		return fmt.Errorf("%w: %w", origin.ErrFeedUnavailable, err)
	}
	return err
}

// send confirms everything before at.
func (s *stream) send(at lsn, reply bool) error {
	data, err := (&pgproto3.CopyData{Data: statusUpdate(at, time.Now(), reply)}).Encode(nil)
	if err != nil {
		return err
	}
	return s.conn.Frontend().SendUnbufferedEncodedCopyData(data)
}

// closeSoon ends a session, but only waits briefly: the server may be frozen.
func closeSoon(conn *pgconn.PgConn) {
	soon, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = conn.Close(soon) // it is dropped either way
}
