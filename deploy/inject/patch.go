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
)

// Operation is one operation of a JSON patch (RFC 6902). Operations are written explicitly, not computed as a difference, so
// that they do not touch fields of a newer API server that this program does not know.
type Operation struct {
	Op    string `json:"op"`
	From  string `json:"from,omitempty"` // of a move
	Path  string `json:"path"`
	Value any    `json:"value"`
}

func add(path string, value any) Operation { return Operation{Op: "add", Path: path, Value: value} }

func (t *Template) patch(pod *corev1.Pod, c *choices, warnings []string) []Operation {
	keepQoS(pod, c)
	c.execProbes = redirectsProbes(pod, t.Meshes)
	ops := setKeys("/metadata/labels", pod.Labels, map[string]string{statusKey: injected})
	annotations := bypass(pod, t.Meshes, c.ports)
	maps.Copy(annotations, t.records(warnings))
	ops = append(ops, setKeys("/metadata/annotations", pod.Annotations, annotations)...)
	ops = append(ops, raisePodResources(pod.Spec.Resources, c)...)
	if c.unixSocket { // before the sidecar is added, which shifts the indices of init containers
		ops = append(ops, mountSocket("/spec/initContainers", pod.Spec.InitContainers)...)
		ops = append(ops, mountSocket("/spec/containers", pod.Spec.Containers)...)
		ops = append(ops, joinGroup(pod, *t.UserID)...)
	}
	ops = append(ops, insert("/spec/volumes", len(pod.Spec.Volumes), "-", t.volumes(c)...)...)
	return append(ops, insert("/spec/initContainers", len(pod.Spec.InitContainers), strconv.Itoa(afterProxies(pod)), t.container(c))...)
}

// again returns what a pod that has the sidecar needs because of what other webhooks have changed since: the socket in the containers that
// they added, the sidecar's ports around the proxy of a mesh, and its place behind it. It returns nothing if they changed nothing.
func (t *Template) again(pod *corev1.Pod) (ops []Operation, err error) {
	c, err := chosen(pod)
	if err != nil {
		return nil, err
	}
	settled, err := t.settle(c)
	found := []error{err, foreignMounts(pod, true)}
	for container := range containers(pod) {
		if !ours(*container) {
			found = append(found, portConflicts(container, settled.ports)...)
		}
	}
	if err := errors.Join(found...); err != nil {
		return nil, err
	}
	annotations := bypass(pod, t.Meshes, settled.ports)
	maps.DeleteFunc(annotations, func(key, value string) bool { return pod.Annotations[key] == value })
	ops = setKeys("/metadata/annotations", pod.Annotations, annotations)
	if settled.unixSocket {
		ops = append(ops, mountSocket("/spec/initContainers", pod.Spec.InitContainers)...)
		ops = append(ops, mountSocket("/spec/containers", pod.Spec.Containers)...)
	}
	at := slices.IndexFunc(pod.Spec.InitContainers, ours)
	path := func(i int) string { return "/spec/initContainers/" + strconv.Itoa(i) }
	if probe := pod.Spec.InitContainers[at].StartupProbe; redirectsProbes(pod, t.Meshes) && probe != nil && probe.HTTPGet != nil {
		settled.execProbes = true
		own := t.container(settled)
		ops = append(ops, add(path(at)+"/startupProbe", own.StartupProbe), add(path(at)+"/livenessProbe", own.LivenessProbe),
			add(path(at)+"/readinessProbe", own.ReadinessProbe))
	}
	if behind := afterProxies(pod) - 1; behind > at { // where the proxy is before the sidecar is taken out
		ops = append(ops, Operation{Op: "move", From: path(at), Path: path(behind)})
	}
	return ops, nil
}

// insert adds values at an index of the list at path, which has n elements. An empty list does not exist yet.
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

// setKeys sets keys of the map at path, whose current content is has.
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

// mountSocket mounts the socket into each container of a list that does not have it.
func mountSocket(path string, list []corev1.Container) (ops []Operation) {
	mount := corev1.VolumeMount{Name: runVolume, MountPath: runPath, ReadOnly: true}
	for i := range list {
		has := func(m corev1.VolumeMount) bool { return m.Name == runVolume }
		if slices.ContainsFunc(list[i].VolumeMounts, has) { //guard:socket-is-mounted-twice
			continue
		}
		at := fmt.Sprintf("%s/%d/volumeMounts", path, i)
		ops = append(ops, insert(at, len(list[i].VolumeMounts), "-", mount)...)
	}
	return ops
}

// joinGroup gives every container the group of the socket, whose mode is 0660. With an fsGroup, the kubelet does this: the
// directory and the files created in it belong to that group.
func joinGroup(pod *corev1.Pod, group int64) []Operation {
	security := pod.Spec.SecurityContext
	switch {
	case group == 0: // the platform gives the pod an fsGroup
		return nil
	case security == nil:
		return []Operation{add("/spec/securityContext", corev1.PodSecurityContext{SupplementalGroups: []int64{group}})}
	case security.FSGroup != nil || slices.Contains(security.SupplementalGroups, group):
		return nil
	}
	return insert("/spec/securityContext/supplementalGroups", len(security.SupplementalGroups), "-", group)
}

var computing = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}

// raisePodResources adds the sidecar's resources to those of the whole pod, which the other containers keep for themselves.
func raisePodResources(pod *corev1.ResourceRequirements, c *choices) (ops []Operation) {
	if pod == nil {
		return nil
	}
	for _, of := range []struct {
		path     string
		pod, own corev1.ResourceList
	}{{"/spec/resources/requests/", pod.Requests, c.requests}, {"/spec/resources/limits/", pod.Limits, c.limits}} {
		for _, name := range computing {
			if amount, ok := of.pod[name]; ok {
				amount.Add(of.own[name]) //guard:pod-has-no-room-for-the-sidecar
				ops = append(ops, add(of.path+string(name), amount.String()))
			}
		}
	}
	return ops
}

// halfPodResources returns an error if a pod has a limit of its own for a resource, and no request: the API server would then take
// the sidecar's request for that of the whole pod.
func halfPodResources(pod *corev1.ResourceRequirements) error {
	if pod == nil {
		return nil
	}
	var wrong []error
	for _, name := range computing {
		_, limited := pod.Limits[name]
		if _, requested := pod.Requests[name]; limited && !requested {
			wrong = append(wrong, fmt.Errorf("spec.resources: limits.%s without requests.%[1]s; set both, because the sidecar's request would become "+
				"that of the pod", name))
		}
	}
	return errors.Join(wrong...)
}

// guaranteed reports whether requests and limits are equal, for the whole pod or, if it has none, in all its containers.
func guaranteed(pod *corev1.Pod) bool {
	if of := pod.Spec.Resources; of != nil && slices.ContainsFunc(computing, func(name corev1.ResourceName) bool {
		return !of.Limits.Name(name, resource.DecimalSI).IsZero() || !of.Requests.Name(name, resource.DecimalSI).IsZero()
	}) {
		return exact(of)
	}
	for container := range containers(pod) {
		if !exact(&container.Resources) {
			return false
		}
	}
	return true
}

func exact(r *corev1.ResourceRequirements) bool {
	for _, name := range computing {
		limit, limited := r.Limits[name]
		request, requested := r.Requests[name]
		if !limited || requested && request.Cmp(limit) != 0 {
			return false
		}
	}
	return true
}

// keepQoS makes the sidecar's requests and limits equal if those of the pod are: it is Guaranteed, may have exclusive CPUs, and must
// stay so. The sidecar itself must not occupy an exclusive CPU, which the static CPU manager gives for each whole one that a container
// of such a pod requests.
func keepQoS(pod *corev1.Pod, c *choices) {
	if !guaranteed(pod) {
		return
	}
	if cpu := c.limits[corev1.ResourceCPU]; cpu.MilliValue()%1000 == 0 { //guard:sidecar-takes-a-whole-cpu
		c.limits[corev1.ResourceCPU] = *resource.NewMilliQuantity(cpu.MilliValue()-1, resource.DecimalSI)
	}
	c.requests = maps.Clone(c.limits) //guard:guaranteed-pod-loses-cpus
}
