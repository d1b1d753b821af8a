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
	texts := map[string]string{
		"alone":  fmt.Sprintf(sidecarConfig, "", "postgres://localhost/bench"),
		"static": fmt.Sprintf(sidecarConfig, staticMembers(`"127.0.0.1:7072"`), "postgres://localhost/bench"),
		"loads":  fmt.Sprintf(loadConfig, "postgres", "postgres://localhost/bench"),
	}
	for name, text := range texts {
		source := config.Source{File: "ringside.yaml", Getenv: os.LookupEnv, Set: []string{"peer_tls.insecure=true"}, Drivers: drivers.All()}
		if _, err := source.Parse([]byte(text)); err != nil {
			t.Errorf("%s: got %v, want a valid configuration:\n%s", name, err, text)
		}
	}
}
