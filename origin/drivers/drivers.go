// Package drivers is the registry of the kinds of origins. A new kind is one package that implements origin.Driver, one
// line in All, and one row in the documentation of `driver`.
package drivers

import (
	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/etcdorigin"
	"github.com/ringside-cache/ringside/origin/httporigin"
	"github.com/ringside-cache/ringside/origin/sqldb/mysql"
	"github.com/ringside-cache/ringside/origin/sqldb/postgres"
	"github.com/ringside-cache/ringside/origin/sqldb/sqlite"
)

// All returns a driver of each kind.
func All() origin.Drivers {
	return origin.Drivers{
		postgres.Driver(),
		mysql.Driver(),
		sqlite.Driver(),
		httporigin.Driver(),
		etcdorigin.Driver(),
	}
}
