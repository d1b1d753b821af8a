package bench

import (
	"fmt"
	"os"
	"testing"

	"github.com/ringside-cache/ringside/origin/drivers"
	"github.com/ringside-cache/ringside/sidecar/config"
)

// The benchmarks themselves need programs that make test does not install.
func TestConfigurationsAreValid(t *testing.T) {
	for name, membership := range map[string]string{"alone": "", "static": staticMembers(`"127.0.0.1:7072"`)} {
		text := fmt.Sprintf(sidecarConfig, membership, "postgres://localhost/bench")
		source := config.Source{File: "ringside.yaml", Getenv: os.LookupEnv, Set: []string{"peer_tls.insecure=true"}, Drivers: drivers.All()}
		if _, err := source.Parse([]byte(text)); err != nil {
			t.Errorf("%s: got %v, want a valid configuration:\n%s", name, err, text)
		}
	}
}
