package inject

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files")

func newTemplate(t testing.TB) *Template {
	t.Helper()
	template, err := ParseTemplate([]byte("image: registry.example/ringside:1.2.3"))
	if err != nil {
		t.Fatal(err)
	}
	return template
}

func parsePod(t testing.TB, text string) *corev1.Pod {
	t.Helper()
	pod := new(corev1.Pod)
	if err := yaml.UnmarshalStrict([]byte(text), pod); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return pod
}

// newPod returns a pod that requests the sidecar, with additional lines of YAML at each place.
func newPod(t testing.TB, annotations, spec string) *corev1.Pod {
	t.Helper()
	return parsePod(t, `{metadata: {name: app, annotations: {ringside.dev/inject: "true", `+annotations+`}},
		spec: {`+spec+` containers: [{name: app, image: "app:1"}]}}`)
}

func apply(t testing.TB, pod *corev1.Pod, ops []Operation) *corev1.Pod {
	t.Helper()
	if len(ops) == 0 {
		return pod
	}
	document, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	patched := new(corev1.Pod)
	if err := json.Unmarshal(applyJSON(t, document, ops), patched); err != nil {
		t.Fatal(err)
	}
	return patched
}

func applyJSON(t testing.TB, document []byte, ops []Operation) []byte {
	t.Helper()
	text, err := json.Marshal(ops)
	if err != nil {
		t.Fatal(err)
	}
	patch, err := jsonpatch.DecodePatch(text)
	if err != nil {
		t.Fatal(err)
	}
	patched, err := patch.Apply(document)
	if err != nil {
		t.Fatalf("apply %s: %v", text, err)
	}
	return patched
}

func mustPatch(t testing.TB, pod *corev1.Pod) []Operation {
	t.Helper()
	ops, _, err := Patch(pod, Pod, newTemplate(t))
	if err != nil {
		t.Fatal(err)
	}
	return ops
}

func podFiles(t testing.TB) map[string]*corev1.Pod {
	t.Helper()
	paths, err := filepath.Glob("testdata/pods/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no pods in testdata: %v", err)
	}
	pods := map[string]*corev1.Pod{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		pods[strings.TrimSuffix(filepath.Base(path), ".yaml")] = parsePod(t, string(text))
	}
	return pods
}

func TestGoldenPatches(t *testing.T) {
	for name, pod := range podFiles(t) {
		t.Run(name, func(t *testing.T) {
			text, err := yaml.Marshal(mustPatch(t, pod))
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata/patches", name+".yaml")
			if *update {
				if err := os.WriteFile(golden, text, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(text) != string(want) {
				t.Errorf("the patch of %s has changed; if it should have, run go test -update\n%s", name, text)
			}
		})
	}
}

func TestSecondPatchIsEmpty(t *testing.T) {
	for name, pod := range podFiles(t) {
		t.Run(name, func(t *testing.T) {
			for _, asker := range []Asker{Pod, Namespace} {
				patched := apply(t, pod, mustPatch(t, pod))
				if ops, warnings, err := Patch(patched, asker, newTemplate(t)); len(ops) > 0 || len(warnings) > 0 || err != nil {
					t.Errorf("patched again: %v, %v, %v", ops, warnings, err)
				}
			}
		})
	}
}

// Kubernetes starts init containers in this order, and stops sidecars in reverse.
func TestPlaceAmongTheInitContainers(t *testing.T) {
	for name, test := range map[string]struct {
		init string
		want int
	}{
		"none":                          {"", 0},
		"those of the application":      {"{name: migrate}, {name: other, restartPolicy: Always}", 0},
		"Istio with a native proxy":     {"{name: istio-validation}, {name: istio-proxy, restartPolicy: Always}, {name: migrate}", 2},
		"Istio's proxy is a container":  {"{name: istio-init}, {name: migrate}", 0},
		"Linkerd with a native proxy":   {"{name: linkerd-init}, {name: linkerd-proxy, restartPolicy: Always}", 2},
		"the last init container is it": {"{name: migrate}, {name: linkerd-proxy, restartPolicy: Always}", 2},
		"both meshes":                   {"{name: istio-proxy, restartPolicy: Always}, {name: x}, {name: linkerd-proxy, restartPolicy: Always}, {name: y}", 3},
	} {
		pod := newPod(t, "", "initContainers: ["+test.init+"],")
		if got := placeOf(apply(t, pod, mustPatch(t, pod))); got != test.want {
			t.Errorf("%s: the sidecar is at %d, want %d", name, got, test.want)
		}
	}
}

// A webhook that comes later adds its proxy and its containers. The API server then calls the injector again.
func TestSecondCallServesContainersThatCameLater(t *testing.T) {
	pod := newPod(t, `ringside.dev/unix-socket: "true", traffic.sidecar.istio.io/excludeOutboundPorts: "9999"`, "")
	patched := apply(t, pod, mustPatch(t, pod))
	always := corev1.ContainerRestartPolicyAlways
	patched.Spec.InitContainers = append(patched.Spec.InitContainers, corev1.Container{Name: "istio-init"},
		corev1.Container{Name: "istio-proxy", RestartPolicy: &always}, corev1.Container{Name: "migrate"})
	patched.Spec.Containers = append(patched.Spec.Containers, corev1.Container{Name: "logs"})
	again := apply(t, patched, mustPatch(t, patched))
	var names []string
	for container := range containers(again) {
		names = append(names, container.Name)
		mounts := 0
		for _, m := range container.VolumeMounts {
			if m.Name == runVolume {
				mounts++
			}
		}
		if mounts != 1 {
			t.Errorf("container %s has %d mounts of the socket, want 1", container.Name, mounts)
		}
	}
	if want := []string{"istio-init", "istio-proxy", containerName, "migrate", "app", "logs"}; !slices.Equal(names, want) {
		t.Errorf("got the containers %q, want %q", names, want)
	}
	own := again.Spec.InitContainers[2]
	for _, probe := range []*corev1.Probe{own.StartupProbe, own.LivenessProbe, own.ReadinessProbe} {
		if probe.Exec == nil || probe.HTTPGet != nil {
			t.Errorf("got the probe %v, want a command", probe)
		}
	}
	if got := again.Annotations["traffic.sidecar.istio.io/excludeOutboundPorts"]; got != "9999,7072" {
		t.Errorf("excludeOutboundPorts is %q, want 9999,7072", got)
	}
	if third := mustPatch(t, again); len(third) > 0 {
		t.Errorf("a third call changes %v", third)
	}
	again.Spec.Containers = append(again.Spec.Containers, corev1.Container{Name: "late", Ports: []corev1.ContainerPort{{ContainerPort: 7071}}})
	if _, _, err := Patch(again, Pod, newTemplate(t)); err == nil || !strings.Contains(err.Error(), `container "late" listens on 7071`) {
		t.Errorf("got %v for a container on the sidecar's port, want an error that names both", err)
	}
}

func TestPortsAreAppendedToTheOperatorsOwn(t *testing.T) {
	for list, want := range map[string]string{"": "7072,7073", "80": "80,7072,7073", " 80 , 7073,": "80,7073,7072", "*": "*", "1000-2000": "1000-2000,7072,7073"} {
		if got := withPorts(list, 7072, 7073); got != want {
			t.Errorf("%q: got %q, want %q", list, got, want)
		}
	}
}

// kubectl debug --copy-to removes the labels of the pod and adds a container.
func TestCopyForDebuggingIsAccepted(t *testing.T) {
	pod := newPod(t, "", "")
	copied := apply(t, pod, mustPatch(t, pod))
	copied.Labels = nil
	copied.Spec.Containers = append(copied.Spec.Containers, corev1.Container{Name: "debugger"})
	if ops, _, err := Patch(copied, Pod, newTemplate(t)); len(ops) > 0 || err != nil {
		t.Errorf("got %v, %v, want no change", ops, err)
	}
}

// Operators find pods that are out of date, and typos.
func TestPodRecordsVersionTemplateAndWarnings(t *testing.T) {
	const text = "{image: 'r:1', version: 1.2.3}"
	template, err := ParseTemplate([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	changed, err := ParseTemplate([]byte(text + " # changed"))
	if err != nil {
		t.Fatal(err)
	}
	pod := newPod(t, `ringside.dev/memory-limt: 64Mi`, "")
	ops, warnings, err := Patch(pod, Namespace, template)
	if err != nil || len(warnings) != 1 {
		t.Fatal(warnings, err)
	}
	got := apply(t, pod, ops).Annotations
	if got["ringside.dev/version"] != "1.2.3" || got["ringside.dev/template"] != template.Revision() || got["ringside.dev/warnings"] != warnings[0] ||
		len(template.Revision()) != 12 || changed.Revision() == template.Revision() {
		t.Errorf("got the annotations %v, want the version, the revision %s (not %s) and the warning %q", got, template.Revision(), changed.Revision(), warnings)
	}
}

func TestOutdatedPods(t *testing.T) {
	template := newTemplate(t)
	asking, refusing := map[string]string{"ringside.dev/inject": "true"}, map[string]string{"ringside.dev/inject": "false"}
	with := func(meta string) *corev1.Pod {
		return parsePod(t, "{metadata: {"+meta+"}, spec: {initContainers: [{name: ringside}]}}")
	}
	for _, test := range []struct {
		name      string
		pod       *corev1.Pod
		namespace map[string]string
		want      string
	}{
		{"requests nothing", &corev1.Pod{}, nil, ""},
		{"namespace requests", &corev1.Pod{}, asking, "no sidecar"},
		{"namespace refuses", newPod(t, "", ""), refusing, ""},
		{"requests", newPod(t, "", ""), nil, "no sidecar"},
		{"node agent", &corev1.Pod{Spec: corev1.PodSpec{HostNetwork: true}}, asking, ""},
		{"current", with("annotations: {ringside.dev/template: " + template.Revision() + "}"), asking, ""},
		{"other template", with("annotations: {ringside.dev/template: abc}"), asking, "template abc, want " + template.Revision()},
		{"none recorded", with(""), asking, "template unknown, want " + template.Revision()},
		{"warning", with("annotations: {ringside.dev/template: " + template.Revision() + ", ringside.dev/warnings: typo}"), asking, "typo"},
	} {
		if got := template.Outdated(test.pod, test.namespace); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

// placeOf returns where the sidecar is among the init containers.
func placeOf(pod *corev1.Pod) int { return slices.IndexFunc(pod.Spec.InitContainers, ours) }

func TestSidecarIsAddedAndTheRestIsUnchanged(t *testing.T) {
	for name, pod := range podFiles(t) {
		t.Run(name, func(t *testing.T) {
			patched := apply(t, pod, mustPatch(t, pod))
			at := placeOf(patched)
			if at < 0 || *patched.Spec.InitContainers[at].RestartPolicy != "Always" {
				t.Fatalf("the sidecar is at %d", at)
			}
			rest := patched.DeepCopy()
			rest.Spec.InitContainers = slices.Delete(rest.Spec.InitContainers, at, at+1)
			for container := range containers(rest) {
				container.VolumeMounts = slices.DeleteFunc(container.VolumeMounts, func(m corev1.VolumeMount) bool {
					return m.Name == runVolume
				})
			}
			var before, after []corev1.Container
			for container := range containers(pod) {
				before = append(before, *container)
			}
			for container := range containers(rest) {
				if len(container.VolumeMounts) == 0 {
					container.VolumeMounts = nil
				}
				after = append(after, *container)
			}
			if !reflect.DeepEqual(before, after) {
				t.Errorf("containers were\n%v\nand are\n%v", before, after)
			}
		})
	}
}

// A newer API server sends fields that this program does not know.
func TestUnknownFieldsStay(t *testing.T) {
	const document = `{"metadata": {"name": "app", "future": 1, "annotations": {"ringside.dev/inject": "true",
		"ringside.dev/unix-socket": "true"}}, "spec": {"future": 2, "securityContext": {"future": 3},
		"volumes": [{"name": "v", "future": 4}], "initContainers": [{"name": "i", "future": 5}],
		"containers": [{"name": "app", "future": 6}]}}`
	pod := new(corev1.Pod)
	if err := json.Unmarshal([]byte(document), pod); err != nil {
		t.Fatal(err)
	}
	patched := applyJSON(t, []byte(document), mustPatch(t, pod))
	for _, field := range []string{`"future":1`, `"future":2`, `"future":3`, `"future":4`, `"future":5`, `"future":6`} {
		if !strings.Contains(strings.ReplaceAll(string(patched), " ", ""), field) {
			t.Errorf("%s is lost: %s", field, patched)
		}
	}
}

func TestSidecarIsRequested(t *testing.T) {
	const yes, no, silent = `"true"`, `"false"`, ""
	tests := []struct {
		name, label, annotation string
		asker                   Asker
		want                    bool
	}{
		{"nobody", silent, silent, Pod, false},
		{"the annotation", silent, yes, Pod, true},
		{"the label", yes, silent, Pod, true},
		{"the namespace", silent, silent, Namespace, true},
		{"the namespace, and the annotation declines", silent, no, Namespace, false},
		{"the namespace, and the label declines", no, silent, Namespace, false},
		{"the label, and the annotation declines", yes, no, Pod, false},
		{"the annotation, and the label declines", no, yes, Namespace, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			set := func(value string) string {
				if value == silent {
					return "{}"
				}
				return "{ringside.dev/inject: " + value + "}"
			}
			pod := parsePod(t, `{metadata: {name: app, labels: `+set(test.label)+`, annotations: `+set(test.annotation)+`},
				spec: {containers: [{name: app}]}}`)
			ops, _, err := Patch(pod, test.asker, newTemplate(t))
			if err != nil || len(ops) > 0 != test.want {
				t.Errorf("patched: %v, %v; want %v", len(ops) > 0, err, test.want)
			}
		})
	}
}

func TestInvalidPodsAreRejected(t *testing.T) {
	tests := []struct {
		name, annotations, spec string
		want                    []string
	}{
		{"a wish that is neither yes nor no", `ringside.dev/inject: "yes"`, "",
			[]string{`annotation ringside.dev/inject: "yes": want "true" or "false"`}},
		{"a name with a path", `ringside.dev/config: ../etc`, "",
			[]string{`annotation ringside.dev/config: "../etc": want the name of an object in the pod's namespace`}},
		{"no quantity", `ringside.dev/cpu-limit: much`, "",
			[]string{`ringside.dev/cpu-limit: "much": want a quantity above 0, such as 100m`}},
		{"a negative quantity", `ringside.dev/memory-limit: "-1Gi"`, "",
			[]string{`ringside.dev/memory-limit: "-1Gi": want a quantity above 0, such as 128Mi`}},
		{"too little memory", `ringside.dev/memory-limit: 63Mi`, "", []string{"memory: the limit 63Mi is below 64Mi", "ringside.dev/memory-limit"}},
		{"a request above the limit", `ringside.dev/memory-limit: 64Mi, ringside.dev/memory-request: 65Mi`, "",
			[]string{"memory: the request 65Mi is above the limit 64Mi"}},
		{"a privileged port", `ringside.dev/http-port: "80"`, "", []string{"want a port from 1024 to 65535"}},
		{"a port beyond the last", `ringside.dev/http-port: "70000"`, "", []string{"want a port from 1024 to 65535"}},
		{"the Secret of another tenant", `ringside.dev/secrets: other/dsn`, "",
			[]string{`ringside.dev/secrets: "other/dsn": "other/dsn": want a name of at most 40 lowercase letters`}},
		{"the Secret of another tenant with a name", `ringside.dev/secrets: dsn=other/dsn`, "",
			[]string{"want the name of an object in the pod's namespace"}},
		{"a path as the name of a Secret", `ringside.dev/secrets: ../x=dsn`, "", []string{"want a name of at most 40"}},
		{"the place of the certificates", `ringside.dev/secrets: ringside-tls=dsn`, "", []string{"/run/secrets/ringside-tls is in use"}},
		{"the place of the token", `ringside.dev/secrets: kubernetes.io=dsn`, "", []string{"want a name of at most 40"}},
		{"one Secret twice", `ringside.dev/secrets: "a, b, a=c"`, "", []string{"the name a is there twice"}},
		{"too many Secrets", `ringside.dev/secrets: "` + strings.Repeat("a,", 16) + `a"`, "", []string{"want at most 16 Secrets, got 17"}},
		{"an empty entry", `ringside.dev/secrets: "a,"`, "", []string{`"": want a name of at most 40`}},
		{"one port twice", `ringside.dev/http-port: "7071"`, "", []string{"http and grpc have the same port 7071"}},
		{"a port of the others for Redis", `ringside.dev/redis-port: "7072"`, "", []string{"peer and redis have the same port 7072"}},
		{"a port in use for Redis", `ringside.dev/redis-port: "6379"`, "initContainers: [{name: i, restartPolicy: Always, ports: [{containerPort: 6379}]}],",
			[]string{`container "i" listens on 6379, the redis port of the sidecar; choose another port with the annotation ringside.dev/redis-port`}},
		{"a switch", `ringside.dev/unix-socket: "on"`, "", []string{"want one of true, false"}},
		{"a log level", `ringside.dev/log-level: trace`, "", []string{"want one of debug, info, warn, error"}},
		{"several at once", `ringside.dev/log-level: trace, ringside.dev/http-port: x`, "",
			[]string{"ringside.dev/log-level", "ringside.dev/http-port"}},
		{"the node's network", "", "hostNetwork: true,", []string{"hostNetwork: "}},
		{"windows", "", "os: {name: windows},", []string{"os: the sidecar runs on linux only"}},
		{"a container with the name", "", `initContainers: [{name: ringside, image: "theirs:1"}],`,
			[]string{`container "ringside": the name is reserved for the sidecar`}},
		{"a port in use", "", "initContainers: [{name: i, restartPolicy: Always, ports: [{containerPort: 7073}]}],",
			[]string{`container "i" listens on 7073, the metrics port of the sidecar; choose another port with the ` +
				"annotation ringside.dev/metrics-port"}},
		{"a port that only probes show", "", "initContainers: [{name: i, restartPolicy: Always, livenessProbe: {httpGet: {port: 7070}}, " +
			"startupProbe: {tcpSocket: {port: 7071}}, readinessProbe: {grpc: {port: 7073}}}],",
			[]string{`container "i" listens on 7070, the http port`, `container "i" listens on 7071, the grpc port`,
				`container "i" listens on 7073, the metrics port`}},
		{"a volume with the name", "", "volumes: [{name: ringside-config, emptyDir: {}}],",
			[]string{`volume "ringside-config": the name is reserved for the sidecar`}},
		{"another volume with the prefix", "", "volumes: [{name: ringside-data, emptyDir: {}}],",
			[]string{`volume "ringside-data": the name is reserved for the sidecar`}},
		{"mounts of the sidecar's volumes", `ringside.dev/secret: s`,
			"initContainers: [{name: i, volumeMounts: [{name: ringside-secret, mountPath: /s}]}, " +
				"{name: j, volumeMounts: [{name: ringside-run, mountPath: /r, readOnly: true}, {name: ringside-config, mountPath: /c}]}],",
			[]string{`container "i" mounts the volume "ringside-secret", which belongs to the sidecar`,
				`container "j" mounts the volume "ringside-run"`, `container "j" mounts the volume "ringside-config"`}},
		{"a writable mount of the socket", `ringside.dev/unix-socket: "true"`,
			"initContainers: [{name: i, volumeMounts: [{name: ringside-run, mountPath: /r}]}],",
			[]string{`container "i" mounts the volume "ringside-run" without readOnly: true`}},
		{"the socket's place with a slash", `ringside.dev/unix-socket: "true"`,
			"initContainers: [{name: i, volumeMounts: [{name: v, mountPath: /run/ringside/}]}],",
			[]string{`container "i" has another mount at /run/ringside`}},
		{"the socket's place in use", `ringside.dev/unix-socket: "true"`,
			"initContainers: [{name: i, volumeMounts: [{name: v, mountPath: /run/ringside}]}],",
			[]string{`container "i" has another mount at /run/ringside`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			annotations := test.annotations
			if !strings.Contains(annotations, injectKey) {
				annotations = `ringside.dev/inject: "true", ` + annotations
			}
			pod := parsePod(t, `{metadata: {name: app, annotations: {`+annotations+`}},
				spec: {`+test.spec+` containers: [{name: app, image: "app:1"}]}}`)
			ops, _, err := Patch(pod, Pod, newTemplate(t))
			if err == nil || len(ops) > 0 {
				t.Fatalf("accepted: %v", ops)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("rejected with\n%v\nwant\n%s", err, want)
				}
			}
		})
	}
}

// resource.Quantity would write out the zeros of these exponents to compare them.
func TestHugeQuantitiesAreRejected(t *testing.T) {
	for _, text := range []string{"1e999", "1e-999", "1e999999999", "1E2147483647", "1e-2147483648", "", "e9", "1Qi", strings.Repeat("1", 100)} {
		if q, err := ParseQuantity(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, q.AsDec().Scale())
		}
	}
	for _, text := range []string{"1", "100m", "0.5", "128Mi", "1e3", "1E", "5e-3", "1Ei", "2k", "-1", "+1"} {
		q, err := ParseQuantity(text)
		if want := resource.MustParse(text); err != nil || q.Cmp(want) != 0 {
			t.Errorf("%q: got %v, %v; want %v", text, &q, err, &want)
		}
	}
}

// A status label from a copied template does not mean that the sidecar is present.
func TestStatusLabelAloneIsNotASidecar(t *testing.T) {
	pod := newPod(t, "", "")
	pod.Labels = map[string]string{statusKey: injected}
	if len(mustPatch(t, pod)) == 0 {
		t.Error("not injected")
	}
}

// Another webhook may add a container after the sidecar.
func TestMountsOfAddedContainersAreRejected(t *testing.T) {
	for _, test := range []struct {
		mount string
		want  string // "": accepted
	}{
		{"{name: ringside-secret, mountPath: /s}", `container "added" mounts the volume "ringside-secret"`},
		{"{name: ringside-run, mountPath: /run/ringside}", `container "added" mounts the volume "ringside-run" without readOnly`},
		{"{name: ringside-run, mountPath: /run/ringside, readOnly: true}", ""},
	} {
		pod := newPod(t, `ringside.dev/secret: s, ringside.dev/unix-socket: "true"`, "")
		pod = apply(t, pod, mustPatch(t, pod))
		added := parsePod(t, `{spec: {containers: [{name: added, volumeMounts: [`+test.mount+`]}]}}`)
		pod.Spec.Containers = append(pod.Spec.Containers, added.Spec.Containers...)
		ops, _, err := Patch(pod, Pod, newTemplate(t))
		if len(ops) > 0 || (test.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v and the error %v, want %q", test.mount, ops, err, test.want)
		}
	}
}

// The template decides whether pods that share processes are rejected.
func TestSharedProcesses(t *testing.T) {
	reject, err := ParseTemplate([]byte("{image: 'r:1', sharedProcesses: Reject}"))
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"shareProcessNamespace", "hostPID"} {
		pod := newPod(t, "", field+": true,")
		ops, warnings, err := Patch(pod, Pod, newTemplate(t))
		if err != nil || len(ops) == 0 || len(warnings) != 1 || !strings.Contains(warnings[0], "ringside: "+field+": ") {
			t.Errorf("%s: got %d operations, the warnings %q and the error %v; want one warning", field, len(ops), warnings, err)
		}
		if ops, _, err := Patch(pod, Pod, reject); len(ops) > 0 || err == nil || !strings.Contains(err.Error(), field+": ") {
			t.Errorf("%s: got the error %v, want a rejection", field, err)
		}
		pod.Annotations = nil // only the namespace requests the sidecar
		ops, warnings, err = Patch(pod, Namespace, reject)
		if err != nil || len(ops) > 0 || len(warnings) != 1 || !strings.Contains(warnings[0], "not injected: "+field) {
			t.Errorf("%s in a namespace that requests the sidecar: got %d operations, %q, %v", field, len(ops), warnings, err)
		}
	}
	if _, warnings, err := Patch(newPod(t, "", "shareProcessNamespace: false,"), Pod, reject); err != nil || len(warnings) > 0 {
		t.Errorf("a pod that shares nothing: got %q, %v", warnings, err)
	}
}

func TestContainersWithTheUserOfTheSidecar(t *testing.T) {
	const all, own = "securityContext: {runAsUser: 57072},", "initContainers: [{name: i, securityContext: {runAsUser: 57072}}],"
	for spec, want := range map[string]string{
		all: "container app: runs as the user 57072 of the sidecar", own: "container i: runs as the user 57072",
		all + "initContainers: [{name: i, securityContext: {runAsUser: 1}}],": "container app:", "securityContext: {runAsUser: 65532},": "",
	} {
		_, warnings, err := Patch(newPod(t, "", spec), Pod, newTemplate(t))
		if text := strings.Join(warnings, "\n"); err != nil || (want == "") != (text == "") || !strings.Contains(text, want) {
			t.Errorf("%s: got the warnings %q and the error %v, want %q", spec, text, err, want)
		}
	}
}

// The user of the template is that of the container and of the group of the socket.
func TestUserOfTheTemplate(t *testing.T) {
	template, err := ParseTemplate([]byte("{image: 'r:1', userID: 1000640000}"))
	if err != nil {
		t.Fatal(err)
	}
	pod := newPod(t, `ringside.dev/unix-socket: "true"`, "")
	ops, _, err := Patch(pod, Pod, template)
	if err != nil {
		t.Fatal(err)
	}
	pod = apply(t, pod, ops)
	security := pod.Spec.InitContainers[0].SecurityContext
	if *security.RunAsUser != 1000640000 || *security.RunAsGroup != 1000640000 ||
		!slices.Equal(pod.Spec.SecurityContext.SupplementalGroups, []int64{1000640000}) {
		t.Errorf("got %v and the groups %v", security, pod.Spec.SecurityContext.SupplementalGroups)
	}
}

// OpenShift assigns the user and the fsGroup of a pod, and rejects others.
func TestUserOfThePlatform(t *testing.T) {
	template, err := ParseTemplate([]byte("{image: 'r:1', userID: 0, certificates: {csi: {driver: csi.cert-manager.io, volumeAttributes: {}}}}"))
	if err != nil {
		t.Fatal(err)
	}
	pod := newPod(t, `ringside.dev/unix-socket: "true"`, "")
	pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: new(int64(1000640000))}
	ops, warnings, err := Patch(pod, Pod, template)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	pod = apply(t, pod, ops)
	security := pod.Spec.InitContainers[0].SecurityContext
	if security.RunAsUser != nil || security.RunAsGroup != nil || !*security.RunAsNonRoot || pod.Spec.SecurityContext != nil {
		t.Errorf("got %v and the pod's %v, want no user and no group", security, pod.Spec.SecurityContext)
	}
	for _, volume := range pod.Spec.Volumes {
		if volume.CSI != nil && len(volume.CSI.VolumeAttributes) > 0 {
			t.Errorf("got the attributes %v, want none", volume.CSI.VolumeAttributes)
		}
	}
}

// Windows is recognized by each field that chooses its nodes.
func TestWindowsPods(t *testing.T) {
	const affinity = "{affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: ["
	for _, test := range []struct {
		spec    string
		windows bool
	}{
		{"{os: {name: windows}}", true},
		{"{os: {name: linux}}", false},
		{"{nodeSelector: {kubernetes.io/os: windows}}", true},
		{"{nodeSelector: {kubernetes.io/os: linux, disk: ssd}}", false},
		{affinity + "{matchExpressions: [{key: disk, operator: Exists}, {key: kubernetes.io/os, operator: In, values: [windows]}]}]}}}}", true},
		{affinity + "{matchExpressions: [{key: kubernetes.io/os, operator: In, values: [windows, linux]}]}]}}}}", false},
		{affinity + "{matchExpressions: [{key: kubernetes.io/os, operator: NotIn, values: [windows]}]}]}}}}", false},
		{affinity + "{matchExpressions: [{key: kubernetes.io/os, operator: In, values: [windows]}]}, {matchExpressions: [{key: a, operator: Exists}]}]}}}}", false},
		{"{}", false},
	} {
		pod := newPod(t, "", "")
		if err := yaml.Unmarshal([]byte(test.spec), &pod.Spec); err != nil {
			t.Fatal(err)
		}
		_, _, err := Patch(pod, Pod, newTemplate(t))
		if rejected := errors.Is(err, errWindows); rejected != test.windows {
			t.Errorf("%s: got %v, want a rejection: %v", test.spec, err, test.windows)
		}
	}
}

func TestUDPPortsDoNotConflict(t *testing.T) {
	pod := newPod(t, "", "")
	pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 7070, Protocol: corev1.ProtocolUDP}}
	if len(mustPatch(t, pod)) == 0 {
		t.Error("not injected")
	}
}

// Node agents in a namespace that requests the sidecar must start.
func TestUnfitPodsOfANamespaceAreSkipped(t *testing.T) {
	for _, spec := range []string{"hostNetwork: true", "os: {name: windows}"} {
		pod := parsePod(t, `{metadata: {name: agent}, spec: {`+spec+`, containers: [{name: agent}]}}`)
		ops, warnings, err := Patch(pod, Namespace, newTemplate(t))
		if len(ops) > 0 || err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "not injected") {
			t.Errorf("%s: %v, %v, %v", spec, ops, warnings, err)
		}
		pod.Labels = map[string]string{injectKey: "true"}
		if _, _, err := Patch(pod, Namespace, newTemplate(t)); err == nil {
			t.Errorf("%s: a pod that requests the sidecar itself is not rejected", spec)
		}
	}
}

func TestStaticPodsAreUnchanged(t *testing.T) {
	pod := newPod(t, corev1.MirrorPodAnnotationKey+": x", "")
	if ops := mustPatch(t, pod); len(ops) > 0 {
		t.Errorf("patched: %v", ops)
	}
}

func TestWarnings(t *testing.T) {
	tests := []struct {
		name  string
		pod   string
		asker Asker
		want  string // "": none
	}{
		{"nothing of ours", `{metadata: {name: a}}`, Pod, ""},
		{"an annotation that is not known", `{metadata: {annotations: {ringside.dev/inject: "true", ringside.dev/image: x}}}`,
			Pod, "annotation ringside.dev/image: unknown; the allowed ones are ringside.dev/{inject, admin-port, "},
		{"a label that is not known", `{metadata: {labels: {ringside.dev/inject: "true", ringside.dev/config: x}}}`,
			Pod, "label ringside.dev/config: unknown"},
		{"an annotation without effect", `{metadata: {annotations: {ringside.dev/config: x}}}`,
			Pod, `ringside.dev/config: no effect without ringside.dev/inject: "true"`},
		{"declined", `{metadata: {labels: {ringside.dev/inject: "false"}, annotations: {ringside.dev/config: x}}}`, Pod, ""},
		{"little time to leave", `{metadata: {name: a}, spec: {terminationGracePeriodSeconds: 5}}`,
			Namespace, "terminationGracePeriodSeconds is 5"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, warnings, err := Patch(parsePod(t, test.pod), test.asker, newTemplate(t))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(warnings, "\n"); (test.want == "") != (got == "") || !strings.Contains(got, test.want) {
				t.Errorf("warnings %q, want %q", got, test.want)
			}
		})
	}
}

func TestResources(t *testing.T) {
	tests := []struct {
		name, annotations      string
		wantRequest, wantLimit string // memory
	}{
		{"the template's", "", "32Mi", "128Mi"},
		{"the least limit", "ringside.dev/memory-limit: 64Mi", "32Mi", "64Mi"},
		{"a big request raises the template's limit", "ringside.dev/memory-request: 1Gi", "1Gi", "1Gi"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			pod := newPod(t, test.annotations, "")
			got := apply(t, pod, mustPatch(t, pod)).Spec.InitContainers[0].Resources
			request, limit := got.Requests.Memory().String(), got.Limits.Memory().String()
			if request != test.wantRequest || limit != test.wantLimit {
				t.Errorf("request %s, limit %s; want %s, %s", request, limit, test.wantRequest, test.wantLimit)
			}
		})
	}
}

func TestSmallLimitLowersTheRequestOfTheTemplate(t *testing.T) {
	pod := newPod(t, "ringside.dev/cpu-limit: 5m", "")
	if got := apply(t, pod, mustPatch(t, pod)).Spec.InitContainers[0].Resources.Requests.Cpu().String(); got != "5m" {
		t.Errorf("got the request %s, want the limit 5m", got)
	}
}

func TestResourcesOfThePod(t *testing.T) {
	tests := []struct{ name, pod, want, wantOwn, wantError string }{
		{"none", "", "", "{requests: {cpu: 10m, memory: 32Mi}, limits: {cpu: '1', memory: 128Mi}}", ""},
		{"Burstable", "{requests: {cpu: 500m, memory: 1Gi}, limits: {memory: 2Gi}}", "{requests: {cpu: 510m, memory: 1056Mi}, limits: {memory: 2176Mi}}",
			"{requests: {cpu: 10m, memory: 32Mi}, limits: {cpu: '1', memory: 128Mi}}", ""},
		{"Guaranteed", "{requests: {cpu: '2', memory: 1Gi}, limits: {cpu: '2', memory: 1Gi}}",
			"{requests: {cpu: 2999m, memory: 1152Mi}, limits: {cpu: 2999m, memory: 1152Mi}}",
			"{requests: {cpu: 999m, memory: 128Mi}, limits: {cpu: 999m, memory: 128Mi}}", ""},
		{"a limit only", "{limits: {cpu: '1', memory: 1Gi}, requests: {cpu: 100m}}", "", "", "limits.memory without requests.memory; set both"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			pod := newPod(t, "", "")
			decode := func(text string) (r *corev1.ResourceRequirements) {
				if err := yaml.Unmarshal([]byte(text), &r); err != nil {
					t.Fatal(err)
				}
				return r
			}
			pod.Spec.Resources = decode(test.pod)
			ops, _, err := Patch(pod, Pod, newTemplate(t))
			if test.wantError != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantError) {
					t.Errorf("got the error %v, want %q", err, test.wantError)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := apply(t, pod, ops)
			if want := decode(test.want); !equality.Semantic.DeepEqual(got.Spec.Resources, want) {
				t.Errorf("the pod has %v, want %v", got.Spec.Resources, want)
			}
			if own, want := got.Spec.InitContainers[0].Resources, *decode(test.wantOwn); !equality.Semantic.DeepEqual(own, want) {
				t.Errorf("the sidecar has %v, want %v", own, want)
			}
		})
	}
}

func TestTemplateWithAMeshInEveryPod(t *testing.T) {
	template, err := ParseTemplate([]byte("{image: 'r:1', meshes: [linkerd]}"))
	if err != nil {
		t.Fatal(err)
	}
	pod := newPod(t, "", "")
	ops, _, err := Patch(pod, Pod, template)
	if err != nil {
		t.Fatal(err)
	}
	got := apply(t, pod, ops).Annotations["config.linkerd.io/skip-inbound-ports"]
	if got != "7072,7073" {
		t.Errorf("skip-inbound-ports %q", got)
	}
}

func TestTemplates(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"a tag", "image: registry:5000/ringside:1.0", ""},
		{"a digest", "image: r@sha256:0123", ""},
		{"all fields", "{image: 'r:1', imagePullPolicy: Always, config: c, secret: s, ports: {http: 8000}, " +
			"meshes: [istio], resources: {requests: {cpu: 1m}, limits: {memory: 1Gi}}}", ""},
		{"no image", "config: c", "image: want a name with a tag or a digest"},
		{"no tag", "image: registry:5000/ringside", "want a tag other than latest, or a digest"},
		{"latest", "image: ringside:latest", "want a tag other than latest, or a digest"},
		{"no digest", "image: ringside@md5:1", "want a sha256 digest"},
		{"an unknown field", "{image: 'r:1', comand: x}", `unknown field "comand"`},
		{"a mesh", "{image: 'r:1', meshes: [consul]}", `"consul" is unknown; allowed are istio and linkerd`},
		{"ports", "{image: 'r:1', ports: {http: 7071}}", "http and grpc have the same port 7071"},
		{"a privileged port", "{image: 'r:1', ports: {http: 80}}", "http port 80: want a port from 1024"},
		{"a name", "{image: 'r:1', config: A_B}", `config "A_B": want the name of an object`},
		{"root", "{image: 'r:1', userID: -1}", "userID -1: want 0, for that of the platform, to"},
		{"shared processes", "{image: 'r:1', sharedProcesses: Maybe}", `sharedProcesses "Maybe": want Warn or Reject`},
		{"a secret's name", "{image: 'r:1', secret: A_B}", `secret "A_B": want the name of an object`},
		{"resources", "{image: 'r:1', resources: {requests: {cpu: 2}, limits: {cpu: 1}}}",
			"cpu: the request 2 is above the limit 1"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := ParseTemplate([]byte(test.text))
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func FuzzPatch(f *testing.F) {
	for _, pod := range podFiles(f) {
		text, err := json.Marshal(pod)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, true)
	}
	template := newTemplate(f)
	f.Fuzz(func(t *testing.T, text []byte, byPod bool) {
		pod := new(corev1.Pod)
		if json.Unmarshal(text, pod) != nil {
			return // not a pod
		}
		asker := Namespace
		if byPod {
			asker = Pod
		}
		ops, _, err := Patch(pod, asker, template)
		if err != nil && len(ops) > 0 {
			t.Fatalf("rejected and patched: %v, %v", err, ops)
		}
		if len(ops) == 0 {
			return
		}
		patched := apply(t, pod, ops)
		own := patched.Spec.InitContainers[placeOf(patched)]
		if placeOf(patched) < afterProxies(patched) || !present(pod) && (own.Image != template.Image || own.Command != nil) {
			t.Fatalf("the sidecar is at %d, %v", placeOf(patched), own)
		}
		for _, volume := range patched.Spec.Volumes[len(pod.Spec.Volumes):] {
			if volume.HostPath != nil {
				t.Fatalf("hostPath volume: %v", volume)
			}
		}
		if again, _, err := Patch(patched, asker, template); len(again) > 0 || err != nil {
			t.Fatalf("patched again: %v, %v", again, err)
		}
	})
}

func TestEveryAnnotationIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range setters() {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("deploy/README.md does not mention %s", name)
		}
	}
}

func TestCertificatesAreMounted(t *testing.T) {
	for text, want := range map[string]func(corev1.VolumeSource) bool{
		"certificates: {secret: tls}": func(v corev1.VolumeSource) bool {
			return v.Secret != nil && v.Secret.SecretName == "tls" && *v.Secret.Optional
		},
		"certificates: {csi: {driver: csi.spiffe.io, readOnly: true}}": func(v corev1.VolumeSource) bool {
			return v.CSI != nil && v.CSI.Driver == "csi.spiffe.io" && *v.CSI.ReadOnly && v.CSI.VolumeAttributes == nil
		},
		"certificates: {csi: {driver: csi.cert-manager.io, volumeAttributes: {csi.cert-manager.io/issuer-name: i}}}": func(v corev1.VolumeSource) bool {
			return v.CSI != nil && len(v.CSI.VolumeAttributes) == 2 && v.CSI.VolumeAttributes["csi.cert-manager.io/fs-group"] != ""
		},
	} {
		template, err := ParseTemplate([]byte("image: registry.example/ringside:1\n" + text))
		if err != nil {
			t.Fatal(err)
		}
		settled, err := template.settle(&choices{})
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, v := range template.volumes(settled) {
			found = found || v.Name == tlsVolume && want(v.VolumeSource)
		}
		mounted := slices.ContainsFunc(template.mounts(settled), func(m corev1.VolumeMount) bool {
			return m.Name == tlsVolume && m.MountPath == "/run/secrets/ringside-tls" && m.ReadOnly
		})
		if !found || !mounted {
			t.Errorf("%s: got the volumes %v, mounted %v", text, template.volumes(settled), mounted)
		}
	}
	for _, text := range []string{
		"certificates: {secret: tls, csi: {driver: csi.spiffe.io}}", "certificates: {secret: A}", "certificates: {csi: {driver: csi.cert-manager.io}}",
	} {
		if _, err := ParseTemplate([]byte("image: registry.example/ringside:1\n" + text)); err == nil {
			t.Errorf("%s: got no error", text)
		}
	}
}
