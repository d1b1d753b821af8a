package rig_test

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"net"
	"net/url"
	"os"
	osexec "os/exec"
	"strings"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/ringside-cache/ringside/e2e/rig"
)

func TestDatabaseKeepsItsRowsThroughStopKillAndFreeze(t *testing.T) {
	for _, engine := range rig.Engines {
		t.Run(engine.Name, func(t *testing.T) {
			t.Parallel()
			server := engine.Start(t)
			db, err := sql.Open(engine.SQLDriver, server.DSN)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			exec(t, db, "CREATE TABLE r (v int)")
			exec(t, db, "INSERT INTO r VALUES (1)")
			server.Stop()
			refused(t, db)
			server.Start()
			exec(t, db, "INSERT INTO r VALUES (2)")
			server.Freeze()
			refused(t, db)
			server.Thaw()
			if n := count(t, db); n != 2 {
				t.Errorf("%d rows after a stop, want 2", n)
			}
			server.Kill()
			server.Start()
			if n := count(t, db); n != 2 {
				t.Errorf("%d rows after a crash, want 2", n)
			}
			server.Freeze()
			server.Kill()
			server.Start()
			if n := count(t, db); n != 2 {
				t.Errorf("%d rows after a crash of a frozen server, want 2", n)
			}
		})
	}
}

func TestPgBouncerKeepsAServerConnectionAsItsModeSays(t *testing.T) {
	server := rig.NewPostgres(t)
	for mode, shared := range map[rig.PoolMode]bool{rig.SessionPool: false, rig.TransactionPool: true} {
		t.Run(string(mode), func(t *testing.T) {
			var servers [2]int
			dsn := rig.PgBouncer(t, server, mode).DSN + "&default_query_exec_mode=simple_protocol"
			for i := range servers { // both clients stay connected
				db, err := sql.Open("pgx", dsn)
				if err != nil {
					t.Fatal(err)
				}
				defer db.Close()
				if err := db.QueryRowContext(t.Context(), "SELECT pg_backend_pid()").Scan(&servers[i]); err != nil {
					t.Fatal(err)
				}
			}
			if (servers[0] == servers[1]) != shared {
				t.Errorf("two clients use the server connections %v", servers)
			}
		})
	}
}

func exec(t *testing.T, db *sql.DB, statement string) {
	t.Helper()
	if _, err := db.Exec(statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func refused(t *testing.T, db *sql.DB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := db.ExecContext(ctx, "SELECT count(*) FROM r"); err == nil {
		t.Error("the server answers, though it is stopped")
	}
}

func count(t *testing.T, db *sql.DB) (n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM r").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// victim is set in the process that TestAServerDiesWithItsTest starts and kills.
const victim = "RINGSIDE_RIG_VICTIM"

func TestAServerDiesWithItsTest(t *testing.T) {
	if os.Getenv(victim) != "" {
		fmt.Println(rig.Postgres(t))
		select {}
	}
	files, err := os.MkdirTemp("", "ringside-victim-") // which the victim has no time to remove
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(files)
	if err := os.Chmod(files, 0o755); err != nil { // the server runs as another user
		t.Fatal(err)
	}
	cmd := osexec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), victim+"=1", "TMPDIR="+files)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dsn, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	u, err := url.Parse(strings.TrimSpace(dsn))
	if err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", u.Host)
		if err != nil {
			return
		}
		conn.Close()
		if time.Now().After(limit) {
			t.Fatal("the server lives on")
		}
	}
}
