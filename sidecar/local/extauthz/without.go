//go:build noxds

package extauthz

import (
	"google.golang.org/grpc"

	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// Register adds nothing in a program without Envoy's API: the configuration is rejected that asks for it.
func Register(grpc.ServiceRegistrar, *api.Backend, Config) {}
