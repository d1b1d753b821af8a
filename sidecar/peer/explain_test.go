package peer_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
	"github.com/ringside-cache/ringside/sidecar/peer/server"
	"github.com/ringside-cache/ringside/sidecar/peer/service"
)

// explaining makes a member answer Explain with a text.
func explaining(text string) peertest.Option {
	return func(_ *peertest.Member, s *service.Config, _ *server.Config) {
		s.Explain = func(dataset, key string) []byte { return []byte(text) }
	}
}

func TestExplainAsksOwnerAndSuccessorsInTheirOrder(t *testing.T) {
	t.Parallel()
	const key = "k"
	frozen := peertest.StartMember(t, "frozen", explaining("f"))
	proxy := peertest.StartProxy(t, frozen.Addr)
	dead := peertest.StartMember(t, "dead", explaining("d"))
	dead.Kill(t)
	members := []*peertest.Member{
		peertest.StartMember(t, "well", explaining("w")), peertest.StartMember(t, "old"), peertest.StartMember(t, "large", explaining(strings.Repeat("x", 20<<10))),
		proxy.Through(frozen), dead,
	}
	leaving := peertest.StartMember(t, "leaving", explaining("l"))
	leaving.Service.Leave()
	p := peertest.StartPool(t, peer.Config{FanOutTimeout: 2 * time.Second}, append(members, leaving)...)
	if err := peertest.Ping(t, p, members[3].Member); err != nil {
		t.Fatal(err)
	}
	proxy.Freeze()
	patient, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	reports := p.Explain(patient, "metrics", key, 7)
	if patient.Err() != nil {
		t.Error("the explanation waited for the frozen member as long as its caller")
	}
	if len(reports) != 7 {
		t.Fatalf("got %d reports, want 7", len(reports))
	}
	owner := p.Route("metrics", key).Owner
	if first := reports[0].Member.ID; owner != nil && first != owner.ID() || owner == nil && first != "self" {
		t.Errorf("the first is %s, want the owner %v", first, owner)
	}
	for _, r := range reports {
		ok := false
		switch r.Member.ID {
		case "self":
			ok = r.Self && r.Report == nil && r.Err == nil
		case "well":
			ok = string(r.Report.GetState()) == "w" && r.Err == nil && !r.Report.GetLeaving()
		case "leaving":
			ok = string(r.Report.GetState()) == "l" && r.Report.GetLeaving()
		case "old":
			ok = r.IsOlder() && !r.TimedOut()
		case "large":
			ok = r.Report == nil && r.Err != nil && !r.IsOlder()
		case "frozen":
			ok = r.TimedOut() && !r.IsOlder()
		case "dead":
			ok = r.Report == nil && r.Err != nil && !r.IsOlder()
		}
		if !ok {
			t.Errorf("%s: got %+v", r.Member.ID, r)
		}
	}
	if got := p.Explain(t.Context(), "metrics", key, 2); len(got) != 2 {
		t.Errorf("got %d reports, want 2", len(got))
	}
}

func TestHistoriesOfMembersThatAnswer(t *testing.T) {
	t.Parallel()
	recording := func(text string) peertest.Option {
		return func(_ *peertest.Member, s *service.Config, _ *server.Config) {
			s.History = func(after int64) []byte { return fmt.Appendf(nil, "%s after %d", text, after) }
		}
	}
	dead := peertest.StartMember(t, "dead", recording("d"))
	dead.Kill(t)
	p := peertest.StartPool(t, peer.Config{FanOutTimeout: 2 * time.Second},
		peertest.StartMember(t, "well", recording("w")), peertest.StartMember(t, "old"), peertest.StartMember(t, "large", recording(strings.Repeat("x", 600<<10))), dead)
	got := map[string]string{}
	p.Histories(t.Context(), 7, func(id string, history []byte, err error) { got[id] = fmt.Sprint(string(history), err != nil) })
	if want := map[string]string{"well": "w after 7false", "large": "true", "dead": "true"}; !maps.Equal(got, want) {
		t.Errorf("got %.300v, want %v", got, want)
	}
	if open := p.BreakersOpen(); len(open) > 1 {
		t.Errorf("breakers of %v are open", open)
	}
}
