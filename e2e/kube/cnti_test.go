package kube

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// essentials are the checks of CNTI's test catalog on the declaration of a container, by the catalog's names. The checks on
// running processes are in testContainerRuns.
var essentials = map[string]func(pod *corev1.Pod, c corev1.Container) bool{
	"latest_tag": func(_ *corev1.Pod, c corev1.Container) bool {
		_, tag, tagged := strings.Cut(c.Image, ":")
		return tagged && tag != "latest"
	},
	"liveness":  func(_ *corev1.Pod, c corev1.Container) bool { return c.LivenessProbe != nil },
	"readiness": func(_ *corev1.Pod, c corev1.Container) bool { return c.ReadinessProbe != nil },
	"cpu_limits": func(_ *corev1.Pod, c corev1.Container) bool {
		return !c.Resources.Limits.Cpu().IsZero() && !c.Resources.Requests.Cpu().IsZero()
	},
	"memory_limits": func(_ *corev1.Pod, c corev1.Container) bool {
		return !c.Resources.Limits.Memory().IsZero() && !c.Resources.Requests.Memory().IsZero()
	},
	"privileged_containers": func(_ *corev1.Pod, c corev1.Container) bool {
		s := c.SecurityContext
		return !*s.Privileged && !*s.AllowPrivilegeEscalation && slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"})
	},
	"non_root_containers": func(_ *corev1.Pod, c corev1.Container) bool {
		return *c.SecurityContext.RunAsNonRoot && *c.SecurityContext.RunAsUser != 0 && *c.SecurityContext.RunAsGroup != 0
	},
	"selinux_options": func(_ *corev1.Pod, c corev1.Container) bool { return c.SecurityContext.SELinuxOptions == nil },
	"hostport_not_used": func(_ *corev1.Pod, c corev1.Container) bool {
		return !slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.HostPort != 0 })
	},
	"hostpath_mounts, container_sock_mounts": func(pod *corev1.Pod, _ corev1.Container) bool {
		return !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.HostPath != nil })
	},
	"hardcoded_ip_addresses_in_k8s_runtime_configuration": func(_ *corev1.Pod, c corev1.Container) bool {
		text, err := json.Marshal(c)
		return err == nil && !regexp.MustCompile(`([0-9]{1,3}\.){3}[0-9]{1,3}`).Match(text)
	},
}

func (c *cluster) testEssentials(t *testing.T) {
	pod, err := c.create(t, "more", "{metadata: {name: essentials, "+
		`annotations: {ringside.dev/inject: "true", ringside.dev/unix-socket: "true", ringside.dev/http-port: "17070"}}, `+
		`spec: {containers: [{name: app, image: "app:1"}]}}`)
	if err != nil {
		t.Fatal(err)
	}
	for name, passes := range essentials {
		if !passes(pod, pod.Spec.InitContainers[0]) {
			t.Errorf("%s: %v", name, pod.Spec.InitContainers[0])
		}
	}
}

func TestEveryEssentialIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../deploy/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for names := range essentials {
		for name := range strings.SplitSeq(names, ", ") {
			if !strings.Contains(string(text), "`"+name+"`") {
				t.Errorf("deploy/README.md does not mention %s", name)
			}
		}
	}
}

// The sidecar accepts the configuration from the values in deploy/README.md.
func TestValuesOfTheReadme(t *testing.T) {
	text, err := os.ReadFile("../../deploy/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```yaml\n")
	values, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("deploy/README.md has no values")
	}
	file := filepath.Join(t.TempDir(), "values.yaml")
	writeFile(t, file, values)
	rendered, err := helm(t, "template", release, chart, "--values", file)
	if err != nil {
		t.Fatal(err)
	}
	object := find(t, parse(t, rendered), "ConfigMap", "ringside").Object
	config, _, _ := unstructured.NestedString(object, "data", "ringside.yaml")
	sidecar, dsn := filepath.Join(t.TempDir(), "ringside.yaml"), filepath.Join(t.TempDir(), "dsn")
	writeFile(t, dsn, "postgres://db/metrics")
	writeFile(t, sidecar, strings.ReplaceAll(config, "/run/secrets/ringside/dsn", dsn)) // which only a pod has
	if !strings.Contains(config, "peer_tls:") {
		t.Errorf("the configuration has no certificates:\n%s", config)
	}
	empty := filepath.Join(t.TempDir(), "empty") // certificates, which only a pod has
	writeFile(t, empty, "")
	args := []string{"validate", "--offline", "--config", sidecar}
	for _, file := range []string{"cert_file", "key_file", "ca_file"} {
		args = append(args, "--set", "peer_tls."+file+"="+empty)
	}
	out, err := exec.Command(rig.Binary(t), args...).CombinedOutput()
	if !strings.Contains(string(out), "peer_tls: certificate "+empty) {
		t.Errorf("got %v: %s; want only a failure of the certificate", err, out)
	}
}
