package kube

import (
	"database/sql"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/ringside-cache/ringside/e2e/rig"
)

const installationPage = "deploy/INSTALL.md"

var shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// commands returns the commands of the page's blocks marked sh. A command may have several lines.
func commands(t *testing.T) (list []string) {
	t.Helper()
	text, err := os.ReadFile("../../" + installationPage)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range shellBlock.FindAllStringSubmatch(string(text), -1) {
		command, end := "", ""
		for line := range strings.Lines(block[1]) {
			command += line
			if _, word, here := strings.Cut(line, "<<"); here {
				end = strings.Trim(strings.TrimSpace(word), "'")
			}
			if strings.TrimSpace(line) == end {
				end = ""
			}
			if end == "" && !strings.HasSuffix(line, "\\\n") {
				list, command = append(list, command), ""
			}
		}
	}
	return list
}

// testInstallationPage follows the page on an empty API server. Its node does what needs a container engine or a kubelet.
func (c *cluster) testInstallationPage(t *testing.T) {
	n := newNode(t, c)
	// The page's installation is the second attempt: the first one fails in the middle.
	out, err := n.shell("helm install ringside deploy/chart --namespace ringside --create-namespace --set sidecar.namespaces={demo} " +
		"--set injector.priorityClassName=Not_A_Name")
	if err == nil {
		t.Fatalf("an installation with a wrong name succeeded:\n%s", out)
	}
	answers := 0
	for _, command := range commands(t) {
		n.accounts()
		switch {
		case strings.HasPrefix(command, "docker "):
			n.docker(command)
			continue
		case strings.Contains(command, "rollout status"):
			n.reconcile()
		case strings.HasPrefix(command, "kubectl exec "):
			answers++
			if out := n.exec(command); !strings.Contains(out, `"cnf_id":"CNF-001"`) {
				t.Fatalf("%sprints %s", command, out)
			}
			continue
		}
		out, err := n.shell(command)
		for err != nil && strings.Contains(out, "within the past second") { // kubectl, of a second restart: a reader is slower
			time.Sleep(time.Second)
			out, err = n.shell(command)
		}
		if err != nil {
			t.Fatalf("%s%v\n%s", command, err, out)
		}
		if strings.HasPrefix(command, "helm uninstall") {
			n.checkRemains()
		}
	}
	if answers != 1 || n.images != 2 {
		t.Errorf("the page has %d calls of the sidecar and %d images, want 1 and 2", answers, n.images)
	}
}

// node stands in for the controllers and a kubelet, which the API server alone does not have.
type node struct {
	t       *testing.T
	c       *cluster
	dir     string // where commands run: links to the folders of the repository
	env     []string
	images  int
	done    map[string]bool   // workloads that run, by namespace/name
	hosts   map[string]string // :: name and port in the cluster → address on this machine
	sandbox *sandbox          // of the application's pod
}

func newNode(t *testing.T, c *cluster) *node {
	t.Helper()
	n := &node{t: t, c: c, dir: t.TempDir(), done: map[string]bool{}, hosts: map[string]string{}}
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(repository, "deploy"), filepath.Join(n.dir, "deploy")); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	n.env = append(os.Environ(), "KUBECONFIG="+c.kubeconfigOf(t, home, c.config.BearerToken), "HOME="+home,
		"PATH="+filepath.Dir(tool(t, "kubectl"))+":"+os.Getenv("PATH"))
	tool(t, "helm")
	return n
}

func (n *node) shell(command string) (string, error) {
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", command)
	cmd.Dir, cmd.Env = n.dir, n.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// docker checks that the Dockerfile has the target of docker build. rootfs makes the content of the image.
func (n *node) docker(command string) {
	if words := strings.Fields(command); words[1] == "build" {
		image(n.t, words[slices.Index(words, "--target")+1])
		n.images++
	}
}

// accounts creates the default account of each namespace, as a controller would.
func (n *node) accounts() {
	namespaces, err := n.c.client.CoreV1().Namespaces().List(n.t.Context(), metav1.ListOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	for _, namespace := range namespaces.Items {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
		_, err := n.c.client.CoreV1().ServiceAccounts(namespace.Name).Create(n.t.Context(), account, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			n.t.Fatal(err)
		}
	}
}

// reconcile starts the workloads that do not run yet, and reports all as available.
func (n *node) reconcile() {
	ctx, apps := n.t.Context(), n.c.client.AppsV1()
	sets, err := apps.StatefulSets("").List(ctx, metav1.ListOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	for _, set := range sets.Items {
		if n.starts(set.Namespace, set.Name) {
			n.start(set.Namespace, set.Name, set.Spec.Template)
		}
		set.Status = appsv1.StatefulSetStatus{
			ObservedGeneration: set.Generation, Replicas: *set.Spec.Replicas, ReadyReplicas: *set.Spec.Replicas,
			AvailableReplicas: *set.Spec.Replicas, UpdatedReplicas: *set.Spec.Replicas,
		}
		if _, err := apps.StatefulSets(set.Namespace).UpdateStatus(ctx, &set, metav1.UpdateOptions{}); err != nil {
			n.t.Fatal(err)
		}
	}
	deployments, err := apps.Deployments("").List(ctx, metav1.ListOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	for _, d := range deployments.Items {
		if n.starts(d.Namespace, d.Name) {
			n.start(d.Namespace, d.Name, d.Spec.Template)
		}
		d.Status = appsv1.DeploymentStatus{
			ObservedGeneration: d.Generation, Replicas: *d.Spec.Replicas, ReadyReplicas: *d.Spec.Replicas,
			AvailableReplicas: *d.Spec.Replicas, UpdatedReplicas: *d.Spec.Replicas,
		}
		if _, err := apps.Deployments(d.Namespace).UpdateStatus(ctx, &d, metav1.UpdateOptions{}); err != nil {
			n.t.Fatal(err)
		}
	}
}

func (n *node) starts(namespace, name string) bool {
	key := namespace + "/" + name
	running := n.done[key]
	n.done[key] = true
	return !running
}

func (n *node) start(namespace, name string, template corev1.PodTemplateSpec) {
	switch name {
	case "ringside-injector":
		n.injector(template.Spec)
	case "ringside-etcd":
		n.etcd(template.Spec.Containers[0])
	case "postgres":
		n.postgres(namespace, template.Spec)
	case "app":
		n.application(namespace, name, template)
	default:
		n.t.Fatalf("this test does not know how to start %s/%s", namespace, name)
	}
}

// injector starts the injector with the arguments of its Deployment and the rights of its account, behind its Service.
func (n *node) injector(pod corev1.PodSpec) {
	t, ctx, address := n.t, n.t.Context(), outerAddress(n.t)
	config, err := n.c.client.CoreV1().ConfigMaps(home).Get(ctx, release+"-injector", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dir, metrics, port := t.TempDir(), rig.FreeAddress(t), rig.FreePort(t)
	template := filepath.Join(dir, "template.yaml")
	writeFile(t, template, config.Data["template.yaml"])
	args := append(slices.Clone(pod.Containers[0].Args), "--namespace="+home, "--metrics="+metrics, "--template="+template,
		"--listen="+net.JoinHostPort(address, strconv.Itoa(port)), "--kubeconfig="+n.c.kubeconfig(t, dir, pod.ServiceAccountName), "--drain=0s")
	run(t, "ringside-injector", exec.Command(build(t, "./deploy/cmd/ringside-injector"), args...))
	rig.Eventually(t, startTimeout, respondsOK(ctx, "http://"+metrics+"/readyz"))
	service, err := n.c.client.CoreV1().Services(home).Get(ctx, release+"-injector", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	named := service.Spec.Ports[0].Name
	_, err = n.c.client.DiscoveryV1().EndpointSlices(home).Create(ctx, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: service.Name, Labels: map[string]string{discoveryv1.LabelServiceName: service.Name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &named, Port: new(int32(port)), Protocol: new(corev1.ProtocolTCP)}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// outerAddress returns an address of this machine: an endpoint of a Service must not be a loopback address.
func outerAddress(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && network.IP.To4() != nil && network.IP.IsGlobalUnicast() {
			return network.IP.String()
		}
	}
	t.Fatal("this machine has no IPv4 address beside loopback, which a Service needs")
	return ""
}

// etcd starts etcd with the command of the container, at free addresses.
func (n *node) etcd(container corev1.Container) {
	t := n.t
	client, peer := rig.FreeAddress(t), rig.FreeAddress(t)
	words := strings.NewReplacer("0.0.0.0:2379", client, "=/data", "="+t.TempDir()).Replace(strings.Join(container.Command[1:], "\n"))
	args := append(strings.Split(words, "\n"), "--listen-peer-urls=http://"+peer, "--initial-advertise-peer-urls=http://"+peer,
		"--initial-cluster=etcd=http://"+peer)
	run(t, "etcd", exec.Command(tool(t, container.Command[0]), args...))
	rig.Eventually(t, startTimeout, respondsOK(t.Context(), "http://"+client+container.ReadinessProbe.HTTPGet.Path))
	n.hosts["ringside-etcd."+home+":2379"] = client
}

// postgres starts PostgreSQL and runs the files of its ConfigMap, as the entry point of its image does.
func (n *node) postgres(namespace string, pod corev1.PodSpec) {
	t, dsn := n.t, rig.Postgres(n.t)
	schema, err := n.c.client.CoreV1().ConfigMaps(namespace).Get(t.Context(), pod.Volumes[0].ConfigMap.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, name := range []string{"postgres.sql", "seed.sql"} {
		if _, err := db.Exec(schema.Data[name]); err != nil || schema.Data[name] == "" {
			t.Fatalf("%s: %v", name, err)
		}
	}
	n.hosts["postgres:5432"] = host(t, dsn)
}

// application creates the pod of a Deployment and starts its sidecar.
func (n *node) application(namespace, name string, template corev1.PodTemplateSpec) {
	t := n.t
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.GenerateName = name + "-"
	var err error
	rig.Eventually(t, startTimeout, func() error { // the API server learns of the endpoint in the background
		var created *corev1.Pod
		if created, err = n.c.client.CoreV1().Pods(namespace).Create(t.Context(), pod.DeepCopy(), metav1.CreateOptions{}); err == nil {
			pod = created
		}
		return err
	})
	if !injected(pod) {
		t.Fatalf("the pod of %s has no sidecar", name)
	}
	rig.Eventually(t, startTimeout, func() error { // the injector writes the certificate in the background
		secret, err := n.c.client.CoreV1().Secrets(namespace).Get(t.Context(), "ringside-tls", metav1.GetOptions{})
		if err == nil && len(secret.Data) == 0 {
			err = errors.New("the Secret ringside-tls is empty")
		}
		return err
	})
	entry, _ := image(t, "ringside")
	n.sandbox = n.c.sandbox(t, pod, rootfs(t, "./sidecar/cmd/ringside"), entry)
	text := "127.0.0.1\tlocalhost\n"
	for inside, outside := range n.hosts {
		name, port, _ := net.SplitHostPort(inside)
		text += "127.0.0.2\t" + name + "\n"
		n.sandbox.relayTo(t, "127.0.0.2:"+port, outside)
	}
	if err := os.WriteFile(n.sandbox.hosts, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	sidecar := pod.Spec.InitContainers[0]
	n.sandbox.run(t, sidecar)
	for _, probe := range []*corev1.Probe{sidecar.StartupProbe, sidecar.ReadinessProbe} {
		rig.Eventually(t, time.Minute, func() error { return n.sandbox.probe(t.Context(), probe) })
	}
}

// exec runs the command of kubectl exec in the network of the pod.
func (n *node) exec(command string) string {
	_, inner, ok := strings.Cut(command, " -- ")
	if !ok {
		n.t.Fatalf("want -- in %s", command)
	}
	out, err := exec.Command("ip", append([]string{"netns", "exec", n.sandbox.network}, strings.Fields(inner)...)...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s%v\n%s", command, err, out)
	}
	return string(out)
}

// checkRemains checks that helm has left all that injected pods mount, and nothing else that is not in the page.
func (n *node) checkRemains() {
	t, ctx, core := n.t, n.t.Context(), n.c.client.CoreV1()
	pods, err := core.Pods("demo").List(ctx, metav1.ListOptions{LabelSelector: "ringside.dev/status=injected"})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("%d injected pods, want 1 (%v)", len(pods.Items), err)
	}
	for _, volume := range pods.Items[0].Spec.Volumes {
		var err error
		switch {
		case volume.ConfigMap != nil:
			_, err = core.ConfigMaps("demo").Get(ctx, volume.ConfigMap.Name, metav1.GetOptions{})
		case volume.Secret != nil:
			_, err = core.Secrets("demo").Get(ctx, volume.Secret.SecretName, metav1.GetOptions{})
		}
		if err != nil {
			t.Errorf("an injected pod mounts the volume %s, which is gone: %v", volume.Name, err)
		}
	}
	ours := metav1.ListOptions{LabelSelector: labels.Set{"app.kubernetes.io/part-of": "ringside"}.String()}
	webhooks, err := n.c.client.AdmissionregistrationV1().MutatingWebhookConfigurations().List(ctx, ours)
	if err != nil || len(webhooks.Items) > 0 {
		t.Errorf("%d webhooks remain (%v)", len(webhooks.Items), err)
	}
	secrets, err := core.Secrets("").List(ctx, ours)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, secret := range secrets.Items {
		left = append(left, secret.Namespace+"/"+secret.Name)
	}
	if want := []string{"demo/ringside-tls", home + "/ringside-injector-members"}; !slices.Equal(left, want) {
		t.Errorf("the Secrets %v remain, want %v", left, want)
	}
}

// The page names only values that the chart has.
func TestInstallationPageNamesExistingValues(t *testing.T) {
	text, err := os.ReadFile("../../" + installationPage)
	if err != nil {
		t.Fatal(err)
	}
	values, err := os.ReadFile(chart + "/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(?:sidecar|injector|etcd|podMonitor|prometheusRule|dashboards)((?:\\.[a-zA-Z]+)+)`").FindAllStringSubmatch(string(text), -1)
	if len(named) < 8 {
		t.Errorf("the page names %d values, want at least 8", len(named))
	}
	for _, name := range named {
		last := name[1][strings.LastIndex(name[1], ".")+1:]
		if !regexp.MustCompile(`[\s{]` + last + `:`).Match(values) {
			t.Errorf("%s is no value of the chart", name[0])
		}
	}
	if n := len(commands(t)); n < 15 {
		t.Errorf("the page has %d commands, want at least 15", n)
	}
}
