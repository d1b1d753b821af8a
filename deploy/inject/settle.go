package inject

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/ringside-cache/ringside/sidecar/container"
)

// settle fills in missing values from the template and validates the result.
func (t *Template) settle(c *choices) (*choices, error) {
	settled := *c
	settled.config, settled.secret = or(c.config, t.Config), or(c.secret, t.Secret)
	settled.volumes = withVolumes(t.Volumes, c.volumes)
	settled.ports = Ports{
		HTTP: or(c.ports.HTTP, t.Ports.HTTP), GRPC: or(c.ports.GRPC, t.Ports.GRPC), Redis: or(c.ports.Redis, t.Ports.Redis),
		Peer: or(c.ports.Peer, t.Ports.Peer), Metrics: or(c.ports.Metrics, t.Ports.Metrics),
		Admin: or(c.ports.Admin, t.Ports.Admin),
	}
	settled.requests, settled.limits = corev1.ResourceList{}, corev1.ResourceList{}
	wrong := settled.ports.check()
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		wrong = errors.Join(wrong, settled.settleResource(name, c, t.Resources))
	}
	return &settled, wrong
}

// settleResource adjusts the value of the template if it contradicts a value chosen by the pod.
func (c *choices) settleResource(name corev1.ResourceName, chosen *choices, def corev1.ResourceRequirements) error {
	request, own := chosen.requests[name]
	if !own {
		request = def.Requests[name]
	}
	limit, ownLimit := chosen.limits[name]
	if !ownLimit {
		limit = def.Limits[name]
	}
	if request.Cmp(limit) > 0 {
		switch {
		case own == ownLimit:
			return fmt.Errorf("%s: the request %s is above the limit %s", name, request.String(), limit.String())
		case own:
			limit = request
		default:
			request = limit
		}
	}
	c.requests[name], c.limits[name] = request, limit
	if name == corev1.ResourceMemory && limit.CmpInt64(container.LeastMemory) < 0 { //guard:memory-limit-below-the-least
		return fmt.Errorf("memory: the limit %s is below %dMi, with which clients cannot make the kernel end the sidecar; raise the annotation "+
			"%smemory-limit, or resources.limits.memory of the template", limit.String(), container.LeastMemory>>20, prefix)
	}
	return nil
}

// port is the port of one of the sidecar's listeners.
type port struct {
	name   string // of the listener and of its annotation
	number int32
}

// all returns the ports that the injector sets.
func (p Ports) all() []port {
	list := []port{{"http", p.HTTP}, {"grpc", p.GRPC}, {"peer", p.Peer}, {"metrics", p.Metrics}, {"admin", p.Admin}}
	if p.Redis != 0 {
		list = append(list, port{"redis", p.Redis})
	}
	return list
}

func (p Ports) check() error {
	seen := map[int32]string{}
	var wrong []error
	for _, port := range p.all() {
		if port.number < leastPort || port.number > 65535 {
			wrong = append(wrong, fmt.Errorf("%s port %d: want a port from %d to 65535", port.name, port.number, leastPort))
		}
		if other, taken := seen[port.number]; taken {
			wrong = append(wrong, fmt.Errorf("%s and %s have the same port %d", other, port.name, port.number))
		}
		seen[port.number] = port.name
	}
	return errors.Join(wrong...)
}
