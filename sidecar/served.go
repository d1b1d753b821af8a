package sidecar

import (
	"fmt"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/datasets"
	"github.com/ringside-cache/ringside/sidecar/internal/origins"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// served is the datasets as the APIs see them; a reload replaces all of them at once.
type served struct {
	datasets *datasets.Set
	access   *access.Control
	catalog  *local.Catalog
	typed    *api.Guarded // the dataset of cnf_metrics; nil without one
}

// newServed returns the datasets of the configuration with which p was built.
func newServed(p *parts, c config.Config) (*served, error) {
	s := &served{datasets: p.datasets, access: p.access, catalog: new(local.Catalog)}
	lister, err := typedLister(c, p.datasets.Origins())
	if err != nil {
		return nil, err
	}
	if c.CNFMetrics != "" {
		s.typed = new(api.Guarded)
	}
	s.use(c, lister)
	return s, nil
}

// typedLister returns the lister of the dataset of cnf_metrics; nil without one.
func typedLister(c config.Config, of *origins.Set) (origin.Lister, error) {
	if c.CNFMetrics == "" {
		return nil, nil
	}
	lister, err := of.Lister(c.CNFMetrics, c.Datasets[c.CNFMetrics])
	if err != nil {
		return nil, fmt.Errorf("cnf_metrics: %w", err)
	}
	return lister, nil
}

// use makes all further requests use the current datasets, which are those of c.
func (s *served) use(c config.Config, lister origin.Lister) {
	all := s.datasets.All()
	list := make([]local.Served, 0, len(all))
	for _, d := range all {
		of := c.Datasets[d.Name()]
		view, _ := of.View() // without faults: the configuration has been checked
		one := local.Served{
			Dataset: d, JSON: of.JSON(), ContentType: of.ContentType, Key: compositeKey(of), ReadOnly: !of.Writable,
			Gate: s.access.Gate(d.Name()), View: view}
		list = append(list, one)
		if d.Name() == c.CNFMetrics && s.typed != nil {
			s.typed.Replace(one, lister) //guard:typed-service-has-no-permissions
		}
	}
	s.catalog.Replace(list...)
}

// compositeKey returns the columns of the key if there are several.
func compositeKey(d config.Dataset) []string {
	if len(d.Key) < 2 {
		return nil
	}
	return d.Key
}
