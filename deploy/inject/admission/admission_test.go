package admission

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ringside-cache/ringside/deploy/inject"
)

func review(pod string) string {
	return `{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1", "namespace": "ns", "dryRun": true,
		"kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE", "userInfo": {"groups": ["a", "b"]},
		"object": ` + pod + `, "oldObject": null, "options": {"x": [1, -2.5e3, true, false, null, {}, []]}}}`
}

func TestReadRequest(t *testing.T) {
	q, err := Read(iotest.OneByteReader(strings.NewReader(review(`{"metadata": {"name": "a"}}`))))
	if err != nil {
		t.Fatal(err)
	}
	want := &Request{UID: "u-1", Namespace: "ns", DryRun: true, Pod: &Pod{pod: corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a"}}}}
	if !reflect.DeepEqual(q, want) {
		t.Errorf("got %+v, want %+v", q, want)
	}
}

func TestStringsAreDecoded(t *testing.T) {
	for _, text := range []string{
		`a\"\\\/\b\f\n\r\t\u0041`, `\u00e9 é \ud83d\ude00 😀`, `\ud83d`, `\ud83dx`, `\ud83d\u0041`, "\xff",
	} {
		document := []byte(`{"metadata": {"name": "` + text + `"}}`)
		var want corev1.Pod
		if err := json.Unmarshal(document, &want); err != nil {
			t.Fatal(err)
		}
		got, err := ReadPod(bytes.NewReader(document))
		if err != nil || got.Name != want.Name {
			t.Errorf("%q: got %q (%v), want %q", text, got.Name, err, want.Name)
		}
	}
}

// pick returns one of the values.
func pick[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }

// rarely returns the usual value, or in one of twelve cases another one.
func rarely[T any](r *rand.Rand, usual T, others ...T) T {
	if r.IntN(12) > 0 {
		return usual
	}
	return pick(r, others...)
}

func some[T any](r *rand.Rand, most int, element func() T) (list []T) {
	for range r.IntN(most + 1) {
		list = append(list, element())
	}
	return list
}

func randomMap(r *rand.Rand) map[string]string {
	m := map[string]string{}
	for range r.IntN(4) {
		m[pick(r, "app", "team", "sidecar.istio.io/inject", "linkerd.io/inject", "istio.io/rev",
			"traffic.sidecar.istio.io/excludeInboundPorts", "config.linkerd.io/skip-outbound-ports")] = pick(r, "true", "enabled", "80,7072", "")
	}
	m["ringside.dev/inject"] = rarely(r, "true", "false", "x")
	m["ringside.dev/unix-socket"] = rarely(r, pick(r, "true", "false"), "x")
	m[rarely(r, "app", "ringside.dev/http-port", "ringside.dev/config", "ringside.dev/future", "ringside.dev/status", corev1.MirrorPodAnnotationKey)] =
		pick(r, "9090", "injected")
	return m
}

func randomContainer(r *rand.Rand) corev1.Container {
	list := func() corev1.ResourceList {
		l := corev1.ResourceList{}
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, "example.com/gpu"} {
			if r.IntN(4) > 0 {
				l[name] = resource.MustParse(pick(r, "1", "1000m", "2"))
			}
		}
		return l
	}
	c := corev1.Container{
		Name: rarely(r, pick(r, "app", "worker"), "istio-proxy", "ringside"), Image: "app:1", Env: []corev1.EnvVar{{Name: "A", Value: "b"}},
		Ports: some(r, 3, func() corev1.ContainerPort {
			return corev1.ContainerPort{
				ContainerPort: rarely(r, int32(8080), 7070, 7073), Protocol: pick(r, corev1.ProtocolTCP, corev1.ProtocolUDP, ""),
			}
		}),
		VolumeMounts: some(r, 3, func() corev1.VolumeMount {
			return corev1.VolumeMount{
				Name: rarely(r, "data", "ringside-run", "ringside-secret"), MountPath: rarely(r, "/data", "/run/ringside", "/run/ringside/"),
				ReadOnly: r.IntN(2) == 0,
			}
		}),
	}
	if r.IntN(3) == 0 {
		c.LivenessProbe = randomProbe(r)
	}
	if r.IntN(2) == 0 {
		c.Resources = corev1.ResourceRequirements{Limits: list(), Requests: list()}
	}
	if r.IntN(2) == 0 {
		c.SecurityContext = &corev1.SecurityContext{RunAsUser: new(pick(r, int64(0), 1000, 57072))}
	}
	return c
}

func randomProbe(r *rand.Rand) *corev1.Probe {
	port := pick(r, intstr.FromInt32(7070), intstr.FromInt32(8080), intstr.FromString("http"))
	host := rarely(r, "", "other.example")
	return &corev1.Probe{ProbeHandler: pick(r,
		corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: port, Host: host}},
		corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: port, Host: host}},
		corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: pick(r, int32(7071), 8080)}},
		corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}})}
}

func randomAffinity(r *rand.Rand) *corev1.Affinity {
	requirement := func() corev1.NodeSelectorRequirement {
		return corev1.NodeSelectorRequirement{
			Key: pick(r, "disk", corev1.LabelOSStable), Operator: pick(r, corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn),
			Values: some(r, 3, func() string { return rarely(r, "windows", "linux") }),
		}
	}
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: some(r, 2, func() corev1.NodeSelectorTerm {
			return corev1.NodeSelectorTerm{MatchExpressions: some(r, 2, requirement)}
		})},
	}}
}

func randomPod(r *rand.Rand) *corev1.Pod {
	container := func() corev1.Container { return randomContainer(r) }
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: randomMap(r), Annotations: randomMap(r), Finalizers: []string{"x"}},
		Spec: corev1.PodSpec{
			InitContainers: some(r, 2, container), Containers: some(r, 3, container),
			Volumes: some(r, 3, func() corev1.Volume {
				return corev1.Volume{Name: rarely(r, "data", "ringside-x"), VolumeSource: corev1.VolumeSource{
					EmptyDir: &corev1.EmptyDirVolumeSource{},
				}}
			}),
			HostNetwork: r.IntN(20) == 0, HostPID: r.IntN(10) == 0,
		},
	}
	if r.IntN(3) == 0 {
		pod.Spec.ShareProcessNamespace = new(r.IntN(2) == 0)
	}
	if r.IntN(3) == 0 {
		pod.Spec.TerminationGracePeriodSeconds = new(int64(r.IntN(30)))
	}
	if r.IntN(10) == 0 {
		pod.Spec.OS = &corev1.PodOS{Name: pick(r, corev1.Windows, corev1.Linux)}
	}
	if r.IntN(10) == 0 {
		pod.Spec.NodeSelector = map[string]string{"disk": "ssd", corev1.LabelOSStable: pick(r, "windows", "linux")}
	}
	if r.IntN(4) == 0 {
		pod.Spec.Resources = new(randomContainer(r).Resources)
	}
	if r.IntN(5) == 0 {
		pod.Spec.Affinity = randomAffinity(r)
	}
	if r.IntN(2) == 0 {
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{
			SupplementalGroups: some(r, 2, func() int64 { return pick(r, int64(5), 57072) }),
		}
		if r.IntN(3) == 0 {
			pod.Spec.SecurityContext.FSGroup = new(int64(5))
		}
	}
	return pod
}

// A field that Patch uses and Read does not keep would change the result.
func TestPatchesAreThoseOfTheWholePod(t *testing.T) {
	const n, seed = 5_000, 1
	r := rand.New(rand.NewPCG(seed, 0))
	patched := 0
	for i := range n {
		template, err := inject.ParseTemplate([]byte("{image: 'r:1', sharedProcesses: " + pick(r, "Warn", "Reject") + "}"))
		if err != nil {
			t.Fatal(err)
		}
		pod := randomPod(r)
		document, err := json.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		read, err := ReadPod(bytes.NewReader(document))
		if err != nil {
			t.Fatalf("pod %d: %v\n%s", i, err, document)
		}
		asker := pick(r, inject.Pod, inject.Namespace)
		got, want := outcome(t, read, asker, template), outcome(t, pod, asker, template)
		if got != want {
			t.Fatalf("pod %d of seed %d: %s\ngot\n%s\nwant\n%s", i, seed, document, got, want)
		}
		if strings.HasPrefix(want, "[{") {
			patched++
		}
	}
	t.Logf("%d pods, of which %d are patched", n, patched)
	if patched < n/10 {
		t.Errorf("invalid run: only %d of %d pods are patched", patched, n)
	}
}

func outcome(t *testing.T, pod *corev1.Pod, asker inject.Asker, template *inject.Template) string {
	t.Helper()
	ops, warnings, err := inject.Patch(pod, asker, template)
	text, failed := json.Marshal(ops)
	if failed != nil {
		t.Fatal(failed)
	}
	return fmt.Sprintf("%s\n%q\n%v", text, warnings, err)
}

// many returns n elements as JSON.
func many(n int, element string) string {
	return strings.TrimSuffix(strings.Repeat(element+",", n), ",")
}

func keys(n int, prefix string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"%s%d": "v",`, prefix, i)
	}
	return strings.TrimSuffix(b.String(), ",")
}

// A review of any content costs little memory, and is refused with a reason.
func TestHostilePodsAreRejected(t *testing.T) {
	const huge = 3 << 20
	tests := []struct {
		name, pod, want string
		rejected        bool // with a response, not as invalid
	}{
		{"100 000 containers", `{"spec": {"containers": [` + many(100_000, "{}") + `]}}`, "more than 128 containers", true},
		{"containers of both kinds", `{"spec": {"initContainers": [` + many(100, "{}") + `], "containers": [` + many(100, "{}") + `]}}`,
			"more than 128 containers", true},
		{"the same list again", `{"spec": {` + many(1000, `"containers": [{}]`) + `}}`, "more than 128 containers", true},
		{"terms", `{"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [` +
			many(100_000, "{}") + `]}}}}}`, "more than 256 terms of node affinity", true},
		{"volumes", `{"spec": {"volumes": [` + many(100_000, "{}") + `]}}`, "more than 1024 volumes", true},
		{"reserved volumes", `{"spec": {"volumes": [` + many(1000, `{"name": "ringside-x"}`) + `]}}`, "more than 256", true},
		{"mounts", `{"spec": {"containers": [{"volumeMounts": [` + many(100_000, "{}") + `]}]}}`, "more than 4096 volume mounts", true},
		{"mounts of reserved volumes", `{"spec": {"containers": [{"volumeMounts": [` + many(1000, `{"name": "ringside-x"}`) + `]}]}}`,
			"more than 256", true},
		{"ports", `{"spec": {"containers": [{"ports": [` + many(100_000, "{}") + `]}]}}`, "more than 512 ports", true},
		{"groups", `{"spec": {"securityContext": {"supplementalGroups": [` + many(100_000, "1") + `]}}}`, "more than 64", true},
		{"annotations", `{"metadata": {"annotations": {` + keys(100_000, "a") + `}}}`, "more than 2048 labels and annotations", true},
		{"annotations of ours", `{"metadata": {"annotations": {` + keys(1000, "ringside.dev/") + `}}}`, "more than 256", true},
		{"a long annotation of ours", `{"metadata": {"annotations": {"ringside.dev/config": "` + strings.Repeat("x", huge) + `"}}}`,
			"annotation ringside.dev/config has more than 2048 bytes", true},
		{"a long name", `{"spec": {"containers": [{"name": "` + strings.Repeat("x", huge) + `"}]}}`,
			"the name of a container has more than 63 bytes", true},
		{"a huge quantity", `{"spec": {"containers": [{"resources": {"limits": {"cpu": "1e999999999"}, "requests": {"cpu": 1}}}]}}`,
			`resources: "1e999999999" is no quantity`, true},
		{"a huge quantity as a number", `{"spec": {"containers": [{"resources": {"limits": {"cpu": 1e999999999}}}]}}`,
			`resources: "1e999999999" is no quantity`, true},
		{"deep lists", `{"status": ` + strings.Repeat("[", huge), "more than 64 levels of nesting", false},
		{"deep objects", `{"status": ` + strings.Repeat(`{"a":`, huge/5), "more than 64 levels of nesting", false},
		{"a long number", `{"status": ` + strings.Repeat("1", huge), "a number has more than 64 characters", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			body := review(test.pod)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			q, err := Read(strings.NewReader(body))
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got the error %v, want %s", err, test.want)
			}
			var rejected *Rejection
			if errors.As(err, &rejected) != test.rejected || test.rejected && q.UID != "u-1" {
				t.Errorf("got the request %+v and the error %T, want a rejection: %v", q, err, test.rejected)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 512<<10 {
				t.Errorf("allocated %d bytes, want at most 512 KiB", n)
			}
		})
	}
}

// What is not used is skipped, whatever its size.
func TestUnusedFieldsCostNothing(t *testing.T) {
	const huge = 3 << 20
	for name, pod := range map[string]string{
		"a long annotation":  `{"metadata": {"annotations": {"a": "` + strings.Repeat("x", huge) + `"}}}`,
		"a long key":         `{"metadata": {"labels": {"` + strings.Repeat("x", huge) + `": "v"}}}`,
		"environment":        `{"spec": {"containers": [{"env": [` + many(100_000, `{"name": "A"}`) + `]}]}}`,
		"the field managers": `{"metadata": {"managedFields": [` + many(100_000, `{"a": {"b": 1}}`) + `]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			body := review(pod)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Read(strings.NewReader(body))
			runtime.ReadMemStats(&after)
			if err != nil {
				t.Error(err)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20/8 {
				t.Errorf("allocated %d bytes, want at most 8 MiB", n)
			}
		})
	}
}

func TestInvalidJSONIsRejected(t *testing.T) {
	for _, pod := range []string{
		"", "{", `{"a"}`, `{"a":}`, `{"a": 1,}`, `{,}`, "[1 2]", "{1: 2}", "[1,]", "nul", "tru", "01", "1.", "+1", "-", `"\x"`, `"\u12"`, "\"\n\"", "[}", "<html>",
		`{"metadata": []}`, `{"metadata": {"name": 1}}`, `{"spec": {"containers": {}}}`, `{"spec": {"containers": [1]}}`,
		`{"spec": {"hostPID": "true"}}`, `{"spec": {"terminationGracePeriodSeconds": 1.5}}`, `{"spec": {"containers": [{"ports": [{"containerPort": 9999999999}]}]}}`,
	} {
		if _, err := ReadPod(strings.NewReader(pod)); err == nil {
			t.Errorf("%q: accepted", pod)
		}
	}
}

func TestOtherReviewsAreRejected(t *testing.T) {
	for body, want := range map[string]string{
		"{}":                "it has no request",
		`{"request": null}`: "it is for a ; this webhook handles pods only",
		`{"request": {"kind": {"kind": "Service"}, "object": {}}}`:                     "it is for a Service",
		`{"request": {"kind": {"group": "x", "kind": "Pod"}, "object": {}}}`:           "pods only",
		`{"request": {"kind": {"kind": "Pod"}}}`:                                       "it has no object",
		`{"request": {"kind": {"kind": "Pod"}, "object": null}}`:                       "it has no object",
		`{"request": {"uid": "` + strings.Repeat("x", 1000) + `"}}`:                    "the uid of the review has more than 128 bytes",
		`{"request": {"kind": {"kind": "Pod"}, "object": {"metadata": {"name": "a"}}}`: io.ErrUnexpectedEOF.Error(),
	} {
		if _, err := Read(strings.NewReader(body)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got the error %v, want %s", body, err, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 0))
	for range 20 {
		document, err := json.Marshal(randomPod(r))
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(review(string(document))))
	}
	f.Add([]byte(review(`{"spec": {"containers": [` + many(200, "{}") + `]}}`)))
	f.Add([]byte(review(`{"spec": {"containers": [{"resources": {"limits": {"cpu": 1e9}}, "securityContext": null}]}}`)))
	f.Fuzz(func(t *testing.T, body []byte) {
		q, err := Read(bytes.NewReader(body))
		if err != nil {
			return
		}
		var document any
		if err := json.NewDecoder(bytes.NewReader(body)).Decode(&document); err != nil {
			t.Fatalf("accepted what is no JSON: %v\n%q", err, body)
		}
		if n := len(q.Pod.containers) + len(q.Pod.init); n > maxContainers {
			t.Fatalf("%d containers", n)
		}
	})
}
