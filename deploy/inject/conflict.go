package inject

import (
	"errors"
	"fmt"
	"iter"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

var (
	errHostNetwork = errors.New("hostNetwork: the sidecar would listen on the loopback of the node, reachable by every process there, and its ports " +
		"would conflict with the next pod; run one sidecar per node instead, or do not use hostNetwork")
	errWindows = errors.New("os: the sidecar runs on linux only")
)

// unfit returns why pods of this kind cannot have a sidecar, or nil.
func unfit(pod *corev1.Pod) error {
	switch {
	case pod.Spec.HostNetwork:
		return errHostNetwork
	case pod.Spec.OS != nil && pod.Spec.OS.Name == corev1.Windows:
		return errWindows
	}
	return nil
}

// conflicts returns an error that lists everything that prevents the injection.
func conflicts(pod *corev1.Pod, c *choices) error {
	found := []error{unfit(pod)}
	for container := range containers(pod) {
		if ours(*container) {
			found = append(found, fmt.Errorf("container %q: the name is reserved for the sidecar; rename it, or decline with %s: \"false\"",
				container.Name, injectKey))
		}
		found = append(found, portConflicts(container, c.ports)...)
		found = append(found, mountConflict(container, c))
	}
	for _, volume := range pod.Spec.Volumes {
		if slices.Contains([]string{configVolume, secretVolume, runVolume, maskVolume}, volume.Name) {
			found = append(found, fmt.Errorf("volume %q: the name is reserved for the sidecar; rename it", volume.Name))
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
					"container %q listens on %d, the %s port of the sidecar; choose another port with the annotation %s%s-port",
					container.Name, port.number, port.name, prefix, port.name))
			}
		}
	}
	return found
}

func mountConflict(container *corev1.Container, c *choices) error {
	for _, mount := range container.VolumeMounts {
		if c.unixSocket && mount.MountPath == runPath {
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
