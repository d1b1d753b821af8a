package sidecar

import (
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/explain"
	"github.com/ringside-cache/ringside/sidecar/internal/status"
)

// newExplainer returns what explains keys to applications, operators and other members.
func newExplainer(p *parts, errors *apierror.Log) *explain.Explainer {
	version, _ := Version()
	publisher := &status.Node{Publisher: p.publisher}
	return explain.New(explain.Config{
		Node: p.members.Self().ID, Version: version, Ring: p.members.Ring, Lookup: p.datasets.Lookup, Members: p.pool.Explain,
		Origin: func(dataset string) (o adminapi.KeyOrigin) {
			o.Name, o.BreakerOpen, o.Queued = p.datasets.Origins().Use(dataset)
			return o
		},
		ReadsFeed: p.datasets.ReadsFeed, XDS: publisher.XDS, Errors: errors, RingProblem: p.members.Problem,
	})
}
