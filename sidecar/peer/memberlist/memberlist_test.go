package memberlist

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/record"
	"github.com/ringside-cache/ringside/sidecar/peer/wire"
)

func member(n int, leaving bool) ring.Member {
	return ring.Member{
		ID: fmt.Sprintf("m-%05d", n), Addr: fmt.Sprintf("10.1.%d.%d:7072", n>>8, n&255), Leaving: leaving,
		Started: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
	}
}

// A client that applies the changes of any history has the list of the member after each of them.
func TestClientHasTheListOfTheMember(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	var feed Feed
	var table Table
	var sent List
	for round, most := range []int{0, 3, 3, 1000, 1000, 1000, 2, 0, 300} {
		var members []ring.Member
		for n := range most {
			if random.IntN(3) > 0 {
				members = append(members, member(n, random.IntN(10) == 0))
			}
		}
		before, changed := feed.Load()
		feed.Set(members)
		list, _ := feed.Load()
		parts := list.Since(sent)
		select {
		case <-changed:
		default:
			t.Errorf("round %d: the feed did not report the change of %d to %d members", round, len(before), len(list))
		}
		for i, part := range parts {
			if n := len(part.GetChanged()) + len(part.GetRemoved()); n > 2*wire.MaxMembersPart || proto.Size(part) > wire.MembersBytes {
				t.Errorf("round %d: a part has %d members and %d bytes", round, n, proto.Size(part))
			}
			if more := i < len(parts)-1; part.GetMore() != more {
				t.Errorf("round %d: part %d: got more: %v, want %v", round, i, part.GetMore(), more)
			}
			if err := table.Apply(part); err != nil {
				t.Fatal(err)
			}
		}
		sent = list
		if got := table.Members(); !slices.Equal(got, members) || len(parts) == 0 {
			t.Errorf("round %d: got %d members after %d parts, want %d", round, len(got), len(parts), len(members))
		}
	}
	_, changed := feed.Load()
	list, _ := feed.Load()
	feed.Set(table.Members())
	select {
	case <-changed:
		t.Error("the same list is news")
	default:
	}
	if parts := list.Since(list); parts != nil {
		t.Errorf("got %d parts without a change", len(parts))
	}
}

func TestTableIsLimited(t *testing.T) {
	t.Parallel()
	var table Table
	for n := range record.MaxMembers + 1 {
		text, _, err := record.Encode(member(n, false))
		if err != nil {
			t.Fatal(err)
		}
		err = table.Apply(&peerv1.MembersResponse{Changed: [][]byte{[]byte(text)}})
		if want := n == record.MaxMembers; (err != nil) != want {
			t.Fatalf("member %d: got %v, want an error: %v", n, err, want)
		}
	}
}

func FuzzTable(f *testing.F) {
	text, _, err := record.Encode(member(1, false))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(text), "m-00001")
	f.Add([]byte("{}"), "")
	f.Fuzz(func(t *testing.T, value []byte, removed string) {
		var table Table
		if table.Apply(&peerv1.MembersResponse{Changed: [][]byte{value}}) != nil {
			return
		}
		for _, m := range table.Members() {
			if _, _, err := record.Encode(m); err != nil {
				t.Errorf("the table has a member that cannot be on a ring: %v", err)
			}
		}
		if err := table.Apply(&peerv1.MembersResponse{Removed: []string{removed}}); err != nil {
			t.Error(err)
		}
	})
}
