package sidecar

import (
	"context"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/origin/drivers"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/membership"
	"github.com/ringside-cache/ringside/sidecar/internal/origins"
)

// CheckIdentity returns why other members would reject the certificate of this one. Config.Check does not include it,
// because a certificate expires without a change of the configuration, and a reload must not fail for that.
func CheckIdentity(ctx context.Context, c config.Config) error {
	c = c.Effective()
	creds, err := membership.OpenTLS(ctx, c, membership.SelfID(c), nil, zap.NewNop())
	if creds != nil {
		creds.Close()
	}
	return err
}

// CheckMembership lists the members in etcd once. It does nothing if the membership is not in etcd.
func CheckMembership(ctx context.Context, c config.Config) error {
	return membership.CheckDirectory(ctx, c.Effective().Membership)
}

// CheckOrigins connects to each origin and prepares the statements of each dataset. The error has all failures; fields of
// the configuration that contradict the database are in a *config.Error.
func CheckOrigins(ctx context.Context, c config.Config) error {
	return origins.Check(ctx, c, drivers.All())
}

// ChangesSQL returns the statements that install, and those that remove, what the change feed of a dataset needs in its
// database.
func ChangesSQL(ctx context.Context, c config.Config, dataset string) (install, remove string, err error) {
	return installer(c, dataset).SQL(ctx)
}

// ApplyChanges runs the install statements of ChangesSQL.
func ApplyChanges(ctx context.Context, c config.Config, dataset string) error {
	return installer(c, dataset).Install(ctx)
}

// RemoveChanges undoes ApplyChanges, except for the table of changes, which other datasets may use.
func RemoveChanges(ctx context.Context, c config.Config, dataset string) error {
	return installer(c, dataset).Remove(ctx)
}

func installer(c config.Config, dataset string) origins.FeedInstaller {
	return origins.FeedInstaller{Config: c, Drivers: drivers.All(), Dataset: dataset}
}
