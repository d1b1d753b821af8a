package inject

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	prefix = "ringside.dev/"
	// injectKey requests the sidecar, as a label or annotation of a pod or as a label of its namespace.
	injectKey = prefix + "inject"
	// statusKey is the label of pods with the sidecar. Monitors and network policies select by it.
	statusKey = prefix + "status"
	injected  = "injected"
)

// The annotations that Patch records on a pod.
const (
	versionKey  = prefix + "version"  // of the template
	templateKey = prefix + "template" // its revision
	warningsKey = prefix + "warnings"
)

// recorded reports whether key is an annotation that Patch sets.
func recorded(key string) bool { return key == versionKey || key == templateKey || key == warningsKey }

// maxWarnings bounds the bytes of the warnings that are recorded: a pod that is copied is read again.
const maxWarnings = 1 << 10

// records returns the annotations by which operators find pods that are out of date or have typos.
func (t *Template) records(warnings []string) map[string]string {
	set := map[string]string{templateKey: t.Revision()}
	if t.Version != "" {
		set[versionKey] = t.Version
	}
	if text := strings.Join(warnings, "\n"); text != "" {
		set[warningsKey] = strings.ToValidUTF8(text[:min(len(text), maxWarnings)], "")
	}
	return set
}

// choices are the values from the annotations of a pod. A missing entry or an empty string means the value of the template.
type choices struct {
	config, secret   string
	volumes          []Volume // of the annotation secrets; then with those of the template
	requests, limits corev1.ResourceList
	ports            Ports
	unixSocket       bool
	supervise        bool
	logLevel         string
	execProbes       bool // of the mesh in the pod, not of an annotation
}

// setters are the annotations that a pod may have, without their prefix. A pod can choose nothing else: no image, no
// command, no host path.
func setters() map[string]func(c *choices, value string) error {
	return map[string]func(*choices, string) error{
		"config":         func(c *choices, v string) error { return setName(&c.config, v) },
		"secret":         func(c *choices, v string) error { return setName(&c.secret, v) },
		"secrets":        func(c *choices, v string) error { return setSecrets(&c.volumes, v) },
		"cpu-request":    func(c *choices, v string) error { return setQuantity(c.requests, corev1.ResourceCPU, v) },
		"cpu-limit":      func(c *choices, v string) error { return setQuantity(c.limits, corev1.ResourceCPU, v) },
		"memory-request": func(c *choices, v string) error { return setQuantity(c.requests, corev1.ResourceMemory, v) },
		"memory-limit":   func(c *choices, v string) error { return setQuantity(c.limits, corev1.ResourceMemory, v) },
		"http-port":      func(c *choices, v string) error { return setPort(&c.ports.HTTP, v) },
		"grpc-port":      func(c *choices, v string) error { return setPort(&c.ports.GRPC, v) },
		"redis-port":     func(c *choices, v string) error { return setPort(&c.ports.Redis, v) },
		"peer-port":      func(c *choices, v string) error { return setPort(&c.ports.Peer, v) },
		"metrics-port":   func(c *choices, v string) error { return setPort(&c.ports.Metrics, v) },
		"admin-port":     func(c *choices, v string) error { return setPort(&c.ports.Admin, v) },
		"unix-socket":    func(c *choices, v string) error { return setBool(&c.unixSocket, v) },
		"supervise":      func(c *choices, v string) error { return setBool(&c.supervise, v) },
		"log-level": func(c *choices, v string) error {
			return setWord(&c.logLevel, v, "debug", "info", "warn", "error")
		},
	}
}

// chosen reads the annotations of a pod. Its error names every invalid value and the allowed values.
func chosen(pod *corev1.Pod) (*choices, error) {
	c := &choices{requests: corev1.ResourceList{}, limits: corev1.ResourceList{}}
	var wrong []error
	known := setters()
	for _, name := range slices.Sorted(maps.Keys(known)) {
		value, ok := pod.Annotations[prefix+name]
		if !ok {
			continue
		}
		if err := known[name](c, value); err != nil {
			wrong = append(wrong, fmt.Errorf("annotation %s%s: %q: %w", prefix, name, value, err))
		}
	}
	return c, errors.Join(wrong...)
}

// unknown returns the labels and annotations with our prefix that do not exist, sorted.
func unknown(pod *corev1.Pod) []string {
	known := setters()
	var names []string
	for key := range pod.Annotations {
		if name, ours := strings.CutPrefix(key, prefix); ours && key != injectKey && !recorded(key) && known[name] == nil {
			names = append(names, "annotation "+key)
		}
	}
	for key := range pod.Labels {
		if strings.HasPrefix(key, prefix) && key != injectKey && key != statusKey {
			names = append(names, "label "+key)
		}
	}
	slices.Sort(names)
	return names
}

// allowed lists the annotations for messages.
func allowed() string {
	return prefix + "{inject, " + strings.Join(slices.Sorted(maps.Keys(setters())), ", ") + "}"
}

func setName(into *string, value string) error {
	*into = value
	return checkName(value)
}

func checkName(value string) error {
	if wrong := validation.IsDNS1123Subdomain(value); len(wrong) > 0 {
		return errors.New("want the name of an object in the pod's namespace: lowercase letters, digits, dashes and dots")
	}
	return nil
}

// maxSecrets is how many Secrets a pod may name: each is a volume and a mount.
const maxSecrets = 16

// setSecrets reads a list such as "etcd, peer=peer-tls": the Secrets etcd and peer-tls, mounted as etcd and peer. A pod can name
// Secrets of its own namespace only: a volume has no field for another one.
func setSecrets(into *[]Volume, value string) error {
	entries := strings.Split(value, ",")
	if len(entries) > maxSecrets {
		return fmt.Errorf("want at most %d Secrets, got %d", maxSecrets, len(entries))
	}
	for _, entry := range entries {
		name, secret, renamed := strings.Cut(strings.TrimSpace(entry), "=")
		if !renamed {
			secret = name
		}
		volume := Volume{Name: name, Secret: &corev1.SecretVolumeSource{SecretName: secret}}
		if err := volume.check(); err != nil {
			return fmt.Errorf("%q: %w", entry, err)
		}
		if slices.ContainsFunc(*into, volume.sameName) {
			return fmt.Errorf("%q: the name %s is there twice", entry, name)
		}
		*into = append(*into, volume)
	}
	return nil
}

func setQuantity(into corev1.ResourceList, name corev1.ResourceName, value string) error {
	quantity, err := ParseQuantity(value)
	switch {
	case err != nil || quantity.Sign() <= 0:
		return fmt.Errorf("want a quantity above 0, such as %s",
			map[corev1.ResourceName]string{corev1.ResourceCPU: "100m", corev1.ResourceMemory: "128Mi"}[name])
	}
	into[name] = quantity
	return nil
}

// quantityText is a quantity of Kubernetes with an exponent of at most two digits.
var quantityText = regexp.MustCompile(`^[+-]?[0-9.]{1,24}([eE][+-]?[0-9]{1,2}|[numkMGTPE]|[KMGTPE]i)?$`)

// ParseQuantity parses a quantity. It rejects exponents with which comparing two quantities takes seconds or all memory:
// resource.Quantity writes out the zeros of 1e999999999.
func ParseQuantity(text string) (resource.Quantity, error) {
	if !quantityText.MatchString(text) { //guard:quantity-with-a-huge-exponent
		return resource.Quantity{}, fmt.Errorf("%.64q is no quantity such as 100m or 128Mi", text)
	}
	return resource.ParseQuantity(text)
}

// UsesKey reports whether Patch uses the value of a label or annotation.
func UsesKey(key string) bool {
	if strings.HasPrefix(key, prefix) || key == corev1.MirrorPodAnnotationKey {
		return true
	}
	return slices.ContainsFunc(meshes, func(m mesh) bool {
		return key == m.inbound || key == m.outbound || slices.ContainsFunc(m.marks, func(mark string) bool {
			name, _, _ := strings.Cut(mark, "=")
			return key == name
		})
	})
}

// leastPort is the lowest port that the sidecar may bind without a capability.
const leastPort = 1024

func setPort(into *int32, value string) error {
	port, err := strconv.ParseUint(value, 10, 16)
	if err != nil || port < leastPort {
		return fmt.Errorf("want a port from %d to 65535", leastPort)
	}
	*into = int32(port)
	return nil
}

func setBool(into *bool, value string) error {
	var word string
	err := setWord(&word, value, "true", "false")
	*into = word == "true"
	return err
}

func setWord(into *string, value string, words ...string) error {
	if !slices.Contains(words, value) {
		return fmt.Errorf("want one of %s", strings.Join(words, ", "))
	}
	*into = value
	return nil
}
