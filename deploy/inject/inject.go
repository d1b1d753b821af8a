// Package inject adds the sidecar to pods. It is pure: Patch returns the changes to a pod.
package inject

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Asker is the source of the request for the sidecar.
type Asker int

const (
	// Pod means that only the label or annotation of the pod counts.
	Pod Asker = iota
	// Namespace means that the label of the namespace requests the sidecar for all its pods.
	Namespace
)

// Patch returns the changes to pod: none if the sidecar is not requested, the pod declines, or it already has the sidecar.
// Warnings are for the client that creates the pod. An error rejects the pod and names the allowed values.
func Patch(pod *corev1.Pod, asker Asker, t *Template) (patch []Operation, warnings []string, err error) {
	wanted, err := wants(pod, asker)
	switch {
	case err != nil:
		return nil, nil, err
	case !wanted && asker == Pod:
		return nil, idle(pod), nil
	case !wanted, mirrors(pod):
		return nil, nil, nil
	case present(pod): //guard:injected-twice
		patch, err = t.again(pod)
		return patch, nil, err
	//guard:node-agent-rejected
	case t.unfit(pod) != nil && !asksItself(pod): // node agents in such a namespace must start
		return nil, []string{"ringside: not injected: " + t.unfit(pod).Error()}, nil
	}
	chosen, err := chosen(pod)
	if err != nil {
		return nil, nil, err
	}
	settled, err := t.settle(chosen)
	if err = errors.Join(err, t.conflicts(pod, settled)); err != nil {
		return nil, nil, err
	}
	warnings = t.warn(pod)
	return t.patch(pod, settled, warnings), warnings, nil
}

// wants reports whether the sidecar is requested. One refusal overrides every request.
func wants(pod *corev1.Pod, asker Asker) (bool, error) {
	wanted := asker == Namespace
	declined := false
	var wrong []error
	for i, values := range []map[string]string{pod.Annotations, pod.Labels} {
		switch value, ok := values[injectKey]; {
		case !ok:
		case value == "true":
			wanted = true
		case value == "false":
			declined = true
		default:
			kind := []string{"annotation", "label"}[i]
			wrong = append(wrong, fmt.Errorf(`%s %s: %q: want "true" or "false"`, kind, injectKey, value))
		}
	}
	if len(wrong) > 0 {
		return false, errors.Join(wrong...)
	}
	return wanted && !declined, nil //guard:declined-but-injected
}

func asksItself(pod *corev1.Pod) bool {
	return pod.Labels[injectKey] == "true" || pod.Annotations[injectKey] == "true"
}

// present reports whether an earlier call injected the sidecar, or the pod was copied from one that has it: kubectl debug
// --copy-to keeps the annotations and removes the labels.
func present(pod *corev1.Pod) bool {
	return (pod.Labels[statusKey] == injected || pod.Annotations[templateKey] != "") && slices.ContainsFunc(pod.Spec.InitContainers, ours)
}

func ours(c corev1.Container) bool { return c.Name == containerName }

// mirrors reports whether pod is the mirror of a static pod, which cannot be changed.
func mirrors(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

// Outdated returns why a running pod, in a namespace with these labels, differs from what t injects; "" if it does not.
func (t *Template) Outdated(pod *corev1.Pod, namespace map[string]string) string {
	asker := Pod
	if namespace[injectKey] == "true" {
		asker = Namespace
	}
	wanted, err := wants(pod, asker)
	has, revision := slices.ContainsFunc(pod.Spec.InitContainers, ours), pod.Annotations[templateKey]
	switch {
	case err != nil:
		return err.Error()
	case namespace[injectKey] == "false", !wanted, mirrors(pod):
		return ""
	case !has && t.unfit(pod) != nil && !asksItself(pod): // skipped
		return ""
	case !has:
		return "no sidecar"
	case revision != t.Revision():
		return fmt.Sprintf("template %s, want %s", or(revision, "unknown"), t.Revision())
	}
	return pod.Annotations[warningsKey]
}

// leastGrace is the time in seconds that a sidecar may need to stop: drain_timeout plus closing the listeners.
const leastGrace = 15

func (t *Template) warn(pod *corev1.Pod) []string {
	var warnings []string
	if field := sharing(pod); field != "" {
		warnings = append(warnings, fmt.Sprintf(
			"ringside: %s: the processes of other containers can signal the sidecar and see its arguments", field))
	}
	if names := sameUser(pod, *t.UserID); len(names) > 0 {
		warnings = append(warnings, fmt.Sprintf("ringside: container %s: runs as the user %d of the sidecar; choose another runAsUser",
			strings.Join(names, ", "), *t.UserID))
	}
	if names := unknown(pod); len(names) > 0 {
		warnings = append(warnings,
			fmt.Sprintf("ringside: %s: unknown; the allowed ones are %s", strings.Join(names, ", "), allowed()))
	}
	if grace := pod.Spec.TerminationGracePeriodSeconds; grace != nil && *grace < leastGrace {
		warnings = append(warnings, fmt.Sprintf(
			"ringside: terminationGracePeriodSeconds is %d; below %d the sidecar may be killed while other members still send requests",
			*grace, leastGrace))
	}
	return warnings
}

// idle warns about annotations without effect, because the sidecar is not requested.
func idle(pod *corev1.Pod) []string {
	if pod.Labels[injectKey] != "" || pod.Annotations[injectKey] != "" {
		return nil
	}
	var idle []string
	for key := range pod.Annotations {
		if strings.HasPrefix(key, prefix) && !recorded(key) {
			idle = append(idle, key)
		}
	}
	if len(idle) == 0 {
		return nil
	}
	slices.Sort(idle)
	return []string{fmt.Sprintf(`ringside: %s: no effect without %s: "true"`, strings.Join(idle, ", "), injectKey)}
}
