package inject

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// mesh is a service mesh that redirects the traffic of its pods. Sidecars have their own mutual TLS and must reach each
// other before the proxy of the mesh runs, so their peer and metrics ports bypass it. (Dapr redirects no traffic.)
type mesh struct {
	name string
	// containers are the ones that the mesh adds to a pod, marks the labels or annotations that request it.
	containers, marks []string
	// inbound and outbound are the annotations with the ports to exclude, separated by commas.
	inbound, outbound string
	// probes means that the mesh redirects HTTP probes to its proxy.
	probes bool
}

var meshes = []mesh{
	{
		name:       "istio",
		containers: []string{"istio-proxy", "istio-init", "istio-validation"},
		marks:      []string{"sidecar.istio.io/inject=true", "istio.io/rev"},
		inbound:    "traffic.sidecar.istio.io/excludeInboundPorts",
		outbound:   "traffic.sidecar.istio.io/excludeOutboundPorts",
		probes:     true,
	},
	{
		name:       "linkerd",
		containers: []string{"linkerd-proxy", "linkerd-init", "linkerd-network-validator"},
		marks:      []string{"linkerd.io/inject=enabled", "linkerd.io/inject=ingress"},
		inbound:    "config.linkerd.io/skip-inbound-ports",
		outbound:   "config.linkerd.io/skip-outbound-ports",
	},
}

// in reports whether the labels, annotations or containers of pod show that the mesh runs in it.
func (m mesh) in(pod *corev1.Pod) bool {
	for container := range containers(pod) {
		if slices.Contains(m.containers, container.Name) {
			return true
		}
	}
	return slices.ContainsFunc(m.marks, func(mark string) bool {
		key, want, _ := strings.Cut(mark, "=")
		for _, values := range []map[string]string{pod.Labels, pod.Annotations} {
			if value, ok := values[key]; ok && (want == "" || value == want) {
				return true
			}
		}
		return false
	})
}

// runsAt reports whether c is a proxy of m that runs as a sidecar among the init containers.
func (m mesh) runsAt(c *corev1.Container) bool {
	return slices.Contains(m.containers, c.Name) && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// afterProxies returns the index among the init containers behind the last proxy of a mesh, or 0. Kubernetes starts sidecars in this order
// and stops them in reverse: the sidecar reaches its etcd through the proxy until it has deregistered. A proxy among the other containers
// starts later anyway, and the sidecar then comes first.
func afterProxies(pod *corev1.Pod) (at int) {
	for i := range pod.Spec.InitContainers {
		if slices.ContainsFunc(meshes, func(m mesh) bool { return m.runsAt(&pod.Spec.InitContainers[i]) }) { //guard:sidecar-outlives-the-proxy
			at = i + 1
		}
	}
	return at
}

// redirectsProbes reports whether a mesh of pod, or one of the configured ones, redirects HTTP probes.
func redirectsProbes(pod *corev1.Pod, always []string) bool {
	return slices.ContainsFunc(meshes, func(m mesh) bool { return m.probes && (slices.Contains(always, m.name) || m.in(pod)) })
}

// bypass returns the annotations that exclude the sidecar's ports from the meshes of pod and from the configured ones.
func bypass(pod *corev1.Pod, always []string, p Ports) map[string]string {
	set := map[string]string{}
	for _, m := range meshes {
		if slices.Contains(always, m.name) || m.in(pod) {
			set[m.inbound] = withPorts(pod.Annotations[m.inbound], p.Peer, p.Metrics)
			set[m.outbound] = withPorts(pod.Annotations[m.outbound], p.Peer)
		}
	}
	return set
}

// withPorts appends the missing ports to a list separated by commas, unless it has all: "*".
func withPorts(list string, ports ...int32) string {
	var all []string
	for port := range strings.SplitSeq(list, ",") {
		if port = strings.TrimSpace(port); port != "" {
			all = append(all, port)
		}
	}
	if slices.Contains(all, "*") { //guard:list-of-all-ports-becomes-invalid
		return list
	}
	for _, port := range ports {
		if number := fmt.Sprint(port); !slices.Contains(all, number) {
			all = append(all, number)
		}
	}
	return strings.Join(all, ",")
}
