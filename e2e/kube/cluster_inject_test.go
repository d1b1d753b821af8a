package kube

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/yaml"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// injector is ringside-injector as the chart deploys it, except for its addresses: there is no proxy for Services here.
type injector struct {
	*server
	t        *testing.T // ends the injector, whichever subtest restarts it
	cmd      []string
	address  string // of the webhook
	metrics  string // URL
	template string // file
}

// apply applies objects on the server side, as `helm install` does.
func (c *cluster) apply(t *testing.T, objects []*unstructured.Unstructured) {
	t.Helper()
	for _, object := range objects {
		kind := object.GroupVersionKind()
		mapping, err := c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
		if err != nil {
			t.Fatal(err)
		}
		resource := c.dynamic.Resource(mapping.Resource)
		options := metav1.ApplyOptions{FieldManager: "helm", Force: true}
		if mapping.Scope.Name() == "root" {
			_, err = resource.Apply(t.Context(), object.GetName(), object, options)
		} else {
			if object.GetNamespace() == "" {
				object.SetNamespace(home)
			}
			_, err = resource.Namespace(object.GetNamespace()).Apply(t.Context(), object.GetName(), object, options)
		}
		if err != nil {
			t.Fatalf("apply %s %s: %v", object.GetKind(), object.GetName(), err)
		}
	}
	if text := c.warned.take(); len(text) > 0 {
		t.Errorf("the API server returned warnings about the chart: %q", text)
	}
}

// local sets the address of the webhooks in their configuration, because there is no proxy for Services here.
func local(t *testing.T, objects []*unstructured.Unstructured, address string) []*unstructured.Unstructured {
	t.Helper()
	return localAs(t, objects, "inject.ringside.dev", address)
}

// localAs is local for the webhooks of a release with a revision.
func localAs(t *testing.T, objects []*unstructured.Unstructured, name, address string) []*unstructured.Unstructured {
	t.Helper()
	configuration := find(t, objects, "MutatingWebhookConfiguration", name)
	webhooks, _, err := unstructured.NestedSlice(configuration.Object, "webhooks")
	if err != nil {
		t.Fatal(err)
	}
	for _, webhook := range webhooks {
		path, _, _ := unstructured.NestedString(webhook.(map[string]any), "clientConfig", "service", "path")
		webhook.(map[string]any)["clientConfig"] = map[string]any{"url": "https://" + address + path}
	}
	if err := unstructured.SetNestedSlice(configuration.Object, webhooks, "webhooks"); err != nil {
		t.Fatal(err)
	}
	return objects
}

// install applies the chart and starts its injector with exactly the rights of its service account.
func (c *cluster) install(t *testing.T, values ...string) *injector {
	t.Helper()
	i := &injector{t: t, address: rig.FreeAddress(t)}
	metrics := rig.FreeAddress(t)
	i.metrics = "http://" + metrics
	c.apply(t, local(t, render(t, values...), i.address))

	deployment, err := c.client.AppsV1().Deployments(home).Get(t.Context(), release+"-injector", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config, err := c.client.CoreV1().ConfigMaps(home).Get(t.Context(), release+"-injector", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	i.template = filepath.Join(dir, "template.yaml")
	writeFile(t, i.template, config.Data["template.yaml"])
	pod := deployment.Spec.Template.Spec
	i.cmd = append([]string{build(t, "./deploy/cmd/ringside-injector")}, pod.Containers[0].Args...)
	i.cmd = append(i.cmd, "--namespace="+home, "--listen="+i.address, "--metrics="+metrics, "--host=127.0.0.1",
		"--template="+i.template, "--kubeconfig="+c.kubeconfig(t, dir, pod.ServiceAccountName), "--drain=0s")
	i.start()
	return i
}

func (i *injector) start() {
	i.t.Helper()
	i.server = run(i.t, "ringside-injector", exec.Command(i.cmd[0], i.cmd[1:]...))
	rig.Eventually(i.t, startTimeout, respondsOK(i.t.Context(), i.metrics+"/readyz"))
}

// kubeconfig writes a kubeconfig with a token of a service account.
func (c *cluster) kubeconfig(t *testing.T, dir, account string) string {
	t.Helper()
	token, err := c.client.CoreV1().ServiceAccounts(home).CreateToken(t.Context(), account,
		&authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return c.kubeconfigOf(t, dir, token.Status.Token)
}

func (c *cluster) kubeconfigOf(t *testing.T, dir, token string) string {
	t.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{Server: c.config.Host, CertificateAuthority: c.config.CAFile}
	config.AuthInfos["test"] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	config.CurrentContext = "test"
	path := filepath.Join(dir, "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// create creates a pod and returns the one that the API server stored.
func (c *cluster) create(t *testing.T, namespace, text string) (*corev1.Pod, error) {
	t.Helper()
	pod := new(corev1.Pod)
	if err := yaml.UnmarshalStrict([]byte(text), pod); err != nil {
		t.Fatal(err)
	}
	return c.client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
}

// restricted is a pod spec that the restricted Pod Security Standard allows.
const restricted = `{securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}},
	%s containers: [{name: app, image: "app:1",
	securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]}`

func podText(name, meta string) string {
	return "{metadata: {name: " + name + ", " + meta + "}, spec: " + fmt.Sprintf(restricted, "") + "}"
}

const requested = `annotations: {ringside.dev/inject: "true"}`

func injected(pod *corev1.Pod) bool {
	return len(pod.Spec.InitContainers) > 0 && pod.Spec.InitContainers[0].Name == "ringside"
}

func TestInACluster(t *testing.T) {
	c := startCluster(t)
	t.Run("the installation page leads to an answer", func(t *testing.T) { c.testInstallationPage(t) })
	c.namespace(t, home, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	c.namespace(t, "apps", map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	c.namespace(t, "asking", map[string]string{"ringside.dev/inject": "true"})
	c.namespace(t, "more", nil)
	c.namespace(t, "refusing", map[string]string{"ringside.dev/inject": "false"})
	c.namespace(t, "canary", map[string]string{"ringside.dev/revision": "canary"})
	t.Run("helm installs, upgrades and removes it", func(t *testing.T) { c.testHelm(t) })
	i := c.install(t, "sidecar.namespaces={apps,more}", "sidecar.networkPolicy.enabled=true")

	t.Run("pods are injected on request", func(t *testing.T) { c.testRequests(t) })
	t.Run("resources of the whole pod", func(t *testing.T) { c.testPodResources(t) })
	t.Run("the container is as it was rendered", func(t *testing.T) { c.testContainer(t, i) })
	t.Run("the container passes CNTI's essential checks", func(t *testing.T) { c.testEssentials(t) })
	t.Run("the sidecar's volumes are its own", func(t *testing.T) { c.testVolumes(t) })
	t.Run("only the API server may send reviews", func(t *testing.T) { c.testClientCertificate(t, i) })
	t.Run("rejections reach the user", func(t *testing.T) { c.testRejections(t) })
	t.Run("warnings reach the user", func(t *testing.T) { c.testWarnings(t) })
	t.Run("warnings are events", func(t *testing.T) { c.testEvents(t) })
	t.Run("status lists pods that are out of date", func(t *testing.T) { c.testStatus(t, i) })
	t.Run("a dry run changes nothing", func(t *testing.T) { c.testDryRun(t) })
	t.Run("an upgrade keeps the certificate", func(t *testing.T) { c.testUpgrade(t, i) })
	t.Run("sidecars share a certificate", func(t *testing.T) { c.testMembersCertificate(t) })
	t.Run("renewals reject no pod", func(t *testing.T) { c.testRenewals(t) })
	t.Run("a tenant has its own volumes and ring", func(t *testing.T) { c.testTenant(t) })
	t.Run("a lost certificate is replaced", func(t *testing.T) { c.testLostCertificate(t, i) })
	t.Run("the injector has no other rights", func(t *testing.T) { c.testRights(t) })
	t.Run("without the injector, only pods that request it are rejected", func(t *testing.T) { c.testInjectorAway(t, i) })
	t.Run("prometheus-operator accepts the monitors", func(t *testing.T) { c.testMonitors(t) })
	t.Run("the injector's image runs", func(t *testing.T) { c.testInjectorImage(t) })
	t.Run("the container runs", func(t *testing.T) { c.testContainerRuns(t) })
}

func (c *cluster) testHelm(t *testing.T) {
	kubeconfig := c.kubeconfigOf(t, t.TempDir(), c.config.BearerToken)
	for _, step := range []struct {
		args     []string
		replicas []int32 // of the Deployments after the step
	}{
		{[]string{"install", release, chart, "--set", "sidecar.namespaces={apps}"}, []int32{2}},
		{[]string{"upgrade", release, chart, "--set", "injector.replicas=3"}, []int32{3}},
		{[]string{"rollback", release}, []int32{2}},
		{[]string{"uninstall", release}, nil},
	} {
		if out, err := helm(t, append(step.args, "--namespace", home, "--kubeconfig", kubeconfig)...); err != nil {
			t.Fatalf("helm %s: %v\n%s", step.args[0], err, out)
		}
		deployments, err := c.client.AppsV1().Deployments(home).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var replicas []int32
		for _, deployment := range deployments.Items {
			replicas = append(replicas, *deployment.Spec.Replicas)
		}
		if !slices.Equal(replicas, step.replicas) {
			t.Errorf("after helm %s the deployments have %v replicas, want %v", step.args[0], replicas, step.replicas)
		}
	}
	left, err := c.client.AdmissionregistrationV1().MutatingWebhookConfigurations().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(left.Items) > 0 {
		t.Errorf("left behind: %v, %v", left.Items, err)
	}
}

func (c *cluster) testRequests(t *testing.T) {
	tests := []struct {
		name, namespace, meta string
		want                  bool
	}{
		{"annotation", "apps", requested, true},
		{"label", "apps", `labels: {ringside.dev/inject: "true"}`, true},
		{"unmarked", "apps", `labels: {app: a}`, false},
		{"no-metadata", "apps", ``, false},
		{"declines", "apps", `labels: {ringside.dev/inject: "false"}, ` + requested, false},
		{"namespace", "asking", ``, true},
		{"namespace-declined", "asking", `annotations: {ringside.dev/inject: "false"}`, false},
		{"both", "asking", requested, true},
		{"excluded", "kube-system", requested, false},
		{"namespace-refuses", "refusing", requested, false},
		{"canary", "canary", requested, false}, // belongs to a release with this revision
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	accounts := c.client.CoreV1().ServiceAccounts("kube-system")
	if _, err := accounts.Create(t.Context(), account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			pod, err := c.create(t, test.namespace, podText("requests-"+test.name, test.meta))
			if err != nil {
				t.Fatal(err)
			}
			if injected(pod) != test.want {
				t.Errorf("injected: %v, want %v", injected(pod), test.want)
			}
		})
	}
}

// The API server rejects a pod whose containers request more than the pod, and keeps what the webhook adds to it.
func (c *cluster) testPodResources(t *testing.T) {
	text := func(name, resources string) string {
		return "{metadata: {name: " + name + ", " + requested + "}, spec: " + fmt.Sprintf(restricted, "resources: "+resources+",") + "}"
	}
	pod, err := c.create(t, "apps", text("pod-resources", "{requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: '1', memory: 256Mi}}"))
	if err != nil {
		t.Fatal(err)
	}
	want := corev1.ResourceRequirements{
		Requests: corev1.ResourceList{"cpu": resource.MustParse("110m"), "memory": resource.MustParse("96Mi")},
		Limits:   corev1.ResourceList{"cpu": resource.MustParse("2"), "memory": resource.MustParse("384Mi")},
	}
	if !injected(pod) || !equality.Semantic.DeepEqual(pod.Spec.Resources, &want) {
		t.Errorf("injected: %v, with %v; want %v", injected(pod), pod.Spec.Resources, want)
	}
	_, err = c.create(t, "apps", text("half-pod-resources", "{limits: {memory: 256Mi}}"))
	if err == nil || !strings.Contains(err.Error(), "spec.resources: limits.memory without requests.memory; set both") {
		t.Errorf("got the error %v, want the remedy", err)
	}
}

// The API server's defaults and other admission plugins do not change the output of `render`, and mount no token.
func (c *cluster) testContainer(t *testing.T, i *injector) {
	document := podText("container", `annotations: {ringside.dev/inject: "true", ringside.dev/unix-socket: "true"}`)
	pod, err := c.create(t, "apps", document)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(pod.Spec.InitContainers[0])
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(i.cmd[0], "render", "--template", i.template)
	cmd.Stdin = strings.NewReader("{apiVersion: v1, kind: Pod, " + strings.TrimPrefix(document, "{"))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	rendered := new(corev1.Pod)
	if err := yaml.Unmarshal(out, rendered); err != nil {
		t.Fatal(err)
	}
	server, offline := pod.Spec.InitContainers[0], rendered.Spec.InitContainers[0]
	for _, probe := range []*corev1.Probe{offline.StartupProbe, offline.LivenessProbe, offline.ReadinessProbe} {
		probe.SuccessThreshold = 1 // the API server's default
	}
	offline.TerminationMessagePath = corev1.TerminationMessagePathDefault
	if want, err := json.Marshal(offline); err != nil || string(text) != string(want) {
		t.Errorf("the API server has\n%s\nrender shows\n%s", text, want)
	}
	token := func(m corev1.VolumeMount) bool { return strings.HasPrefix(m.Name, "kube-api-access") }
	if slices.ContainsFunc(server.VolumeMounts, token) {
		t.Error("the sidecar has a service-account token")
	}
	if !slices.ContainsFunc(pod.Spec.Containers[0].VolumeMounts, token) {
		t.Error("invalid run: the application has no token either")
	}
}

func (c *cluster) testRejections(t *testing.T) {
	tests := []struct{ name, meta, spec, want string }{
		{"value", `annotations: {ringside.dev/inject: "yes"}`, "", `want "true" or "false"`},
		{"memory", `annotations: {ringside.dev/inject: "true", ringside.dev/memory-limit: much}`, "",
			"want a quantity above 0"},
		{"port", requested, `initContainers: [{name: i, image: "i:1", ports: [{containerPort: 7070}]}],`,
			"ringside.dev/http-port"},
		{"mounts", requested, `initContainers: [{name: i, image: "i:1", volumeMounts: [{name: ringside-config, mountPath: /c}]},
			{name: j, image: "i:1", volumeMounts: [{name: ringside-run, mountPath: /r}]}], `,
			`container "j" mounts the volume "ringside-run"`},
		{"containers", requested, "initContainers: [" + strings.TrimSuffix(strings.Repeat(`{name: i, image: "i:1"},`, 2000), ",") + "],",
			"the pod has more than 128 containers"},
		{"quantity", `annotations: {ringside.dev/inject: "true", ringside.dev/cpu-limit: 1e999999999}`, "", "want a quantity above 0"},
		{"container", requested, `initContainers: [{name: ringside, image: "i:1"}],`, "the name is reserved for the sidecar"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			text := "{metadata: {name: refused, " + test.meta + "}, spec: " + fmt.Sprintf(restricted, test.spec) + "}"
			_, err := c.create(t, "more", text)
			if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("rejected with %v; want %s", err, test.want)
			}
		})
	}
}

func (c *cluster) testWarnings(t *testing.T) {
	tests := []struct{ name, meta, want string }{
		{"unknown", `annotations: {ringside.dev/inject: "true", ringside.dev/image: evil}`,
			"ringside.dev/image: unknown; the allowed ones are"},
		{"no-effect", `annotations: {ringside.dev/config: other}`, `no effect without ringside.dev/inject: "true"`},
		{"none", requested, ""},
	}
	for _, field := range []string{"hostPID: true", "shareProcessNamespace: true"} {
		c.warned.take()
		name, _, _ := strings.Cut(field, ":")
		_, err := c.create(t, "more", "{metadata: {name: "+strings.ToLower(name)+", "+requested+"}, spec: {"+field+
			`, containers: [{name: app, image: "app:1"}]}}`)
		if text := strings.Join(c.warned.take(), "\n"); err != nil || !strings.Contains(text, "ringside: "+name+": ") {
			t.Errorf("%s: got the warnings %q and the error %v", field, text, err)
		}
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c.warned.take()
			pod, err := c.create(t, "apps", podText("warned-"+test.name, test.meta))
			if err != nil {
				t.Fatal(err)
			}
			text := strings.Join(c.warned.take(), "\n")
			if (test.want == "") != (text == "") || !strings.Contains(text, test.want) {
				t.Errorf("got the warnings %q, want %q", text, test.want)
			}
			if injected(pod) && strings.Contains(pod.Spec.InitContainers[0].Image, "evil") {
				t.Error("the annotation chose the image")
			}
		})
	}
}

// testVolumes adds containers to a pod that has the sidecar, as later webhooks and kubectl debug do.
func (c *cluster) testVolumes(t *testing.T) {
	const unixSocket = `annotations: {ringside.dev/inject: "true", ringside.dev/unix-socket: "true"}`
	pod, err := c.create(t, "more", podText("volumes", unixSocket))
	if err != nil {
		t.Fatal(err)
	}
	pods := c.client.CoreV1().Pods("more")
	debug := func(name string, mount corev1.VolumeMount) error {
		changed := pod.DeepCopy()
		changed.Spec.EphemeralContainers = []corev1.EphemeralContainer{{
			TargetContainerName: "ringside", EphemeralContainerCommon: corev1.EphemeralContainerCommon{
				Name: name, Image: "debug:1", VolumeMounts: []corev1.VolumeMount{mount},
			},
		}}
		_, err := pods.UpdateEphemeralContainers(t.Context(), pod.Name, changed, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	rig.Eventually(t, startTimeout, func() error { // the API server compiles a new policy in the background
		if err := debug("a", corev1.VolumeMount{Name: "ringside-config", MountPath: "/c"}); !apierrors.IsInvalid(err) {
			return fmt.Errorf("a debug container mounts the configuration: got %v, want a rejection", err)
		}
		return nil
	})
	for _, test := range []struct {
		mount corev1.VolumeMount
		want  string // "": accepted
	}{
		{corev1.VolumeMount{Name: "ringside-run", MountPath: "/r"}, "mount ringside-run with readOnly: true"},
		{corev1.VolumeMount{Name: "ringside-run", MountPath: "/r", ReadOnly: true}, ""},
	} {
		err := debug("b", test.mount)
		if (test.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("a debug container with the mount %v: got %v, want %q", test.mount, err, test.want)
		}
	}
	// The injector sees no pod that declines: it copies the sidecar itself.
	copied := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "copied", Labels: map[string]string{"ringside.dev/inject": "false"}}, Spec: pod.Spec}
	copied.Spec.Containers[0].VolumeMounts = append(copied.Spec.Containers[0].VolumeMounts,
		corev1.VolumeMount{Name: "ringside-config", MountPath: "/c"})
	_, err = pods.Create(t.Context(), copied, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "another container mounts a volume of the sidecar") {
		t.Errorf("a pod with a mount of the configuration: got %v, want a rejection", err)
	}
}

// testClientCertificate requires the certificate of the API server.
func (c *cluster) testClientCertificate(t *testing.T, i *injector) {
	open := i.cmd
	defer func() {
		i.stop()
		i.cmd = open
		i.start()
	}()
	for name, want := range map[string]bool{"kube-apiserver": true, "another": false} {
		i.stop()
		i.cmd = append(slices.Clone(open), "--client-ca="+c.clients, "--client-name="+name)
		i.start()
		pod, err := c.create(t, "apps", podText("client-"+name, requested))
		if (err == nil) != want || err == nil && !injected(pod) {
			t.Errorf("with the name %s: got %v, want success: %v", name, err, want)
		}
		conn, err := tls.Dial("tcp", i.address, &tls.Config{InsecureSkipVerify: true})
		if err == nil {
			_, err = conn.Read(make([]byte, 1)) // the server's verdict
			conn.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "certificate required") {
			t.Errorf("without a certificate: got %v, want a failed handshake", err)
		}
	}
}

func (c *cluster) testStatus(t *testing.T, i *injector) {
	pod, err := c.create(t, "apps", podText("outdated", requested))
	if err != nil {
		t.Fatal(err)
	}
	status := func() string {
		out, _ := exec.Command(i.cmd[0], "status", "--kubeconfig="+c.kubeconfigOf(t, t.TempDir(), c.config.BearerToken)).CombinedOutput()
		return string(out)
	}
	if out := status(); strings.Contains(out, "outdated") || !strings.Contains(out, "unknown; the allowed ones are") {
		t.Errorf("got\n%s\nwant the pod with a warning, and not the current one", out)
	}
	pod.Annotations["ringside.dev/template"] = "old"
	if _, err := c.client.CoreV1().Pods("apps").Update(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if out := status(); !strings.Contains(out, "template old, want") {
		t.Errorf("got\n%s\nwant the pod with another template", out)
	}
}

// Warnings are events: of its controller, of itself, or of its namespace if it has no name yet.
func (c *cluster) testEvents(t *testing.T) {
	defer c.warned.take()
	const owner = `ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: app-1, uid: 0f1e, controller: true}]`
	for typo, meta := range map[string]string{
		"controled": "generateName: app-1-, " + owner, "named": "name: named-typo", "nameless": "generateName: nameless-",
	} {
		for range 2 { // the second one repeats the warning
			text := "{metadata: {" + meta + `, annotations: {ringside.dev/inject: "true", ringside.dev/` + typo + `: x}}, spec: ` + fmt.Sprintf(restricted, "") + "}"
			if _, err := c.create(t, "more", text); err != nil && !apierrors.IsAlreadyExists(err) {
				t.Fatal(err)
			}
		}
	}
	pod := new(corev1.Pod)
	if err := yaml.Unmarshal([]byte(podText("dry-typo", `annotations: {ringside.dev/inject: "true", ringside.dev/dry: x}`)), pod); err != nil {
		t.Fatal(err)
	}
	if _, err := c.client.CoreV1().Pods("more").Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"controled": "ReplicaSet app-1 0f1e", "named": "Pod named-typo ", "nameless": "Namespace more "}
	rig.Eventually(t, startTimeout, func() error {
		events, err := c.client.EventsV1().Events("more").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			return err
		}
		got := map[string]string{}
		for _, e := range events.Items {
			for _, typo := range []string{"controled", "named", "nameless", "dry"} {
				if !strings.Contains(e.Note, "ringside.dev/"+typo+": unknown") {
					continue
				}
				if got[typo] != "" || e.Type != corev1.EventTypeWarning {
					t.Fatalf("the warning about %s is there twice, or no warning: %v", typo, e)
				}
				got[typo] = fmt.Sprintf("%s %s %s", e.Regarding.Kind, e.Regarding.Name, e.Regarding.UID)
			}
		}
		if !maps.Equal(got, want) {
			return fmt.Errorf("got the events %q, want %q", got, want)
		}
		return nil
	})
}

func (c *cluster) testDryRun(t *testing.T) {
	pod := new(corev1.Pod)
	if err := yaml.Unmarshal([]byte(podText("dry", requested)), pod); err != nil {
		t.Fatal(err)
	}
	options := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	pod, err := c.client.CoreV1().Pods("apps").Create(t.Context(), pod, options)
	if err != nil || !injected(pod) {
		t.Errorf("%v, %v", pod, err)
	}
}

// bundle returns the CA certificates of the webhooks' configuration.
func (c *cluster) bundle(t *testing.T) string {
	t.Helper()
	configuration, err := c.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(),
		"inject.ringside.dev", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return string(configuration.Webhooks[0].ClientConfig.CABundle)
}

func (c *cluster) testUpgrade(t *testing.T, i *injector) {
	before := c.bundle(t)
	c.apply(t, local(t, render(t, "injector.replicas=3"), i.address))
	if after := c.bundle(t); before == "" || after != before {
		t.Errorf("the bundle was\n%s\nand is\n%s", before, after)
	}
}

func (c *cluster) testLostCertificate(t *testing.T, i *injector) {
	before := c.bundle(t)
	_, err := c.client.CoreV1().Secrets(home).Patch(t.Context(), release+"-injector", types.MergePatchType,
		[]byte(`{"data": null}`), metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// Another replica starts, and makes a certificate. Until the first one learns of it, both certificates are trusted.
	second := &injector{t: t, metrics: "http://" + rig.FreeAddress(t)}
	second.cmd = append(slices.Clone(i.cmd), "--listen="+rig.FreeAddress(t), "--metrics="+strings.TrimPrefix(second.metrics, "http://"))
	second.start()
	if pod, err := c.create(t, "apps", podText("during-loss", requested)); err != nil || !injected(pod) || c.bundle(t) == before {
		t.Errorf("injected: %v, %v, with a new bundle: %v", err == nil && injected(pod), err, c.bundle(t) != before)
	}
	if code := i.stop(); code != 0 {
		t.Errorf("the injector exited with %d, want 0", code)
	}
	i.start()
	if c.bundle(t) == before {
		t.Error("the certificate is still the lost one")
	}
	pod, err := c.create(t, "apps", podText("after-loss", requested))
	if err != nil || !injected(pod) {
		t.Errorf("injected: %v, %v", err == nil && injected(pod), err)
	}
}

// testMembersCertificate waits for the certificate that the sidecars of two namespaces share.
func (c *cluster) testMembersCertificate(t *testing.T) {
	rig.Eventually(t, startTimeout, func() error {
		roots := x509.NewCertPool()
		for _, namespace := range []string{"apps", "more"} {
			secret, err := c.client.CoreV1().Secrets(namespace).Get(t.Context(), "ringside-tls", metav1.GetOptions{})
			if err != nil {
				return err
			}
			roots.AppendCertsFromPEM(secret.Data["ca.crt"])
			pair, err := tls.X509KeyPair(secret.Data["tls.crt"], secret.Data["tls.key"])
			if err != nil {
				return fmt.Errorf("%s: %w", namespace, err)
			}
			for name, want := range map[string]bool{"ringside": true, "ringside.apps": namespace == "apps", "ringside.more": namespace == "more"} {
				if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); (err == nil) != want {
					return fmt.Errorf("%s: as %s: got %v, want success: %v", namespace, name, err, want)
				}
			}
			if _, ok := secret.Data["ca.key"]; ok || len(secret.Data) != 3 {
				return fmt.Errorf("%s: got %d keys in the Secret, want 3", namespace, len(secret.Data))
			}
		}
		return nil
	})
	pod, err := c.create(t, "apps", podText("with-certificate", requested))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(pod.Spec.InitContainers[0].VolumeMounts, func(m corev1.VolumeMount) bool {
		return m.MountPath == "/run/secrets/ringside-tls"
	}) {
		t.Errorf("got the mounts %v, want the certificate", pod.Spec.InitContainers[0].VolumeMounts)
	}
}

// testTenant creates a pod with Secrets of its namespace. The API server accepts what is injected, and the ring of the sidecar has the
// name of the namespace.
func (c *cluster) testTenant(t *testing.T) {
	pod, err := c.create(t, "more", podText("tenant", `annotations: {ringside.dev/inject: "true", ringside.dev/secrets: "etcd=etcd-client, dsn"}`))
	if err != nil {
		t.Fatal(err)
	}
	sources := map[string]string{}
	for _, v := range pod.Spec.Volumes {
		if v.Secret != nil {
			sources[v.Name] = v.Secret.SecretName
		}
	}
	sidecar := pod.Spec.InitContainers[0]
	for _, name := range []string{"etcd", "dsn"} {
		if !slices.ContainsFunc(sidecar.VolumeMounts, func(m corev1.VolumeMount) bool {
			return m.Name == "ringside-secret-"+name && m.MountPath == "/run/secrets/"+name && m.ReadOnly
		}) {
			t.Errorf("got the mounts %v, want one of %s", sidecar.VolumeMounts, name)
		}
	}
	if sources["ringside-secret-etcd"] != "etcd-client" || sources["ringside-secret-dsn"] != "dsn" {
		t.Errorf("got the Secrets %v", sources)
	}
	if !slices.Contains(sidecar.Env, corev1.EnvVar{Name: "RINGSIDE_NODE_NAMESPACE", Value: "$(POD_NAMESPACE)"}) {
		t.Errorf("got the variables %v, want the namespace", sidecar.Env)
	}
	_, err = c.create(t, "more", podText("thief", `annotations: {ringside.dev/inject: "true", ringside.dev/secrets: "apps/dsn"}`))
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "ringside.dev/secrets") {
		t.Errorf("the Secret of another tenant: got %v, want a rejection", err)
	}
}

func (c *cluster) testRights(t *testing.T) {
	path := c.kubeconfig(t, t.TempDir(), release+"-injector")
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	own := connect(t, config)
	ctx := t.Context()
	_, err = own.client.CoreV1().Secrets(home).Get(ctx, release+"-injector", metav1.GetOptions{})
	if err != nil {
		t.Errorf("its own secret: %v", err)
	}
	for object, call := range map[string]func() error{
		"another secret": func() error {
			_, err := own.client.CoreV1().Secrets(home).Get(ctx, "x", metav1.GetOptions{})
			return err
		},
		"secrets of others": func() error {
			_, err := own.client.CoreV1().Secrets("apps").List(ctx, metav1.ListOptions{})
			return err
		},
		"a new secret": func() error {
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "x"}}
			_, err := own.client.CoreV1().Secrets(home).Create(ctx, secret, metav1.CreateOptions{})
			return err
		},
		"events of others": func() error {
			_, err := own.client.EventsV1().Events("apps").List(ctx, metav1.ListOptions{})
			return err
		},
		"pods": func() error {
			_, err := own.client.CoreV1().Pods("apps").List(ctx, metav1.ListOptions{})
			return err
		},
		"another webhook": func() error {
			return own.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(ctx, "x", metav1.DeleteOptions{})
		},
	} {
		if err := call(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v, want forbidden", object, err)
		}
	}
}

func (c *cluster) testInjectorAway(t *testing.T, i *injector) {
	i.stop()
	defer i.start()
	_, err := c.create(t, "apps", podText("away-requests", requested))
	if err == nil || !strings.Contains(err.Error(), "inject.ringside.dev") {
		t.Errorf("a pod that requests the sidecar is created without it: %v", err)
	}
	for name, meta := range map[string]string{
		"unmarked": `labels: {app: a}`, "declines": `labels: {ringside.dev/inject: "false"}`,
	} {
		if _, err := c.create(t, "apps", podText("away-"+name, meta)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	declines := podText("away-declines", `annotations: {ringside.dev/inject: "false"}`)
	if _, err := c.create(t, "asking", declines); err != nil {
		t.Error(err)
	}
}
