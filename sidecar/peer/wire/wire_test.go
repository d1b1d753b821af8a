package wire

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/ringside-cache/ringside/origin"
	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func decode(data []byte, m proto.Message) error {
	return NewCodec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, m)
}

// Half a million empty elements of 2 bytes would need 50 MiB when they are decoded.
func TestElementsOfAMessageAreLimitedBeforeTheyAreDecoded(t *testing.T) {
	for _, tt := range []struct {
		message proto.Message
		field   byte
		allowed int
	}{
		{&peerv1.FetchBatchRequest{}, 1, kv.MaxBatchKeys}, {&peerv1.FetchBatchResponse{}, 1, kv.MaxBatchKeys},
		{&peerv1.InvalidateRequest{}, 1, maxInvalidations}, {&peerv1.SubscribeResponse{}, 3, maxInvalidations},
		{&peerv1.SubscribeResponse{}, 4, maxFeeds},
	} {
		empty := []byte{tt.field<<3 | 2, 0}
		if err := decode(bytes.Repeat(empty, tt.allowed), tt.message); err != nil {
			t.Errorf("%T: %d elements: %v", tt.message, tt.allowed, err)
		}
		if err := decode(bytes.Repeat(empty, 500_000), tt.message); err == nil {
			t.Errorf("%T: 500 000 elements are decoded", tt.message)
		}
	}
}

func TestSmallMessagesAreSmall(t *testing.T) {
	unknown := append([]byte{0xfa, 0x07, 0x80, 0x80, 0x40}, make([]byte, 1<<20)...) // an unknown field of 1 MiB
	for _, m := range []proto.Message{
		&peerv1.PingRequest{}, &peerv1.PingResponse{}, &peerv1.InspectRequest{}, &peerv1.InspectResponse{},
		&peerv1.SubscribeRequest{}, &peerv1.InvalidateResponse{}, &peerv1.FetchRequest{},
	} {
		if err := decode(unknown, m); err == nil {
			t.Errorf("%T of 1 MiB is decoded", m)
		}
		if err := decode(unknown[:0], m); err != nil {
			t.Errorf("empty %T: %v", m, err)
		}
	}
}

func TestEveryMethodHasLimits(t *testing.T) {
	file, err := protoregistry.GlobalFiles.FindDescriptorByName("ringside.peer.v1.Peer")
	if err != nil {
		t.Fatal(err)
	}
	list := file.(protoreflect.ServiceDescriptor).Methods()
	for i := range list.Len() {
		method := "/ringside.peer.v1.Peer/" + string(list.Get(i).Name())
		if _, ok := methods[method]; !ok || MaxResponse(method) <= 0 || MaxRequest(method) > MaxRequestBytes+1<<20 {
			t.Errorf("%s has no limits", method)
		}
	}
	if MaxRequest(peerv1.Peer_Ping_FullMethodName) > 8<<10 || MaxRequest(peerv1.Peer_Write_FullMethodName) < kv.MaxValueBytes {
		t.Error("a ping may be large, or a write must be small")
	}
}

func TestLargestMessagesFit(t *testing.T) {
	key, name := strings.Repeat("k", kv.MaxKeyBytes), strings.Repeat("d", maxDatasetBytes)
	batch := &peerv1.FetchBatchRequest{}
	for range kv.MaxBatchKeys {
		batch.Requests = append(batch.Requests, FetchRequest(kv.Query{
			Dataset: name, Key: key, MinVersion: 1 << 62, MaxAge: 1 << 60, Tag: key[:maxETagBytes],
		}, 1<<63))
	}
	var list []kv.Invalidation
	for i := range 2 * maxInvalidations {
		list = append(list, kv.Invalidation{Dataset: name, Key: key, Prefix: i%10 == 0, Version: 1 << 62, Age: 1 << 60})
	}
	messages := map[string][]proto.Message{peerv1.Peer_FetchBatch_FullMethodName: {batch}}
	sent := 0
	for _, r := range InvalidateRequests(list) {
		messages[peerv1.Peer_Invalidate_FullMethodName] = append(messages[peerv1.Peer_Invalidate_FullMethodName], r)
		got, err := Invalidations(r.GetInvalidations())
		if err != nil {
			t.Fatalf("a member rejects what another one sends: %v", err)
		}
		sent += len(got)
	}
	if sent != len(list) {
		t.Errorf("got %d invalidations, want all %d", sent, len(list))
	}
	for method, all := range messages {
		for _, m := range all {
			data, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if err := decode(data, m.ProtoReflect().New().Interface()); err != nil || len(data) > MaxRequest(method) {
				t.Errorf("%s with %d bytes: limit %d, error %v", method, len(data), MaxRequest(method), err)
			}
		}
	}
}

func TestChangesOfABatchAreChecked(t *testing.T) {
	batch := func(n int) *peerv1.WriteBatchRequest {
		req := &peerv1.WriteBatchRequest{Dataset: "d"}
		for i := range n {
			req.Changes = append(req.Changes, &peerv1.WriteRequest{Key: strings.Repeat("k", 1+i)})
		}
		return req
	}
	if cs, err := Changes(batch(kv.MaxBatchWrites)); err != nil || cs[7].Dataset != "d" || len(cs[7].Key) != 8 {
		t.Errorf("got %v", err)
	}
	twice, long := batch(3), batch(3)
	twice.Changes[2].Key = "k"
	long.Changes[2].IdempotencyId = strings.Repeat("i", maxIDBytes+1)
	for name, req := range map[string]*peerv1.WriteBatchRequest{"too many": batch(kv.MaxBatchWrites + 1), "a key twice": twice, "a long id": long} {
		if _, err := Changes(req); kv.KindOf(err) != kv.KindInvalidKey {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestImpossibleValuesOfMembersAreRejected(t *testing.T) {
	good := &peerv1.Invalidation{Dataset: "d", Key: "k"}
	for name, list := range map[string][]*peerv1.Invalidation{
		"negative version":  {good, {Dataset: "d", Key: "k", Version: -1}},
		"escape in dataset": {good, {Dataset: "\x1b[2J", Key: "k"}},
		"17 prefixes":       slicesOf(&peerv1.Invalidation{Dataset: "d", Key: "k", Prefix: true}, 17),
	} {
		if _, err := Invalidations(list); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, err := range map[string]error{
		"negative version of a fetch":     CheckFetch(&peerv1.FetchRequest{Dataset: "d", Key: "k", MinVersion: -1}),
		"long tag":                        CheckFetch(&peerv1.FetchRequest{Dataset: "d", Key: "k", Tag: strings.Repeat("t", 1<<10)}),
		"negative version of a condition": CheckWrite(&peerv1.WriteRequest{Dataset: "d", Key: "k", IfVersion: -1}),
		"node of a subscriber":            CheckSubscribe(&peerv1.SubscribeRequest{Node: "\x1b]0;x\x07"}),
		"node of a pong":                  CheckPong(&peerv1.PingResponse{Node: strings.Repeat("n", 257)}),
		"version of a report":             CheckReport(&peerv1.InspectResponse{Version: "\u202e"}),
		"feeds":                           feedsError(make([]string, maxFeeds+1)),
		"feed":                            feedsError([]string{"a\nb"}),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	a := Answer(&peerv1.FetchResponse{Version: -1, AgeNs: -1, TookNs: -1, Detail: "x\r\nSet-Cookie: a=b"}, "m")
	if a.Version != 0 || a.Age != 0 || a.Took != 0 || a.Detail != "" {
		t.Errorf("got %+v, want none of the impossible values", a)
	}
	a = Answer(&peerv1.FetchResponse{Value: []byte("v"), Absent: true, DataError: 1 << 20}, "m")
	if a.DataError != origin.UnknownCause || a.Value != nil || a.NotFound {
		t.Errorf("got %+v, want a data error of unknown cause", a)
	}
}

func slicesOf(i *peerv1.Invalidation, n int) (list []*peerv1.Invalidation) {
	for range n {
		list = append(list, i)
	}
	return list
}

func feedsError(names []string) error {
	_, err := Feeds(names)
	return err
}

// FuzzMessages decodes and converts any bytes as every message that another program may send.
func FuzzMessages(f *testing.F) {
	for _, m := range []proto.Message{
		&peerv1.FetchRequest{Dataset: "d", Key: "k", MinVersion: -1, Tag: "t"},
		&peerv1.FetchResponse{Value: []byte("v"), Version: -1, Detail: "\x1b", AgeNs: -1},
		&peerv1.WriteRequest{Dataset: "d", Key: "k", IfVersion: -1},
		&peerv1.InvalidateRequest{Invalidations: []*peerv1.Invalidation{{Dataset: "d", Key: "k", Prefix: true}, {}}},
		&peerv1.SubscribeResponse{LiveFeeds: []string{"\x1b"}, Invalidations: []*peerv1.Invalidation{{Version: -1}}},
		&peerv1.PingResponse{Node: "\x07"}, &peerv1.InspectResponse{Version: "\xff", State: []byte("{}")},
	} {
		data, err := proto.Marshal(m)
		if err != nil {
			data = []byte{}
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fetch, write, invalidate := &peerv1.FetchRequest{}, &peerv1.WriteRequest{}, &peerv1.InvalidateRequest{}
		answer, stream := &peerv1.FetchResponse{}, &peerv1.SubscribeResponse{}
		batch, outcomes := &peerv1.FetchBatchRequest{}, &peerv1.FetchBatchResponse{}
		pong, report, subscribe := &peerv1.PingResponse{}, &peerv1.InspectResponse{}, &peerv1.SubscribeRequest{}
		if decode(data, fetch) == nil && CheckFetch(fetch) == nil {
			q := Query(fetch)
			bounded(t, q.MinVersion, q.Dataset, q.Tag)
		}
		if decode(data, write) == nil && CheckWrite(write) == nil {
			c := Change(write)
			bounded(t, c.If.Version, c.Dataset, c.ID, c.If.ETag)
		}
		if decode(data, answer) == nil {
			a := Answer(answer, "m")
			bounded(t, a.Version, a.Detail)
		}
		for _, list := range [][]*peerv1.Invalidation{invalidations(data, invalidate), invalidations(data, stream)} {
			converted, err := Invalidations(list)
			for _, i := range converted {
				bounded(t, i.Version, i.Dataset)
				if err != nil || i.Age < 0 || len(i.Key) > kv.MaxKeyBytes {
					t.Errorf("got %+v", i)
				}
			}
		}
		if decode(data, stream) == nil {
			feeds, _ := Feeds(stream.GetLiveFeeds())
			bounded(t, 0, feeds...)
		}
		if decode(data, pong) == nil && CheckPong(pong) == nil {
			bounded(t, 0, pong.GetNode())
		}
		if decode(data, report) == nil && CheckReport(report) == nil {
			bounded(t, 0, report.GetNode(), report.GetVersion())
		}
		if decode(data, subscribe) == nil && CheckSubscribe(subscribe) == nil {
			bounded(t, 0, subscribe.GetNode())
		}
		if decode(data, batch) == nil && len(batch.GetRequests()) > 2*kv.MaxBatchKeys ||
			decode(data, outcomes) == nil && len(outcomes.GetOutcomes()) > 2*kv.MaxBatchKeys {
			t.Error("the batch has too many elements")
		}
	})
}

func invalidations(data []byte, m interface {
	proto.Message
	GetInvalidations() []*peerv1.Invalidation
}) []*peerv1.Invalidation {
	if decode(data, m) != nil {
		return nil
	}
	return m.GetInvalidations()
}

// bounded checks what the rest of the program gets.
func bounded(t *testing.T, version int64, texts ...string) {
	t.Helper()
	if version < 0 {
		t.Errorf("got version %d", version)
	}
	for _, text := range texts {
		if len(text) > 256 {
			t.Errorf("got text %q", fmt.Sprintf("%.50q", text))
		}
	}
	if len(texts) > 0 && printable.Text(texts[0]) != texts[0] {
		t.Errorf("got text %q, which is not printable", texts[0])
	}
}

func TestContentOfAnswerIsKept(t *testing.T) {
	for content := origin.ContentUnknown; content <= origin.ContentBytes; content++ {
		if got := Answer(FetchResponse(kv.Answer{Content: content}, 1, true), "n").Content; got != content {
			t.Errorf("sent %v, got %v", content, got)
		}
	}
	later := &peerv1.FetchResponse{Content: 256 + peerv1.Content_CONTENT_JSON}
	if got := Answer(later, "n").Content; got != origin.ContentUnknown {
		t.Errorf("from a later version: got %v, want %v", got, origin.ContentUnknown)
	}
}

// The clocks of two hosts may differ by any time, and one of them may be stepped. So members send each other ages and lives, which each
// measures with its monotonic clock, and no time of day.
func TestMessagesHaveDurationsAndNoTimes(t *testing.T) {
	isTime := regexp.MustCompile(`(^|_)(at|time|timestamp|date|deadline|expiry|since|until|unix)(_|$)`)
	messages := peerv1.File_ringside_peer_v1_peer_proto.Messages()
	for i := range messages.Len() {
		fields := messages.Get(i).Fields()
		for k := range fields.Len() {
			f := fields.Get(k)
			if isTime.MatchString(string(f.Name())) || f.Message() != nil && f.Message().FullName() == "google.protobuf.Timestamp" {
				t.Errorf("%s: is this a time of day? Another member's clock may show any other; send an age or a remaining life", f.FullName())
			}
		}
	}
}
