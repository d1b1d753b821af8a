package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/proto/groupcachepb"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
)

var errorID = regexp.MustCompile(`[0-9a-f]{16}`)

// A 503 disclosed user, database, host, SQLSTATE and table to every client.
func TestClientsSeeNothingOfTheDatabaseAndTheLogHasTheID(t *testing.T) {
	t.Parallel()
	postgres, mysql := rig.Postgres(t), rig.MySQL(t)
	sidecars := rig.StaticSidecars(t, 2, func(members string) string {
		return fmt.Sprintf(`
membership: {static: [%s]}
origins:
  notable: {driver: postgres, dsn: %q}
`, members, postgres) + fmt.Sprintf(`  dead: {driver: postgres, dsn: "postgres://canary-user:x@127.0.0.1:1/canary-database?sslmode=disable"}
  denied: {driver: mysql, dsn: %q}
`, strings.Replace(mysql, "ringside:ringside@", "canary-user:x@", 1)) + `
datasets:
  no-table: {origin: notable, table: canary_table, key: id, writable: true}
  dead: {origin: dead, table: t, key: id}
  denied: {origin: denied, table: t, key: id}
`
	})
	for _, dataset := range []string{"no-table", "dead", "denied"} {
		for i := range 6 { // some keys belong to the other member
			for way, text := range failures(t, sidecars[0], dataset, fmt.Sprint("key-", i)) {
				lower := strings.ToLower(text)
				for _, disclosed := range []string{"canary", "127.0.0.1", "sqlstate", "42p01", "1045", "access denied", "relation", "origin \"", "dial"} {
					if strings.Contains(lower, disclosed) {
						t.Errorf("%s, %s: disclosed %q: %s", dataset, way, disclosed, text)
					}
				}
				id := errorID.FindString(text)
				if id == "" {
					t.Errorf("%s, %s: no id in %s", dataset, way, text)
					continue
				}
				if log := sidecars[0].Log(); !strings.Contains(log, `"id":"`+id+`"`) {
					t.Errorf("%s, %s: the log has no line of %s", dataset, way, id)
				}
			}
		}
	}
	log := sidecars[0].Log() + sidecars[1].Log()
	for _, cause := range []string{"canary_table", "canary-user", "start the database, or correct host and port in the DSN"} {
		if !strings.Contains(log, cause) {
			t.Errorf("the log has no %q for the operator", cause)
		}
	}
	if strings.Contains(log, `dataset no-table: dataset`) || strings.Contains(log, `: origin "notable", dataset`) {
		t.Error("the log repeats the dataset in one error")
	}
}

// failures returns what each API says of a key that cannot be read.
func failures(t *testing.T, s *rig.Sidecar, dataset, key string) map[string]string {
	t.Helper()
	failed := map[string]string{}
	ask := func(way, method, path, content string) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.HTTP+path, strings.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text := ""
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() { // a watch does not end
			text += lines.Text()
			if strings.Contains(text, "problems/") {
				break
			}
		}
		failed[way] = fmt.Sprint(resp.Header.Get("Cache-Status"), resp.Header.Get("Retry-After"), text)
	}
	ask("HTTP", "GET", "/v1/"+dataset+"/"+key, "")
	ask("batch", "POST", "/v1/"+dataset+":batchGet", `{"keys":["`+key+`"]}`)
	ask("watch", "GET", "/v1/"+dataset+":watch?key="+key, "")
	if dataset == "no-table" {
		ask("PUT", "PUT", "/v1/"+dataset+"/"+key, `{"n":1}`)
	}
	conn, err := grpc.NewClient("passthrough:///"+s.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cache := ringsidev1.NewCacheClient(conn)
	_, err = cache.Get(ctx, &ringsidev1.GetRequest{Dataset: dataset, Key: key})
	failed["gRPC"] = fmt.Sprint(err, status.Convert(err).Details())
	batch, err := cache.BatchGet(ctx, &ringsidev1.BatchGetRequest{Dataset: dataset, Keys: []string{key}})
	failed["gRPC batch"] = fmt.Sprint(batch, err)
	_, err = groupcachepb.NewGroupCacheClient(conn).Get(ctx, &groupcachepb.GetRequest{Group: dataset, Key: key})
	failed["old protocol"] = fmt.Sprint(err)
	return failed
}
