// Package status reports the state of a sidecar: counters for scrapes, and state for its own console and those of other
// members.
package status

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/sidecar/admin"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/audit"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/datasets"
	"github.com/ringside-cache/ringside/sidecar/internal/explain"
	"github.com/ringside-cache/ringside/sidecar/internal/history"
	"github.com/ringside-cache/ringside/sidecar/internal/hotkeys"
	"github.com/ringside-cache/ringside/sidecar/internal/membership"
	"github.com/ringside-cache/ringside/sidecar/internal/servers"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing/otlp"
	"github.com/ringside-cache/ringside/sidecar/internal/verify"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/metrics"
	"github.com/ringside-cache/ringside/sidecar/otlpmetrics"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/mtls"
	"go.uber.org/zap"
)

// Node has the parts of a sidecar that report their state.
type Node struct {
	Config            config.Config // effective
	Version, Revision string
	Started           time.Time

	Members   *membership.Members
	Pool      *peer.Pool
	Datasets  *datasets.Set
	Local     *local.Server
	Publisher *servers.Publisher // nil if the xds listener is off
	Listeners *servers.Listeners
	TLS       *mtls.Credentials // nil for plain text between members
	Budget    *budget.Budget
	Access    *access.Control
	Audit     *audit.Log            // nil if it is off
	Traces    *otlp.Exporter        // nil if it is off
	OTLP      *otlpmetrics.Receiver // nil if it is off
	Log       *zap.Logger
	Errors    *apierror.Log
	Explainer *explain.Explainer
	Verifier  *verify.Verifier
	History   *history.Recorder
}

// Admin returns the state for the console.
func (n *Node) Admin() admin.Source {
	return admin.Source{
		Node: n.Members.Self().ID, Version: n.Version, Started: n.Started, Datasets: n.Datasets.All,
		HotKeys: func() []hotkeys.Key { return n.Datasets.HotKeys(adminapi.MaxHotKeys) },
		Ring:    n.Members.Ring, Directory: n.directory, XDS: n.XDS, Others: n.others,
		History: admin.HistorySource{Own: n.history, Others: n.histories},
		Explain: n.Explainer.Explain, Verification: n.Verifier.State, Audit: n.Verifier.Audit, Gate: n.Access.Gate, Errors: n.Errors,
		Hosts: n.Config.Hosts, Pprof: n.Config.Pprof,
	}
}

// directory returns the state of the directory, and what its members disagree on.
func (n *Node) directory() adminapi.Directory {
	state := n.connection()
	state.Role = n.Members.Role()
	if _, example := n.Members.OtherSettings(); example != "" { // it matters more than a rejected record
		state.Detail = example
	}
	if why := n.Members.Unreachable(); why != "" {
		state.Detail = why
	}
	return state
}

// connection: a static list is always reachable and includes this member; what sends lists to a client never includes it.
func (n *Node) connection() adminapi.Directory {
	d := n.Members.Directory()
	if s, ok := n.Members.ClientStats(); ok {
		return adminapi.Directory{Kind: d.Kind, Connected: s.From != "", Detail: s.LastError}
	}
	if s, ok := d.Client(); ok {
		return adminapi.Directory{Kind: d.Kind, Connected: s.Publisher != "", Detail: s.LastError}
	}
	if s, ok := d.DNS(); ok {
		return adminapi.Directory{Kind: d.Kind, Connected: s.Connected, Registered: s.Listed, Detail: printable.Text(s.LastError)}
	}
	if s, ok := d.Etcd(); ok {
		return adminapi.Directory{Kind: d.Kind, Connected: s.Connected, Registered: s.Registered, Detail: s.LastRejected}
	}
	return adminapi.Directory{Kind: d.Kind, Connected: true, Registered: true}
}

// XDS returns the state of the xDS publisher; nil if the xds listener is off.
func (n *Node) XDS() *adminapi.XDS {
	if n.Publisher == nil {
		return nil
	}
	s := n.Publisher.Status()
	state := &adminapi.XDS{
		Version: s.Version, Endpoints: s.Endpoints, Clients: s.Clients, Updates: s.Updates, NACKs: s.NACKs,
	}
	if r := s.LastNACK; r != nil {
		state.LastNACK = &adminapi.NACK{At: r.At, Client: r.Node, Resource: r.Resource, Reason: r.Reason}
	}
	return state
}

// Inspect describes this member to the consoles of other members.
func (n *Node) Inspect() *peerv1.InspectResponse {
	state := n.Admin().State()
	if len(state.Datasets) > adminapi.MaxDatasets { // other members reject more
		state.Datasets = state.Datasets[:adminapi.MaxDatasets]
	}
	text, err := json.Marshal(state)
	if err != nil {
		n.Errors.Report(fmt.Errorf("encode the state of this member: %w", err))
	}
	return &peerv1.InspectResponse{Version: state.Version, State: text}
}

// maxDatasets limits the datasets of all members together: about 12 MiB.
const maxDatasets = 50_000

const errManyDatasets = "left out: the members before it have too many datasets to show them all"

// others fetches and decodes the states of the other members. A member may send anything.
func (n *Node) others(ctx context.Context) []adminapi.MemberState {
	states, datasets := []adminapi.MemberState{}, 0
	n.Pool.Inspect(ctx, func(one peer.Inspection) {
		state := adminapi.MemberState{ID: one.Member.ID, Addr: one.Member.Addr}
		err := one.Err
		if err == nil {
			state.State, err = adminapi.DecodeState(one.Report.GetState())
		}
		if err != nil {
			state.Unreachable = printable.Text(err.Error())
		}
		if state.State != nil {
			datasets += len(state.State.Datasets)
		}
		if datasets > maxDatasets {
			state.State, state.Unreachable = nil, errManyDatasets
		}
		states = append(states, state)
	})
	return states
}

// history is what this member recorded after an interval.
func (n *Node) history(after int64) *adminapi.MemberHistory {
	h, err := adminapi.DecodeMemberHistory(n.History.After(after))
	if err != nil {
		n.Errors.Report(fmt.Errorf("decode the history of this member: %w", err))
	}
	return h
}

// histories fetches and decodes the histories of the other members. One that does not answer in time has a gap.
func (n *Node) histories(ctx context.Context, after int64, use func(id string, h *adminapi.MemberHistory)) {
	n.Pool.Histories(ctx, after, func(id string, text []byte, err error) {
		if err != nil {
			return // /api/cluster has the reason
		}
		if h, err := adminapi.DecodeMemberHistory(text); err == nil {
			use(id, h)
		}
	})
}

// Observe returns what this member depends on, for the record of what happened.
func (n *Node) Observe(reloads metrics.Reloads) history.State {
	d := n.connection()
	s := history.State{
		Connected: d.Connected, Listed: d.Registered, Feeds: map[string]history.Feed{}, Origins: map[string]bool{},
		BreakersOpen: n.Pool.BreakersOpen(), Reloads: reloads.OK, Rejected: reloads.Failed,
	}
	for _, m := range n.Members.Ring().Members() {
		s.Ring = append(s.Ring, m.ID)
	}
	for _, d := range n.Datasets.All() {
		if live, has := d.FeedLive(); has {
			s.Feeds[d.Name()] = history.Feed{Live: live, Gaps: d.Stats().FeedGaps.Load()}
		}
	}
	open := n.Datasets.Origins()
	for _, name := range open.Names() {
		s.Origins[name] = open.Load(name).BreakerOpen
	}
	return s
}
