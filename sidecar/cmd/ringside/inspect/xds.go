package inspect

import (
	"fmt"
	"time"

	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/cli"
)

// xdsLine formats the state of the xDS publisher as one line.
func xdsLine(x *adminapi.XDS) string {
	line := fmt.Sprintf("%s: %d members, %d clients, %d NACKs", cli.OrDash(x.Version), x.Endpoints, x.Clients, x.NACKs)
	if n := x.LastNACK; n != nil {
		line += fmt.Sprintf("; latest at %s by %s, of %s: %s", n.At.Format(time.RFC3339), cli.OrDash(n.Client), n.Resource, n.Reason)
	}
	return line
}
