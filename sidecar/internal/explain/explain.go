// Package explain says what the members that a read of a key concerns have of it, and what a read would do. All APIs, the
// command line and the console show its result.
package explain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/routekey"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
)

const (
	// maxSuccessors is the number of members that an explanation lists after the owner. A read uses at most one of them.
	maxSuccessors = 3
	// maxRunning limits the explanations that run at once: each calls up to four members, and people wait for few of them.
	maxRunning = 16
)

// Config is what an Explainer looks at.
type Config struct {
	Node, Version string
	Ring          func() *ring.Ring
	// Lookup returns the dataset of a name, or nil.
	Lookup func(dataset string) *cache.Dataset
	// Members asks the owner of a key and its successors; see peer.Pool.Explain.
	Members func(ctx context.Context, dataset, key string, most int) []peer.KeyReport
	// Origin returns the state of the origin of a dataset.
	Origin func(dataset string) adminapi.KeyOrigin
	// ReadsFeed reports whether this member reads the change feed of a dataset from the database.
	ReadsFeed func(dataset string) bool
	// RingProblem returns why keys have other owners here than elsewhere; see adminapi.KeyState. May be nil.
	RingProblem func() string
	// XDS returns the state of the xDS publisher; nil if there is none.
	XDS func() *adminapi.XDS
	// Errors is the log that has the texts of errors.
	Errors *apierror.Log
}

// Explainer explains keys. It is safe for concurrent use.
type Explainer struct {
	Config
	running atomic.Int64
}

// New returns an Explainer.
func New(c Config) *Explainer { return &Explainer{Config: c} }

var errTooMany = fmt.Errorf("%d explanations are running", maxRunning)

// Explain explains a key of an existing dataset. It reads memory only, here and at the other members, and takes no longer
// than those may take to answer (peer.Config.FanOutTimeout). The error has a Kind.
func (x *Explainer) Explain(ctx context.Context, dataset, key string) (e adminapi.Explanation, err error) {
	if err := kv.CheckKey(key); err != nil {
		return e, err
	}
	d := x.Lookup(dataset)
	if d == nil { // a reload has just removed it
		return e, &kv.Error{Kind: kv.KindCanceled, RetryAfter: time.Second, Err: fmt.Errorf("dataset %s was removed", dataset)}
	}
	defer x.running.Add(-1)
	if x.running.Add(1) > maxRunning { //guard:explanations-call-members-without-limit
		return e, &kv.Error{Kind: kv.KindOverloaded, RetryAfter: time.Second, Err: errTooMany}
	}
	reports := x.Members(ctx, dataset, key, 1+maxSuccessors)
	here := x.state(d, key)
	routeKey := routekey.Format(dataset, key)
	e = adminapi.Explanation{
		Dataset: dataset, Key: key, RouteKey: routeKey, Position: position(ring.Hash(routeKey)), RingID: here.RingID,
		Node: x.Node, Owner: x.Node /* unless the ring has members */, Successors: []string{}, Memory: here.Memory, XDS: x.xds(),
	}
	self := false
	for i, r := range reports {
		m := x.member(r, &here)
		if r.ZoneOwner {
			e.ZoneOwner = m.ID
		}
		switch {
		case i == 0:
			m.Role, e.Owner = adminapi.RoleOwner, m.ID
		case i <= maxSuccessors:
			m.Role = adminapi.RoleSuccessor
			e.Successors = append(e.Successors, m.ID)
		default:
			m.Role = adminapi.RoleZoneOwner
		}
		self = self || r.Self
		e.Members = append(e.Members, m)
	}
	if !self {
		m := adminapi.KeyMember{ID: x.Node, Role: adminapi.RoleReader, State: adminapi.StateHere, Key: &here}
		if len(reports) == 0 {
			m.Role = adminapi.RoleOwner
		}
		e.Members = append(e.Members, m)
	}
	e.NextRead = throughMembers(&here, e.Members)
	if here.RingProblem != "" {
		e.NextRead += "; " + here.RingProblem
	}
	return e, nil
}

// ExplainJSON is Explain in JSON, with a newline at the end.
func (x *Explainer) ExplainJSON(ctx context.Context, dataset, key string) ([]byte, error) {
	e, err := x.Explain(ctx, dataset, key)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(e)
	return append(body, '\n'), err
}

// StateJSON is what this member reports of a key to another one.
func (x *Explainer) StateJSON(dataset, key string) []byte {
	d := x.Lookup(dataset)
	if d == nil { // a reload has just removed it
		return nil
	}
	body, err := json.Marshal(x.state(d, key))
	if err != nil {
		x.Errors.Report(fmt.Errorf("encode what this member has of a key: %w", err))
	}
	return body
}

func (x *Explainer) xds() *adminapi.XDS {
	if x.XDS == nil {
		return nil
	}
	return x.XDS()
}

// state is what this member has of a key.
func (x *Explainer) state(d *cache.Dataset, key string) adminapi.KeyState {
	r := x.Ring()
	s := adminapi.KeyState{
		Version: x.Version, RingID: adminapi.FormatRingID(r.ID()), Memory: d.Explain(key), Origin: x.Origin(d.Name()), Policy: d.Policy(),
	}
	if x.RingProblem != nil {
		s.RingProblem = x.RingProblem()
	}
	owner := r.Owner(routekey.Format(d.Name(), key))
	s.Owns = owner == nil || owner.ID == x.Node
	if live, has := d.FeedLive(); has {
		s.Feed = &adminapi.KeyFeed{Live: live, Reading: x.ReadsFeed(d.Name()), Gaps: d.Stats().FeedGaps.Load()}
	}
	if ago, err := d.LastFailure(key); err != nil {
		s.LastError = &adminapi.LoadError{
			Kind: apierror.TypeOf(kv.KindOf(err)).Name, Ago: ago,
			ID: x.Errors.Show(fmt.Errorf("the latest load of the key of dataset %s that is explained: %w", d.Name(), err)),
		}
	}
	s.NextRead = inWords(&s)
	return s
}

// member is one member as this one sees it. The texts of errors are in the log: they have addresses.
func (x *Explainer) member(r peer.KeyReport, here *adminapi.KeyState) adminapi.KeyMember {
	m := adminapi.KeyMember{ID: r.Member.ID, Zone: r.Member.Zone}
	if r.Self {
		m.State, m.Key = adminapi.StateHere, here
		return m
	}
	err := r.Err
	if err == nil {
		m.Key, err = adminapi.DecodeKeyState(r.Report.GetState())
	}
	m.State = stateOf(r, err)
	if err != nil && !r.IsOlder() {
		m.LogID = x.Errors.Show(fmt.Errorf("explain a key: %w", err))
	}
	return m
}

func stateOf(r peer.KeyReport, err error) string {
	switch {
	case r.IsOlder():
		return adminapi.StateOlder
	case r.TimedOut():
		return adminapi.StateNoAnswer
	case status.Code(unwrapped(r.Err)) == codes.NotFound:
		return adminapi.StateNoDataset
	case r.Err != nil:
		return adminapi.StateUnreachable
	case err != nil:
		return adminapi.StateInvalid
	case r.BreakerOpen:
		return adminapi.StateBreakerOpen
	case r.Report.GetLeaving() || r.Member.Leaving:
		return adminapi.StateLeaving
	}
	return adminapi.StateReachable
}

// unwrapped returns the status in err, which has the member around it.
func unwrapped(err error) error {
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) {
		return s.GRPCStatus().Err()
	}
	return err
}

// position returns hash as a fraction of the ring, rounded to a millionth: finer than any screen.
func position(hash uint64) float64 { return math.Round(float64(hash)/(1<<64)*1e6) / 1e6 }
