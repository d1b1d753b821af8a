package e2e

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/sidecar/container"
)

// batchTime is how long each number of clients sends batches.
const batchTime = 1500 * time.Millisecond

// Batches are what needs most memory for its size: each key is a read, a call, a row and a part of the response.
func TestBatchesInTheSmallestContainer(t *testing.T) {
	t.Parallel()
	for _, of := range []struct {
		driver, sqlDriver, text, numbers string
		start                            func(t testing.TB) *rig.Database
	}{
		{"postgres", "pgx", "text", "generate_series(0, %d) AS numbers(seq)", rig.NewPostgres},
		{"mysql", "mysql", "longtext", "seq_0_to_%d", rig.NewMariaDB},
	} {
		t.Run(of.driver, func(t *testing.T) {
			t.Parallel()
			database := of.start(t)
			fill := func(table string, rows, size int) {
				db, err := sql.Open(of.sqlDriver, database.DSN)
				if err != nil {
					t.Fatal(err)
				}
				defer db.Close()
				for _, statement := range []string{
					fmt.Sprintf("CREATE TABLE %s (id varchar(20) PRIMARY KEY, v %s)", table, of.text),
					fmt.Sprintf("INSERT INTO %s SELECT CAST(seq AS CHAR(%d)), REPEAT('x', %d) FROM "+of.numbers,
						table, len(fmt.Sprint(rows-1)), size, rows-1),
				} {
					if _, err := db.Exec(statement); err != nil {
						t.Fatalf("%s: %v", statement, err)
					}
				}
			}
			fill("small", 20_000, 1<<10) // more than the memory for entries
			fill("large", 100, 400<<10)
			batchesInContainers(t, of.driver, database.DSN)
		})
	}
}

// batchesInContainers lets clients send batches to one of two members, each in the smallest container.
func batchesInContainers(t *testing.T, driver, dsn string) {
	file := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(file, []byte(dsn), 0o600); err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`
membership: {etcd: {endpoints: [%q]}}
origins: {db: {driver: %s, dsn_file: %q}}
datasets:
  small: {origin: db, table: small, key: id, columns: [v], ttl: 10m}
  large: {origin: db, table: large, key: id, columns: [v], ttl: 10m}
`, rig.Etcd(t).Endpoint(), driver, file)
	var members []*rig.Sidecar
	var containers []*rig.Cgroup
	for _, id := range []string{"asked", "other"} {
		s := rig.NewSidecar(t, id, config)
		containers = append(containers, s.LimitMemory(container.LeastMemory))
		s.Start()
		members = append(members, s)
	}
	for _, clients := range []int{4, 16} {
		served, batches := sendBatches(t, members[0], clients)
		t.Logf("%d clients: %d batches, %d values; at most %d and %d MiB", clients, batches, served, containers[0].Peak()>>20, containers[1].Peak()>>20)
		if served == 0 {
			t.Errorf("%d clients got no values", clients)
		}
		for i, s := range members {
			if kills := containers[i].OOMKills(); kills > 0 || !s.Running() {
				t.Fatalf("%d clients with batches: the sidecar %s has ended; oom_kill is %d", clients, s.ID, kills)
			}
		}
	}
}

// sendBatches returns how many values clients got in how many batches.
func sendBatches(t *testing.T, s *rig.Sidecar, clients int) (values, batches int64) {
	ctx, cancel := context.WithTimeout(t.Context(), batchTime)
	defer cancel()
	var n, all atomic.Int64
	var running sync.WaitGroup
	for range clients {
		running.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for i := 0; ctx.Err() == nil; i++ {
				table, rows := "small", 20_000
				if i%2 == 1 {
					table, rows = "large", 100
				}
				got, err := sendBatch(client, s, table, rows)
				if err != nil { // a connection may be refused
					time.Sleep(10 * time.Millisecond)
				}
				n.Add(got)
				all.Add(1)
			}
		})
	}
	running.Wait()
	return n.Load(), all.Load()
}

// sendBatch asks for up to 1000 random rows, the most that a batch may have.
func sendBatch(client *http.Client, s *rig.Sidecar, table string, rows int) (values int64, err error) {
	keys := make([]string, min(rows, 1000))
	for i := range keys {
		keys[i] = fmt.Sprint(rand.IntN(rows))
	}
	body, err := json.Marshal(map[string][]string{"keys": keys})
	if err != nil {
		return 0, err
	}
	response, err := client.Post("http://"+s.HTTP+"/v1/"+table+":batchGet", "application/json", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return int64(bytes.Count(text, []byte(`"value":`))), err
}
