package inject

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	prefix = "ringside.dev/"
	// injectKey, a label or an annotation of a pod or a label of its namespace, asks for the sidecar.
	injectKey = prefix + "inject"
	// statusKey is the label of pods that have the sidecar. Monitors and network policies select by it.
	statusKey = prefix + "status"
	injected  = "injected"
)

// choices are a template with what the annotations of one pod say in its place.
type choices struct {
	config, secret   string
	requests, limits corev1.ResourceList
	ports            Ports
	unixSocket       bool
	logLevel         string // empty: what ringside.yaml says
}

func (t *Template) choices() *choices {
	return &choices{
		config: t.Config, secret: t.Secret, ports: t.Ports,
		requests: maps.Clone(t.Resources.Requests), limits: maps.Clone(t.Resources.Limits),
	}
}

// annotation is one that pods may carry. What is not in annotations() cannot be chosen: no image, no command, no path
// of the host.
type annotation struct {
	set func(c *choices, value string) error
	// own: a user chose the value, so a default that would contradict it gives way.
	overrides []string
}

func annotations() map[string]annotation {
	return map[string]annotation{
		"config":         {set: setName(func(c *choices) *string { return &c.config })},
		"secret":         {set: setName(func(c *choices) *string { return &c.secret })},
		"cpu-request":    {set: setQuantity(request, corev1.ResourceCPU)},
		"cpu-limit":      {set: setQuantity(limit, corev1.ResourceCPU)},
		"memory-request": {set: setQuantity(request, corev1.ResourceMemory)},
		"memory-limit":   {set: setQuantity(limit, corev1.ResourceMemory)},
		"http-port":      {set: setPort(func(p *Ports) *int32 { return &p.HTTP })},
		"grpc-port":      {set: setPort(func(p *Ports) *int32 { return &p.GRPC })},
		"peer-port":      {set: setPort(func(p *Ports) *int32 { return &p.Peer })},
		"metrics-port":   {set: setPort(func(p *Ports) *int32 { return &p.Metrics })},
		"admin-port":     {set: setPort(func(p *Ports) *int32 { return &p.Admin })},
		"unix-socket":    {set: setUnixSocket},
		"log-level":      {set: setLogLevel},
	}
}
