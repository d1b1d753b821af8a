package config

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/ring/address"
	"github.com/ringside-cache/ringside/sidecar/config/decode"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
)

// Problem is one fault of a configuration.
type Problem = decode.Problem

// Error has all faults of a configuration.
type Error = decode.Error

// The types of values that have a form of their own in the text.
type (
	Secret = decode.Secret
	Size   = decode.Size
	Share  = decode.Share
	Rate   = access.Rate
)

// Example is a commented configuration that shows every field.
//
//go:embed example.yaml
var Example string

// Source says where a configuration comes from. Later ones override earlier ones: defaults, the file, the environment,
// Set.
type Source struct {
	// File is the path of the YAML file.
	File string
	// Getenv looks up a variable, as os.LookupEnv does: for ${NAME} in values, and for RINGSIDE_LISTEN_HTTP and the
	// like, which set fields. Other RINGSIDE_ variables are ignored: Kubernetes creates some for a Service of that name.
	Getenv func(name string) (value string, ok bool)
	// Set has assignments path=value, such as listen.http=127.0.0.1:0. Lists are separated by commas.
	Set []string
	// Drivers are the known kinds of origins.
	Drivers origin.Drivers

	text []byte // of File, as it was loaded
}

// maxFile bounds the configuration file; a ConfigMap cannot be larger either.
const maxFile = 1 << 20

// Load reads, merges and checks a configuration. If the configuration has faults, the error is an *Error with all of them.
func (s Source) Load() (Config, error) {
	text, err := s.Read()
	if err != nil {
		return Config{}, err
	}
	return s.Parse(text)
}

// Text returns the content of the file that Load used.
func (s Source) Text() []byte { return s.text }

// Read returns the current content of the file.
func (s Source) Read() ([]byte, error) {
	info, err := os.Stat(s.File)
	if err == nil && info.Size() > maxFile {
		err = fmt.Errorf("the file has %d bytes; the maximum is %d", info.Size(), maxFile)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(s.File)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, s.unreadable("no such file; create one with `ringside config example > ringside.yaml`, " +
			"or name yours with --config")
	case err != nil:
		return nil, s.unreadable(err.Error())
	}
	return text, nil
}

func (s Source) unreadable(why string) error {
	return &Error{Problems: []Problem{{Where: s.File, Message: why}}}
}

// Parse is Load with text as the content of the file.
func (s Source) Parse(text []byte) (Config, error) {
	s.text = text
	c := Config{source: &s}
	in := decode.Source{File: s.File, Text: text, Getenv: s.Getenv, Prefix: "RINGSIDE_", Set: s.Set}
	places, problems := in.Into(&c)
	c.places = places
	if len(problems) > 0 {
		return Config{}, &Error{Problems: problems}
	}
	c.normalizeAddresses()
	c.findWorkloadAPI()
	if err := c.Check(s.Drivers); err != nil {
		return Config{}, err
	}
	return c, nil
}

// normalizeAddresses makes equal addresses of members equal texts: the ring depends on the text.
func (c *Config) normalizeAddresses() {
	for i, addr := range c.Membership.Static {
		if canonical, err := address.Member(addr); err == nil {
			c.Membership.Static[i] = canonical
		}
	}
	if canonical, err := address.Member(c.Node.Advertise); err == nil {
		c.Node.Advertise = canonical
	}
}

// findWorkloadAPI uses the variable that SPIFFE defines for workloads, in a cluster without a certificate.
func (c *Config) findWorkloadAPI() {
	t := &c.PeerTLS
	if socket, ok := c.source.Getenv("SPIFFE_ENDPOINT_SOCKET"); ok && c.cluster() && !t.Insecure && t.files().zero() {
		t.WorkloadAPI = or(t.WorkloadAPI, socket)
	}
}

// Source returns where c comes from, or nil if it was made in Go.
func (c Config) Source() *Source { return c.source }

// Problem returns a fault of the field at path, with the place where that was set.
func (c Config) Problem(path, format string, args ...any) Problem {
	return c.places.Problem(path, format, args...)
}

// Check returns an *Error with all faults of c. It opens the origins with drivers, which does not connect to them.
func (c Config) Check(drivers origin.Drivers) error {
	k := checker{config: c, drivers: drivers}
	k.check()
	if len(k.problems) > 0 {
		return &Error{Problems: k.problems}
	}
	return nil
}
