package main

import (
	"fmt"
	"time"
)

// feed is how the sidecar tells proxies of the ring, as far as it is printed.
type feed struct {
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
func (f *feed) String() string {
	line := fmt.Sprintf("%s: %d members, %d subscribers, %d refusals",
		orDash(f.Version), f.Endpoints, f.Subscribers, f.Refusals)
	if r := f.LastRefusal; r != nil {
		line += fmt.Sprintf("; the last at %s by %s, of %s: %s", r.At.Format(time.RFC3339), orDash(r.Proxy), r.Resource, r.Reason)
	}
	return line
}
