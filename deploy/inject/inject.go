// Package inject puts the sidecar into pods. Patch says what has to change in a pod, and is pure; NewHandler is the
// mutating admission webhook around it.
package inject

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Asker is who wants the sidecar, when the pod itself does not say.
type Asker int

const (
	// Pod: only its own label or annotation counts.
	Pod Asker = iota
	// Namespace: its label asks for all of its pods.
	Namespace
)

// Patch returns what has to change in pod: nothing where nobody asks for the sidecar, where the pod declines, and where
// it has the sidecar already. Warnings are for whoever creates the pod. An error is a refusal, and says what is
// allowed.
func Patch(pod *corev1.Pod, asker Asker, t *Template) (patch []Operation, warnings []string, err error) {
	wanted, err := wants(pod, asker)
	switch {
	case err != nil:
		return nil, nil, err
	case !wanted && asker == Pod:
		return nil, idle(pod), nil
	case !wanted, present(pod), mirrors(pod): //guard:second-call-webhook-injects-again
		return nil, nil, nil
	//guard:agent-node-kept-from-starting
	case unfit(pod) != nil && !asksItself(pod): // agents of the node live in such namespaces, too, and must start
		return nil, []string{"ringside: not injected: " + unfit(pod).Error()}, nil
	}
	chosen, err := chosen(pod)
	if err != nil {
		return nil, nil, err
	}
	settled, err := t.settle(chosen)
	if err = errors.Join(err, conflicts(pod, settled)); err != nil {
		return nil, nil, err
	}
	return t.patch(pod, settled), warn(pod), nil
}

// wants: one refusal outweighs any wish.
func wants(pod *corev1.Pod, asker Asker) (bool, error) {
	wanted := asker == Namespace
	declined := false
	for kind, values := range map[string]map[string]string{"label": pod.Labels, "annotation": pod.Annotations} {
		switch value, ok := values[injectKey]; {
		case !ok:
		case value == "true":
			wanted = true
		case value == "false":
			declined = true
		default:
			return false, fmt.Errorf(`%s %s: %q: want "true" or "false"`, kind, injectKey, value)
		}
	}
	return wanted && !declined, nil //guard:pod-declines-gets-sidecar
}

func asksItself(pod *corev1.Pod) bool {
	return pod.Labels[injectKey] == "true" || pod.Annotations[injectKey] == "true"
}

// present: an earlier call injected the sidecar, or the pod is a copy of one that has it.
func present(pod *corev1.Pod) bool {
	return pod.Labels[statusKey] == injected && slices.ContainsFunc(pod.Spec.InitContainers, ours)
}

func ours(c corev1.Container) bool { return c.Name == containerName }

// mirrors: the kubelet shows its own static pods so; they cannot be changed.
func mirrors(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

// leastGrace is the time in seconds that a sidecar may need to leave: drain_timeout, and what the listeners take.
const leastGrace = 15

func warn(pod *corev1.Pod) []string {
	var warnings []string
	if names := unknown(pod); len(names) > 0 {
		warnings = append(warnings,
			fmt.Sprintf("ringside: %s: not known; known are %s", strings.Join(names, ", "), allowed()))
	}
	if grace := pod.Spec.TerminationGracePeriodSeconds; grace != nil && *grace < leastGrace {
		warnings = append(warnings, fmt.Sprintf(
			"ringside: terminationGracePeriodSeconds is %d; below %d the sidecar may be killed while others still ask it",
			*grace, leastGrace))
	}
	return warnings
}

// idle warns of annotations that have no effect, because nobody asked for the sidecar.
func idle(pod *corev1.Pod) []string {
	if pod.Labels[injectKey] != "" || pod.Annotations[injectKey] != "" {
		return nil
	}
	var idle []string
	for key := range pod.Annotations {
		if strings.HasPrefix(key, prefix) {
			idle = append(idle, key)
		}
	}
	if len(idle) == 0 {
		return nil
	}
	slices.Sort(idle)
	return []string{fmt.Sprintf(`ringside: %s: no effect without %s: "true"`, strings.Join(idle, ", "), injectKey)}
}
