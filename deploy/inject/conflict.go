package inject

import (
	"errors"
	"fmt"
	"iter"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

var (
	errHostNetwork = errors.New("hostNetwork: the sidecar would listen on the loopback of the node, reachable by every process there, and its ports " +
		"would conflict with the next pod; run one sidecar per node instead, or do not use hostNetwork")
	errWindows = errors.New("os: the sidecar runs on linux only")
)

// unfit returns why pods of this kind cannot have a sidecar, or nil.
func (t *Template) unfit(pod *corev1.Pod) error {
	switch {
	case t.SharedProcesses == rejectShared && sharing(pod) != "":
		return fmt.Errorf("%s: the processes of other containers could signal the sidecar and see its arguments, "+
			"which the template rejects (sharedProcesses)", sharing(pod))
	case pod.Spec.HostNetwork:
		return errHostNetwork
	case onWindows(&pod.Spec): //guard:windows-pod-is-injected
		return errWindows
	}
	return nil
}

// osKey is the label of nodes with their operating system.
const osKey = corev1.LabelOSStable

// onWindows reports whether a pod runs on nodes with Windows only.
func onWindows(spec *corev1.PodSpec) bool {
	if spec.OS != nil && spec.OS.Name == corev1.Windows || spec.NodeSelector[osKey] == string(corev1.Windows) {
		return true
	}
	if spec.Affinity == nil || spec.Affinity.NodeAffinity == nil ||
		spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return false
	}
	terms := spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	return len(terms) > 0 && !slices.ContainsFunc(terms, func(term corev1.NodeSelectorTerm) bool { // one of the terms suffices
		return !slices.ContainsFunc(term.MatchExpressions, func(r corev1.NodeSelectorRequirement) bool {
			return r.Key == osKey && r.Operator == corev1.NodeSelectorOpIn && slices.Equal(r.Values, []string{string(corev1.Windows)})
		})
	})
}

// UsesNodeLabel reports whether Patch uses what a pod requires of a label of nodes.
func UsesNodeLabel(key string) bool { return key == osKey }

// conflicts returns an error that lists everything that prevents the injection.
func (t *Template) conflicts(pod *corev1.Pod, c *choices) error {
	found := []error{t.unfit(pod), halfPodResources(pod.Spec.Resources)}
	for container := range containers(pod) {
		if ours(*container) {
			found = append(found, fmt.Errorf("container %q: the name is reserved for the sidecar; rename it, or decline with %s: \"false\"",
				container.Name, injectKey))
		}
		found = append(found, portConflicts(container, c.ports)...)
		found = append(found, mountConflict(container, c))
	}
	for _, volume := range pod.Spec.Volumes {
		if ReservedVolume(volume.Name) {
			found = append(found, fmt.Errorf("volume %q: the name is reserved for the sidecar, as are all that begin with %s; rename it",
				volume.Name, volumePrefix))
		}
	}
	found = append(found, foreignMounts(pod, c.unixSocket))
	return errors.Join(found...)
}

// ReservedVolume reports whether the name of a volume is reserved for the sidecar.
func ReservedVolume(name string) bool { return strings.HasPrefix(name, volumePrefix) }

// UsesMount reports whether Patch uses a mount: that of a volume of the sidecar, or at the path of its socket.
func UsesMount(m corev1.VolumeMount) bool {
	return ReservedVolume(m.Name) || path.Clean(m.MountPath) == runPath
}

// foreignMounts returns an error for each mount of a volume of the sidecar by another container, which could read the
// configuration and the credentials there. The volume with the socket may be mounted read-only: a container that writes to it
// could replace the socket and answer instead of the sidecar.
func foreignMounts(pod *corev1.Pod, unixSocket bool) error {
	var found []error
	for container := range containers(pod) {
		if ours(*container) {
			continue
		}
		for _, mount := range container.VolumeMounts {
			switch {
			case !ReservedVolume(mount.Name), mount.Name == runVolume && mount.ReadOnly && unixSocket:
			case mount.Name == runVolume && unixSocket:
				found = append(found, fmt.Errorf("container %q mounts the volume %q without readOnly: true, and could replace the socket",
					container.Name, mount.Name))
			default:
				found = append(found, fmt.Errorf("container %q mounts the volume %q, which belongs to the sidecar; remove the mount",
					container.Name, mount.Name))
			}
		}
	}
	return errors.Join(found...)
}

// sharing returns the field of pod by which other containers see the processes of the sidecar, or "".
func sharing(pod *corev1.Pod) string {
	switch share := pod.Spec.ShareProcessNamespace; {
	case pod.Spec.HostPID:
		return "hostPID"
	case share != nil && *share:
		return "shareProcessNamespace"
	}
	return ""
}

// sameUser returns the containers that explicitly run as the user of the sidecar.
func sameUser(pod *corev1.Pod, id int64) (names []string) {
	var all *int64
	if pod.Spec.SecurityContext != nil {
		all = pod.Spec.SecurityContext.RunAsUser
	}
	for container := range containers(pod) {
		user := all
		if own := container.SecurityContext; own != nil && own.RunAsUser != nil {
			user = own.RunAsUser
		}
		if user != nil && *user == id && !ours(*container) {
			names = append(names, container.Name)
		}
	}
	return names
}

func portConflicts(container *corev1.Container, ports Ports) (found []error) {
	for _, port := range ports.all() {
		if slices.Contains(listens(container), port.number) {
			found = append(found, fmt.Errorf(
				"container %q listens on %d, the %s port of the sidecar; choose another port with the annotation %s%s-port",
				container.Name, port.number, port.name, prefix, port.name))
		}
	}
	return found
}

// listens returns the TCP ports of a container that its ports or probes show: neither list is complete.
func listens(container *corev1.Container) (ports []int32) {
	for _, p := range container.Ports {
		if p.Protocol == "" || p.Protocol == corev1.ProtocolTCP {
			ports = append(ports, p.ContainerPort)
		}
	}
	for _, probe := range []*corev1.Probe{container.StartupProbe, container.LivenessProbe, container.ReadinessProbe} {
		if probe == nil { //guard:port-of-a-probe-is-taken
			continue
		}
		if get := probe.HTTPGet; get != nil && get.Host == "" {
			ports = append(ports, get.Port.IntVal) // 0 if it is a name, which is one of the ports
		}
		if connect := probe.TCPSocket; connect != nil && connect.Host == "" {
			ports = append(ports, connect.Port.IntVal)
		}
		if probe.GRPC != nil {
			ports = append(ports, probe.GRPC.Port)
		}
	}
	return ports
}

func mountConflict(container *corev1.Container, c *choices) error {
	for _, mount := range container.VolumeMounts {
		if c.unixSocket && path.Clean(mount.MountPath) == runPath {
			return fmt.Errorf("container %q has another mount at %s, the path of the socket", container.Name, runPath)
		}
	}
	return nil
}

// containers yields the init containers and the containers.
func containers(pod *corev1.Pod) iter.Seq[*corev1.Container] {
	return func(yield func(*corev1.Container) bool) {
		for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
			for i := range list {
				if !yield(&list[i]) {
					return
				}
			}
		}
	}
}
