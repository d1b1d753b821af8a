package resources

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/xds/xdstest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func mustEndpoints(t testing.TB, members []ring.Member) proto.Message {
	t.Helper()
	list, err := Endpoints(members)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestResourcesEqualTheGoldenFiles(t *testing.T) {
	for name, resource := range map[string]proto.Message{
		"endpoints": mustEndpoints(t, xdstest.Three()), "cluster": Cluster(ring.DefaultSize()),
		"listener": Listener(), "routes": Routes(),
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join("testdata", name+".json")
			if *update {
				golden(t, file, resource)
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := resource.ProtoReflect().New().Interface()
			if err := protojson.Unmarshal(text, want); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(resource, want) {
				t.Errorf("%s differs from %s:\n%s", name, file, protojson.Format(resource))
			}
		})
	}
}

func golden(t *testing.T, file string, resource proto.Message) {
	t.Helper()
	text := protojson.MarshalOptions{Multiline: true, UseProtoNames: true}.Format(resource)
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestEveryResourceIsValid(t *testing.T) {
	for _, resource := range []interface{ ValidateAll() error }{
		mustEndpoints(t, xdstest.Three()).(interface{ ValidateAll() error }), Cluster(ring.DefaultSize()), Listener(), Routes(),
	} {
		if err := resource.ValidateAll(); err != nil {
			t.Errorf("%T: %v", resource, err)
		}
	}
}

// Because of rounding, some members have one entry more; which ones depends on the order.
func TestEndpointsHaveTheOrderOfTheRing(t *testing.T) {
	var members []ring.Member
	for i := range 75 {
		members = append(members, ring.Member{ID: fmt.Sprint(i), Addr: fmt.Sprintf("10.0.0.%d:7072", (i*31)%75)})
	}
	r, err := ring.New(members, ring.Size{})
	if err != nil {
		t.Fatal(err)
	}
	list, err := Endpoints(members)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range list.GetEndpoints()[0].GetLbEndpoints() {
		key := e.GetMetadata().GetFilterMetadata()["envoy.lb"].GetFields()["hash_key"].GetStringValue()
		if want := r.Members()[i].Key(); key != want {
			t.Fatalf("endpoint %d: got %s, want %s as on the ring", i, key, want)
		}
	}
}

func TestEqualMembersHaveEqualBytes(t *testing.T) {
	first, err := Encode(mustEndpoints(t, xdstest.Three()))
	if err != nil {
		t.Fatal(err)
	}
	turned := xdstest.Three()
	slices.Reverse(turned)
	turned[0].Zone, turned[0].Version = "another", "2.0" // proxies do not use them
	second, err := Encode(mustEndpoints(t, turned))
	if err != nil {
		t.Fatal(err)
	}
	if string(first) != string(second) {
		t.Errorf("another order of the same members gives different bytes")
	}
}

func TestAddressOfALeavingMemberIsListedOnce(t *testing.T) {
	list, err := Endpoints([]ring.Member{
		{ID: "old", Addr: "10.0.0.5:7072", Leaving: true}, {ID: "new", Addr: "10.0.0.5:7072"},
		{ID: "older", Addr: "10.0.0.5:7072", HashKey: "old", Leaving: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	endpoints := list.GetEndpoints()[0].GetLbEndpoints()
	if len(endpoints) != 1 || endpoints[0].GetHealthStatus() != corev3.HealthStatus_HEALTHY {
		t.Errorf("got %v", endpoints)
	}
}

func TestMembersThatClientsRejectAreOmitted(t *testing.T) {
	for name, test := range map[string]struct {
		member ring.Member
		want   string
	}{
		"a host name":      {ring.Member{ID: "x", Addr: "pod-1.ringside:7072"}, "ip:port"},
		"no port":          {ring.Member{ID: "x", Addr: "10.0.0.5"}, "ip:port"},
		"no address":       {ring.Member{ID: "x"}, "ip:port"},
		"an absurd port":   {ring.Member{ID: "x", Addr: "10.0.0.5:70720"}, "the port must be"},
		"a zone":           {ring.Member{ID: "x", Addr: "[fe80::1%eth0]:7072"}, "has a zone"},
		"link-local":       {ring.Member{ID: "x", Addr: "169.254.169.254:80"}, "link-local"},
		"bytes, not words": {ring.Member{ID: "x", Addr: "10.0.0.5:7072", HashKey: "\xde"}, "UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			list, err := Endpoints(append(xdstest.Three(), test.member))
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), `member "x"`) {
				t.Errorf("got error %v, want one with %q", err, test.want)
			}
			if !proto.Equal(list, mustEndpoints(t, xdstest.Three())) {
				t.Errorf("a member that clients cannot reach changes the others: %v", list)
			}
			if list, err := Endpoints([]ring.Member{test.member}); list != nil || !errors.Is(err, errEmpty) {
				t.Errorf("alone: got %v, %v", list, err)
			}
		})
	}
}

func TestEmptyRingHasNoList(t *testing.T) {
	for _, members := range [][]ring.Member{nil, {{ID: "a", Addr: "10.0.0.5:7072", Leaving: true}}} {
		if list, err := Endpoints(members); list != nil || !errors.Is(err, errEmpty) {
			t.Errorf("%v: got %v, %v", members, list, err)
		}
	}
}

func FuzzEndpoints(f *testing.F) {
	f.Add("a", "10.0.0.5:7072", "", false, "b", "10.0.0.6:7072", "x", true)
	f.Add("a", "[::1%eth0]:1", "k", false, "b", "10.0.0.6:0", "k", true)
	f.Fuzz(func(t *testing.T, id1, addr1, key1 string, leaving1 bool, id2, addr2, key2 string, leaving2 bool) {
		list, err := Endpoints([]ring.Member{
			{ID: id1, Addr: addr1, HashKey: key1, Leaving: leaving1}, {ID: id2, Addr: addr2, HashKey: key2, Leaving: leaving2},
		})
		if list == nil {
			if err == nil {
				t.Error("got neither a list nor an error")
			}
			return
		}
		if err := list.ValidateAll(); err != nil {
			t.Errorf("the published list is not valid: %v", err)
		}
		if _, err := Encode(list); err != nil {
			t.Errorf("the published list cannot be encoded: %v", err)
		}
	})
}

func BenchmarkEndpoints(b *testing.B) {
	for _, n := range []int{3, 200, 5000} {
		b.Run(fmt.Sprint("members=", n), func(b *testing.B) {
			var members []ring.Member
			for i := range n {
				members = append(members, ring.Member{ID: fmt.Sprint(i), Addr: fmt.Sprintf("10.0.%d.%d:7072", i/250, i%250)})
			}
			b.ReportAllocs()
			for b.Loop() {
				list, err := Endpoints(members)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := Encode(list); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func mustRing(t *testing.T, members []ring.Member) *ring.Ring {
	t.Helper()
	r, err := ring.New(members, ring.Size{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A resolver accepts only lists that form a ring.
func FuzzMembers(f *testing.F) {
	seed, err := Encode(mustEndpoints(f, xdstest.Three()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, packed []byte) {
		var list endpointv3.ClusterLoadAssignment
		if proto.Unmarshal(packed, &list) != nil {
			return
		}
		members, err := Members(&list)
		if err != nil {
			return
		}
		if again, err := Endpoints(members); again == nil {
			t.Errorf("accepted %v, which cannot be published: %v", members, err)
		} else if mustRing(t, members).Len() == 0 || errors.Is(err, errEmpty) {
			t.Errorf("accepted %v, which form an empty ring", members)
		}
	})
}
