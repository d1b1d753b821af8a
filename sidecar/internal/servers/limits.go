package servers

import (
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/peer/server"
)

// isApplication reports whether the listener of that name is for the applications of the pod.
func isApplication(name string) bool {
	return name == "http" || name == "grpc" || name == "redis" || name == "otlp" || name == "unix"
}

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

// within returns the limits that the memory for clients allows, too.
func (l limits) within(b *budget.Budget, s shares) limits {
	if b == nil {
		return l
	}
	most := func(conns int, share float64, connBytes int64) int {
		return max(min(conns, int(b.AccountLimit(budget.Connections, share)/connBytes)), 1)
	}
	return limits{
		most(l.application, s.application, listen.HTTP1Bytes), most(l.peer, s.peer, listen.HTTP2Bytes),
		most(l.operator, s.operator, listen.HTTP1Bytes),
	}
}

// shares are the parts of the bytes for connections that one socket of each kind owns. It gets more while the others have
// few connections.
type shares struct{ application, peer, operator float64 }

// newShares weighs the kinds by how many clients they have: the peer listener has all other members.
func newShares(applications, operators int) shares {
	const application, peer, operator = 2, 6, 1
	unit := 1 / float64(applications*application+peer+operators*operator) //guard:one-listener-starves-another
	return shares{application * unit, peer * unit, operator * unit}
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
