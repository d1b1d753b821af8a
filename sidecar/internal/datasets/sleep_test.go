package datasets

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/origin/drivers"
	"github.com/ringside-cache/ringside/origin/sqldb/sqlite/sqlitetest"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/origins"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
	"github.com/ringside-cache/ringside/sidecar/peer"
)

func TestMemberRestsWhileNothingIsRead(t *testing.T) {
	text := fmt.Sprintf("origins: {db: {driver: sqlite, dsn: %q}}\ndatasets: {rows: {origin: db, table: rows, key: id, ttl: 1h}}\n",
		sqlitetest.New(t, "CREATE TABLE rows (id TEXT PRIMARY KEY, v TEXT)"))
	source := config.Source{File: "ringside.yaml", Getenv: os.LookupEnv, Drivers: drivers.All()}
	parsed, err := source.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	pool := peer.NewPool(peer.Config{})
	defer pool.Close()
	s, err := New(Config{
		Config: parsed.Effective(), Origins: origins.Config{Drivers: drivers.All(), Defect: func(err error) { t.Error(err) }, Log: zap.NewNop()},
		Pool: pool, Memory: 1 << 20, Defect: func(err error) { t.Error(err) }, Log: zap.NewNop(), Tasks: task.NewGroup(nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var r rest
	now := time.Now()
	look := func(after time.Duration, awake bool) {
		t.Helper()
		now = now.Add(after)
		r.look(t.Context(), s, now)
		if pool.Awake() != awake {
			t.Errorf("got awake: %t, want %t", !awake, awake)
		}
	}
	look(0, true)
	s.All()[0].Stats().CountHit(false, false)
	look(sleepAfter, true)
	look(sleepAfter-1, true)
	look(1, false)
	look(sleepAfter, false)
	w := s.All()[0].Watch([]string{"k"})
	look(sleepAfter, true)
	look(sleepAfter, true)
	w.Close()
	look(sleepAfter, false)
	end := pool.RelayFeeds(t.Context()) // a client relies on what this member hears
	look(sleepAfter, true)
	look(sleepAfter, true)
	end()
	look(sleepAfter, false)
}
