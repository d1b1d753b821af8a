package inspect

import (
	"fmt"
	"time"

	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/cli"
)

// xdsPublisher is the part of the state of the xDS publisher that is printed.
type xdsPublisher struct {
	Version     string `json:"version"`
	Endpoints   int    `json:"endpoints"`
	Subscribers int    `json:"subscribers"`
	Refusals    int64  `json:"refusals"`
	LastRefusal *struct {
		At       time.Time `json:"at"`
		Proxy    string    `json:"proxy"`
		Resource string    `json:"resource"`
		Reason   string    `json:"reason"`
	} `json:"last_refusal"`
}

// String is one line.
func (f *xdsPublisher) String() string {
	line := fmt.Sprintf("%s: %d members, %d subscribers, %d refusals",
		cli.OrDash(f.Version), f.Endpoints, f.Subscribers, f.Refusals)
	if r := f.LastRefusal; r != nil {
		line += fmt.Sprintf("; the last at %s by %s, of %s: %s", r.At.Format(time.RFC3339), cli.OrDash(r.Proxy), r.Resource, r.Reason)
	}
	return line
}
