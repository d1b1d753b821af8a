package inject

import (
	"errors"
	"fmt"
	"iter"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

var (
	errHostNetwork = errors.New("hostNetwork: the sidecar's listeners on loopback would be those of the node, open to " +
		"every process there and taken for the next pod; run one sidecar per node instead, or do without hostNetwork")
	errWindows = errors.New("os: the sidecar runs on linux only")
)

// unfit says why no sidecar can be in a pod of this kind; nil when one can.
func unfit(pod *corev1.Pod) error {
	switch {
	case pod.Spec.HostNetwork:
		return errHostNetwork
	case pod.Spec.OS != nil && pod.Spec.OS.Name == corev1.Windows:
		return errWindows
	}
	return nil
}

// conflicts names all that keeps the sidecar out of pod.
func conflicts(pod *corev1.Pod, c *choices) error {
	found := []error{unfit(pod)}
	for container := range containers(pod) {
		if ours(*container) {
			found = append(found, fmt.Errorf("container %q: the name is the sidecar's; rename it, or decline with %s: \"false\"",
				container.Name, injectKey))
		}
		found = append(found, portConflicts(container, c.ports)...)
		found = append(found, mountConflict(container, c))
	}
	for _, volume := range pod.Spec.Volumes {
		if slices.Contains([]string{configVolume, secretVolume, runVolume, maskVolume}, volume.Name) {
			found = append(found, fmt.Errorf("volume %q: the name is the sidecar's; rename it", volume.Name))
		}
	}
	return errors.Join(found...)
}

func portConflicts(container *corev1.Container, ports Ports) (found []error) {
	for _, theirs := range container.Ports {
		if theirs.Protocol != "" && theirs.Protocol != corev1.ProtocolTCP {
			continue
		}
		for _, port := range ports.all() {
			if port.number == theirs.ContainerPort {
				found = append(found, fmt.Errorf(
					"container %q listens on %d, which is the sidecar's %s port; choose another one with the annotation %s%s-port",
					container.Name, port.number, port.name, prefix, port.name))
			}
		}
	}
	return found
}

func mountConflict(container *corev1.Container, c *choices) error {
	for _, mount := range container.VolumeMounts {
		if c.unixSocket && mount.MountPath == runPath {
			return fmt.Errorf("container %q mounts something else at %s, where the socket belongs", container.Name, runPath)
		}
	}
	return nil
}

// containers yields those that exist from the start: init containers and containers.
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
