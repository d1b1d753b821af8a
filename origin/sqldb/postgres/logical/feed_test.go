package logical

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin/sqldb/postgres/session"
)

// beginAt is the message of a transaction that committed at a time, in microseconds since 2000.
func beginAt(micros uint64) []byte {
	b := append([]byte{begin}, make([]byte, 8)...)
	return append(binary.BigEndian.AppendUint64(b, micros), 0, 0, 2, 229)
}

// A server that decodes slowly sends changes long after reads see them: such a feed is not live.
func TestFeedThatIsFarBehindBreaks(t *testing.T) {
	for delay, want := range map[time.Duration]bool{maxDelay: false, maxDelay + time.Second: true} {
		r := &reader{}
		err := r.take(t.Context(), envelope{at: epoch.Add(time.Hour + delay), message: beginAt(uint64(time.Hour.Microseconds()))})
		if (err != nil) != want {
			t.Errorf("%v: got %v, want an error: %v", delay, err, want)
		}
	}
}

// Commits that no standby confirms must not fill the memory.
func TestCommitsThatWaitAreLimited(t *testing.T) {
	r := &reader{}
	var err error
	for n := 0; n <= maxInvisible; n++ {
		if err != nil {
			t.Fatalf("commit %d: %v", n, err)
		}
		r.transaction, r.counted = &message{kind: begin, xid: uint32(n)}, false
		err = r.countTransaction()
	}
	if err == nil || !strings.Contains(err.Error(), "synchronous_standby_names") {
		t.Errorf("got %v", err)
	}
}

func TestChangesOutsideOfATransaction(t *testing.T) {
	r := &reader{}
	for name, digits := range messages {
		if name == "begin" || name == "type" || name == "emitted" {
			continue
		}
		if err := r.take(t.Context(), envelope{message: bytesOf(t, digits)}); err == nil {
			t.Errorf("%s is accepted outside of a transaction", name)
		}
	}
	if err := r.take(t.Context(), envelope{message: bytesOf(t, messages["begin"])}); err != nil {
		t.Fatal(err)
	}
	if err := r.take(t.Context(), envelope{message: bytesOf(t, messages["insert"])}); err == nil {
		t.Error("a row of a table without columns is accepted")
	}
}

// With several hosts in the DSN, the two connections of a feed may lead to different servers: reads of one would be compared with the
// log of the other.
func TestSlotOfAnotherServer(t *testing.T) {
	t.Parallel()
	conn, err := pgconn.Connect(t.Context(), rig.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	q := &queries{conn}
	defer q.close()
	if err := session.New(nil).Start(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if n, err := q.heldBy(t.Context(), "ringside_elsewhere"); err == nil || !strings.Contains(err.Error(), "different servers") {
		t.Errorf("got %d, %v", n, err)
	}
}
