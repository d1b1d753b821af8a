package servers

import (
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/peer/server"
)

// isApplication reports whether the listener of that name is for the applications of the pod.
func isApplication(name string) bool { return name == "http" || name == "grpc" || name == "unix" }

// limits are the numbers of connections of one socket for applications, of the peer listener, and of each listener for
// operators and proxies: metrics, admin and xds.
type limits struct{ application, peer, operator int }

// maxOperatorConns is for a few scrapers, consoles and proxies.
const maxOperatorConns = 256

// newLimits divides files among sockets for applications, listeners for operators, and the peer listener, which gets the
// rest. Each listener for operators gets at most a sixteenth of them.
func newLimits(files, applications, operators int) limits {
	operator := min(max(files/16, 1), maxOperatorConns)
	files -= operators * operator
	each := min(max(files/(applications+1), 1), local.DefaultMaxConns) //guard:idle-clients-use-every-file
	return limits{each, min(max(files-applications*each, 1), server.DefaultMaxConns), operator}
}

func (l limits) of(name string) int {
	switch {
	case isApplication(name):
		return l.application
	case name == "peer":
		return l.peer
	}
	return l.operator
}

func (l limits) lowered() bool {
	return l.application < local.DefaultMaxConns || l.peer < server.DefaultMaxConns
}

// routed is how many connections of the peer listener may be from clients that route by the ring; 0 means the default.
func (l limits) routed() int {
	if l.peer == server.DefaultMaxConns {
		return 0
	}
	return max(l.peer*4/5, 1)
}
