package sidecar

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
)

// explainEverywhere explains a key at m through every API, checks that they give the same answer, and returns it. Answers that
// differ because something changed between them, such as a copy that ended, are asked for again.
func explainEverywhere(t testing.TB, m *running, key string) adminapi.Explanation {
	t.Helper()
	var differ string
	for range 5 {
		list := explanations(t, m, key)
		differ = ""
		for _, e := range list[1:] {
			if got, want := withoutTimes(e), withoutTimes(list[0]); got != want {
				differ = got + "\n" + want
			}
		}
		if differ == "" {
			return list[0]
		}
	}
	t.Fatalf("two APIs differ, five times in a row:\n%s", differ)
	return adminapi.Explanation{}
}

// explanations are those of every API.
func explanations(t testing.TB, m *running, key string) []adminapi.Explanation {
	t.Helper()
	conn, err := grpc.NewClient(m.at.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	byGRPC, err := ringsidev1.NewCacheClient(conn).Explain(t.Context(), &ringsidev1.ExplainRequest{Dataset: "metrics", Key: key})
	if err != nil {
		t.Fatal(err)
	}
	query := url.Values{"key": {key}}
	_, byHTTP := get(m.at.HTTP, "/v1/metrics:explain?"+query.Encode())
	query.Set("dataset", "metrics")
	_, byAdmin := get(m.at.Admin, "/api/explain?"+query.Encode())
	var list []adminapi.Explanation
	for _, text := range []string{string(byGRPC.GetJson()), byHTTP, byAdmin} {
		var e adminapi.Explanation
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatalf("decode %s: %v", text, err)
		}
		list = append(list, e)
	}
	return list
}

// withoutTimes is what two explanations of one moment have in common.
func withoutTimes(e adminapi.Explanation) string {
	text, _, _ := strings.Cut(e.NextRead, ", which is fresh")
	for _, m := range e.Members {
		text += "\n" + m.ID + " " + m.Role + " " + m.State
		if m.Key != nil {
			text += " " + m.Key.Memory.ETag + " " + string(m.Key.Memory.Next.Action)
		}
	}
	return text
}

func TestExplainAsksTheOwnerThroughEveryAPI(t *testing.T) {
	o, d := newTruth(t), newMemoryDirectory()
	members := o.three(d, ", ttl_jitter: 0")
	const key = "CNF-007"
	owner := explainEverywhere(t, members[0], key).Owner
	byID := map[string]*running{}
	for _, m := range members {
		byID[m.parts.members.Self().ID] = m
	}
	var reader *running
	for id, m := range byID {
		if id != owner {
			reader = m
		}
	}
	e := explainEverywhere(t, reader, key)
	if len(e.Members) != 3 || e.Members[0].Role != adminapi.RoleOwner || e.Members[0].Key == nil || e.Members[0].Key.Memory.Held {
		t.Fatalf("got %+v, want the owner, which has nothing yet", e.Members)
	}
	// Until a while after the change of the ring, the owner asks the previous one first.
	if !strings.HasPrefix(e.NextRead, "this member fetches from "+owner+", which ") || !strings.HasSuffix(e.NextRead, "loads from the origin db") {
		t.Errorf("got next read %q", e.NextRead)
	}
	wantGet(t, byID[owner].at.HTTP, "/v1/metrics/"+key, 200, `"value":0`)
	e = explainEverywhere(t, reader, key)
	k := e.Members[0].Key
	if e.Memory.Held || !k.Memory.Held || !k.Owns || k.Memory.Version != 1 || k.Memory.Bound.Version != 1 || k.Policy.TTL != time.Hour || k.Origin.Name != "db" {
		t.Errorf("got %+v of the owner, want its entry", k)
	}
	if !strings.HasPrefix(e.NextRead, "this member fetches from "+owner+", which answers from memory with its entry, which is fresh for another 59m") {
		t.Errorf("got next read %q", e.NextRead)
	}
	// A copy ends with the subscription to its owner, which may only begin with the first fetch.
	waitFor(t, func() bool {
		wantGet(t, reader.at.HTTP, "/v1/metrics/"+key, 200, `"value":0`)
		return strings.HasPrefix(explainEverywhere(t, reader, key).NextRead, "this member answers from memory with its copy of the entry of "+owner)
	})
}
