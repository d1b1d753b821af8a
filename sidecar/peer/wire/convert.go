// Package wire is the protocol between members apart from its calls: it converts the messages of
// proto/ringside/peer/v1 to and from the types of package kv, and limits what a message may hold.
package wire

import (
	"fmt"
	"time"

	"github.com/ringside-cache/ringside/origin"
	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// FetchRequest converts a query of a member whose ring has the given id. Query.Failover is not sent: it matters to the
// caller only.
func FetchRequest(q kv.Query, ringID uint64) *peerv1.FetchRequest {
	return &peerv1.FetchRequest{
		Dataset:    q.Dataset,
		Key:        q.Key,
		RingId:     ringID,
		NoCache:    q.NoCache,
		MemoryOnly: q.MemoryOnly || q.Relay || q.Zone, //guard:older-release-loads-for-the-owner
		Relay:      q.Relay,
		Zone:       q.Zone,
		Relayed:    q.Relayed,
		MinVersion: max(0, q.MinVersion), // no condition, where the origin has negative versions
		MaxAgeNs:   int64(q.MaxAge),
		Tag:        q.Tag,
		DataErrors: true,
	}
}

// Query is the inverse of FetchRequest. It replaces negative numbers by 0.
func Query(req *peerv1.FetchRequest) kv.Query {
	return kv.Query{
		Dataset:    req.GetDataset(),
		Key:        req.GetKey(),
		NoCache:    req.GetNoCache(),
		MemoryOnly: req.GetMemoryOnly() && !req.GetRelay() && !req.GetZone(),
		Relay:      req.GetRelay() && !req.GetZone(),
		Zone:       req.GetZone(),
		Relayed:    min(req.GetRelayed(), maxRelayed),
		MinVersion: max(0, req.GetMinVersion()),
		MaxAge:     time.Duration(max(0, req.GetMaxAgeNs())),
		Tag:        req.GetTag(),
	}
}

// FetchResponse converts the answer of a member whose ring has the given id. owns: the key belongs to this member. Answer.Owner is not
// sent: set EntryOf for a query with Zone.
func FetchResponse(a kv.Answer, ringID uint64, owns bool) *peerv1.FetchResponse {
	return &peerv1.FetchResponse{
		Value:      a.Value,
		Absent:     a.NotFound,
		Version:    a.Version,
		AgeNs:      int64(a.Age),
		FreshNs:    int64(a.Fresh),
		FromMemory: a.Source != kv.SourceLoad,
		NotOwner:   !owns,
		RingId:     ringID,
		Stale:      a.Stale,
		Detail:     a.Detail,
		TookNs:     int64(a.Took),
		Content:    peerv1.Content(a.Content),
		DataError:  int32(a.DataError),
		HotRate:    a.HotRate,
		Relayed:    a.Relayed,
	}
}

// Answer is the inverse of FetchResponse, for an answer of the given member. It replaces impossible values: a negative
// version or time by 0, and a detail that is no short token by none. A data error has no value.
func Answer(r *peerv1.FetchResponse, member string) kv.Answer {
	source := kv.SourceLoad
	if r.GetFromMemory() {
		source = kv.SourcePeerHit
	}
	a := kv.Answer{
		Value:    r.GetValue(),
		NotFound: r.GetAbsent(),
		Content:  content(r.GetContent()),
		Version:  max(0, r.GetVersion()),
		Age:      time.Duration(max(0, r.GetAgeNs())),
		Fresh:    time.Duration(r.GetFreshNs()),
		Stale:    r.GetStale(),
		Source:   source,
		Took:     time.Duration(max(0, r.GetTookNs())),
		Owner:    member,
		Detail:   detail(r.GetDetail()),
		HotRate:  r.GetHotRate(),
		Relayed:  r.GetRelayed(),
	}
	if cause := r.GetDataError(); cause > 0 {
		a.DataError, a.Value, a.NotFound, a.Version = origin.DataCause(min(cause, int32(origin.UnknownCause))), nil, false, 0
	}
	return a
}

// content returns the unknown one for what a later version has added.
func content(c peerv1.Content) origin.Content {
	if _, ok := peerv1.Content_name[int32(c)]; !ok { //guard:content-of-later-version-truncated
		return origin.ContentUnknown
	}
	return origin.Content(c)
}

func detail(text string) string {
	if checkText("detail", text, maxDetailBytes) != nil { //guard:detail-of-member-in-header
		return ""
	}
	return text
}

// WriteRequest converts a change of a member whose ring has the given id.
func WriteRequest(c kv.Change, ringID uint64) *peerv1.WriteRequest {
	return &peerv1.WriteRequest{
		Dataset:       c.Dataset,
		Key:           c.Key,
		RingId:        ringID,
		Failover:      c.Failover,
		Delete:        c.Delete,
		Value:         c.Value,
		IfAbsent:      c.If.Absent,
		IfPresent:     c.If.Present,
		IfVersion:     c.If.Version,
		IfEtag:        c.If.ETag,
		IdempotencyId: c.ID,
		ObservedNs:    c.Observed,
	}
}

// Change is the inverse of WriteRequest.
func Change(req *peerv1.WriteRequest) kv.Change {
	return kv.Change{
		Dataset:  req.GetDataset(),
		Key:      req.GetKey(),
		Failover: req.GetFailover(),
		Delete:   req.GetDelete(),
		Value:    req.GetValue(),
		If: kv.Condition{
			Absent: req.GetIfAbsent(), Present: req.GetIfPresent(), Version: req.GetIfVersion(), ETag: req.GetIfEtag(),
		},
		ID: req.GetIdempotencyId(), Observed: max(0, req.GetObservedNs()),
	}
}

// WriteBatchRequest converts changes of one dataset of a member whose ring has the given id.
func WriteBatchRequest(cs []kv.Change, ringID uint64) *peerv1.WriteBatchRequest {
	req := &peerv1.WriteBatchRequest{Dataset: cs[0].Dataset, RingId: ringID, Changes: make([]*peerv1.WriteRequest, len(cs))}
	for i, c := range cs {
		c.Dataset = ""
		req.Changes[i] = WriteRequest(c, 0)
	}
	return req
}

// Changes is the inverse of WriteBatchRequest. It checks the size of each field, and that no key occurs twice.
func Changes(req *peerv1.WriteBatchRequest) ([]kv.Change, error) {
	if n := len(req.GetChanges()); n > kv.MaxBatchWrites { //guard:changes-of-a-member-without-limit
		return nil, invalid(fmt.Errorf("%d changes in one request; at most %d are allowed", n, kv.MaxBatchWrites))
	}
	cs, keys := make([]kv.Change, len(req.GetChanges())), make(map[string]bool, len(req.GetChanges()))
	for i, r := range req.GetChanges() {
		r.Dataset = req.GetDataset()
		if err := CheckWrite(r); err != nil {
			return nil, err
		}
		if keys[r.GetKey()] { //guard:batch-of-a-member-writes-a-key-twice
			return nil, invalid(fmt.Errorf("key %q occurs twice in one request", r.GetKey()))
		}
		keys[r.GetKey()], cs[i] = true, Change(r)
	}
	return cs, nil
}

func invalid(err error) error { return &kv.Error{Kind: kv.KindInvalidKey, Err: err} }

// Written is the answer to a committed change of a batch of the given member. It has no value.
func Written(o *peerv1.WriteOutcome, member string) kv.Answer {
	return kv.Answer{Version: max(0, o.GetVersion()), NotFound: o.GetAbsent(), Source: kv.SourceLoad, Owner: member}
}

// Invalidation converts an invalidation that is the given time older than its Age.
func Invalidation(i kv.Invalidation, older time.Duration) *peerv1.Invalidation {
	return &peerv1.Invalidation{
		Dataset: i.Dataset, Key: i.Key, Prefix: i.Prefix, Version: max(0, i.Version), AgeNs: int64(max(0, i.Age) + older),
	}
}

// Invalidations converts all invalidations of a message, or returns an error. It replaces a change in the future by one of
// now, and the version of a prefix by 0.
func Invalidations(list []*peerv1.Invalidation) ([]kv.Invalidation, error) {
	if len(list) > maxInvalidations {
		return nil, fmt.Errorf("%d invalidations in one message; at most %d are allowed", len(list), maxInvalidations)
	}
	converted, prefixes := make([]kv.Invalidation, len(list)), 0
	for n, i := range list {
		if i.GetPrefix() {
			prefixes++
		}
		if prefixes > MaxPrefixes { //guard:prefixes-of-message-without-limit
			return nil, fmt.Errorf("more than %d prefixes in one message", MaxPrefixes)
		}
		if err := checkInvalidation(i); err != nil {
			return nil, fmt.Errorf("invalidation %d: %w", n, err)
		}
		converted[n] = invalidation(i)
	}
	return converted, nil
}

func invalidation(i *peerv1.Invalidation) kv.Invalidation {
	converted := kv.Invalidation{
		Dataset: i.GetDataset(), Key: i.GetKey(), Prefix: i.GetPrefix(), Age: time.Duration(max(0, i.GetAgeNs())),
	}
	if !converted.Prefix {
		converted.Version = i.GetVersion()
	}
	return converted
}

// InvalidateRequests splits a list into requests within the limits of a message.
func InvalidateRequests(list []kv.Invalidation) (requests []*peerv1.InvalidateRequest) {
	size, prefixes := 0, 0
	for _, i := range list {
		size += len(i.Dataset) + len(i.Key)
		if i.Prefix {
			prefixes++
		}
		if n := len(requests); n == 0 || len(requests[n-1].Invalidations) == maxInvalidations || size > maxInvalidateBytes ||
			prefixes > MaxPrefixes {
			requests = append(requests, &peerv1.InvalidateRequest{})
			size, prefixes = len(i.Dataset)+len(i.Key), 0
			if i.Prefix {
				prefixes = 1
			}
		}
		request := requests[len(requests)-1]
		request.Invalidations = append(request.Invalidations, Invalidation(i, 0))
	}
	return requests
}
