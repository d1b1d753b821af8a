package config

import "github.com/ringside-cache/ringside/xds"

// leftOut reports the fields that need what this program was built without.
func (k *checker) leftOut() {
	if xds.Built {
		return
	}
	for _, field := range []struct {
		path string
		set  bool
	}{
		{"listen.xds", k.config.Listen.xds() != off}, {"membership.xds", len(k.config.Membership.XDS) > 0}, {"ext_authz", k.config.ExtAuthz != ExtAuthz{}},
	} {
		if field.set {
			k.problem(field.path, "%s", xds.LeftOut)
		}
	}
}
