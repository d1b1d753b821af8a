package inject

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Operation is one of a JSON patch (RFC 6902). Operations are written out rather than computed as a difference: fields
// that a newer API server knows, and this program does not, are left alone so.
type Operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

func add(path string, value any) Operation { return Operation{Op: "add", Path: path, Value: value} }

func (t *Template) patch(pod *corev1.Pod, c *choices) []Operation {
	keepQoS(pod, c)
	ops := setKeys("/metadata/labels", pod.Labels, map[string]string{statusKey: injected})
	ops = append(ops, setKeys("/metadata/annotations", pod.Annotations, bypass(pod, t.Meshes, c.ports))...)
	if c.unixSocket { // before the sidecar is added, which changes the places of init containers
		ops = append(ops, mountSocket("/spec/initContainers", pod.Spec.InitContainers)...)
		ops = append(ops, mountSocket("/spec/containers", pod.Spec.Containers)...)
		ops = append(ops, joinGroup(pod)...)
	}
	ops = append(ops, insert("/spec/volumes", len(pod.Spec.Volumes), "-", volumes(c)...)...)
	return append(ops, insert("/spec/initContainers", len(pod.Spec.InitContainers), "0", t.container(c))...)
}

// insert adds values at a place of the list at path, which has n elements: a list without any does not exist.
func insert[T any](path string, n int, place string, values ...T) []Operation {
	if n == 0 {
		return []Operation{add(path, values)}
	}
	ops := make([]Operation, len(values))
	for i, value := range values {
		ops[i] = add(path+"/"+place, value)
	}
	return ops
}

// setKeys sets keys of the map at path, which is now has.
func setKeys(path string, has, set map[string]string) []Operation {
	if len(set) == 0 {
		return nil
	}
	if len(has) == 0 {
		return []Operation{add(path, set)}
	}
	var ops []Operation
	for _, key := range slices.Sorted(maps.Keys(set)) {
		ops = append(ops, add(path+"/"+pointer(key), set[key]))
	}
	return ops
}

// pointer escapes one element of a JSON pointer (RFC 6901, section 3).
func pointer(key string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(key) }

// mountSocket lets each container of a list reach the socket.
func mountSocket(path string, list []corev1.Container) (ops []Operation) {
	mount := corev1.VolumeMount{Name: runVolume, MountPath: runPath, ReadOnly: true}
	for i := range list {
		at := fmt.Sprintf("%s/%d/volumeMounts", path, i)
		ops = append(ops, insert(at, len(list[i].VolumeMounts), "-", mount)...)
	}
	return ops
}

// joinGroup gives every container the group of the socket, whose mode is 0660. Where the pod has an fsGroup, the
// kubelet has done the like: the directory, and what is made in it, belongs to that group.
func joinGroup(pod *corev1.Pod) []Operation {
	security := pod.Spec.SecurityContext
	switch {
	case security == nil:
		return []Operation{add("/spec/securityContext", corev1.PodSecurityContext{SupplementalGroups: []int64{userID}})}
	case security.FSGroup != nil || slices.Contains(security.SupplementalGroups, userID):
		return nil
	}
	return insert("/spec/securityContext/supplementalGroups", len(security.SupplementalGroups), "-", userID)
}

// keepQoS makes requests and limits equal in a pod whose containers' all are: it is Guaranteed, which may have given it
// CPUs of its own, and must stay so.
func keepQoS(pod *corev1.Pod, c *choices) {
	for container := range containers(pod) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			limit, limited := container.Resources.Limits[name]
			request, requested := container.Resources.Requests[name]
			if !limited || requested && request.Cmp(limit) != 0 {
				return
			}
		}
	}
	c.requests = maps.Clone(c.limits) //guard:guaranteed-pod-loses-cpus
}
