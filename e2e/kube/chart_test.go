package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/ringside-cache/ringside/deploy/inject"
	"github.com/ringside-cache/ringside/sidecar/container"
)

const (
	chart = "../../deploy/chart"
	// release and home are those of the kustomize base.
	release, home = "ringside", "ringside"
)

var update = flag.Bool("update", false, "write deploy/kustomize/ringside.yaml")

func helm(t testing.TB, args ...string) (stdout []byte, err error) {
	t.Helper()
	cmd := exec.Command(tool(t, "helm"), args...)
	dir := t.TempDir()
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+dir, "HELM_CONFIG_HOME="+dir, "HELM_DATA_HOME="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if stdout, err = cmd.Output(); err != nil {
		err = errors.New(stderr.String() + string(stdout))
	}
	return stdout, err
}

// render returns the chart's objects for values in the format of --set.
func render(t testing.TB, values ...string) []*unstructured.Unstructured {
	t.Helper()
	args := []string{"template", release, chart, "--namespace", home}
	for _, value := range values {
		args = append(args, "--set", value)
	}
	text, err := helm(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, text)
}

func parse(t testing.TB, text []byte) (objects []*unstructured.Unstructured) {
	t.Helper()
	for decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096); ; {
		object := new(unstructured.Unstructured)
		if err := decoder.Decode(object); errors.Is(err, io.EOF) {
			return objects
		} else if err != nil {
			t.Fatal(err)
		}
		if object.Object != nil {
			objects = append(objects, object)
		}
	}
}

func find(t testing.TB, objects []*unstructured.Unstructured, kind, name string) *unstructured.Unstructured {
	t.Helper()
	for _, object := range objects {
		if object.GetKind() == kind && object.GetName() == name {
			return object
		}
	}
	t.Fatalf("the chart has no %s %s", kind, name)
	return nil
}

// everything enables all options of the chart.
var everything = []string{
	"sidecar.namespaces={apps,more}", "sidecar.networkPolicy.enabled=true", "sidecar.config.log.level=debug",
	"sidecar.secretName=dsn", "sidecar.volumes[0].name=etcd", "sidecar.volumes[0].secret.secretName=etcd-client",
	"sidecar.volumes[1].name=spiffe", "sidecar.volumes[1].csi.driver=csi.spiffe.io", "sidecar.volumes[1].csi.readOnly=true",
	"sidecar.volumes[2].name=vault", "sidecar.volumes[2].projected.sources[0].secret.name=vault-ca", "sidecar.meshes={istio}", "podMonitor.enabled=true", "prometheusRule.enabled=true",
	"dashboards.enabled=true", "sidecar.sharedProcesses=Reject", "sidecar.networkPolicy.metricsFrom[0].podSelector.matchLabels.app=x",
	"injector.clientCA.secretName=clients", "injector.clientCA.names={kube-apiserver}",
	"injector.networkPolicy.from[0].ipBlock.cidr=10.0.0.0/24", "injector.networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.a=b", "injector.priorityClassName=x", "injector.imagePullSecrets[0].name=y",
}

func TestHelmLint(t *testing.T) {
	for _, values := range [][]string{nil, everything, {"injector.certManager.enabled=true"}} {
		args := []string{"lint", "--strict", chart}
		for _, value := range values {
			args = append(args, "--set", value)
		}
		if out, err := helm(t, args...); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// With membership.dns, the chart creates the name in each namespace.
func TestChartCreatesTheServiceOfMembers(t *testing.T) {
	objects := render(t, "sidecar.namespaces={apps,more}", "sidecar.config.membership.dns=ringside")
	var namespaces []string
	for _, object := range objects {
		if object.GetKind() != "Service" || object.GetName() != "ringside" {
			continue
		}
		namespaces = append(namespaces, object.GetNamespace())
		spec, _, _ := unstructured.NestedMap(object.Object, "spec")
		selector, _, _ := unstructured.NestedStringMap(spec, "selector")
		if spec["clusterIP"] != "None" || spec["publishNotReadyAddresses"] != true || selector["ringside.dev/status"] != "injected" {
			t.Errorf("got the Service %v", spec)
		}
	}
	if got := strings.Join(namespaces, " "); got != "apps more" {
		t.Errorf("got the Service in %q, want apps and more", got)
	}
	for _, object := range render(t, "sidecar.namespaces={apps}", "sidecar.config.membership.dns=ringside.infra.svc") {
		if object.GetKind() == "Service" && object.GetNamespace() == "apps" {
			t.Errorf("a name elsewhere got the Service %s", object.GetName())
		}
	}
}

// With members.replicas, the sidecars of a Deployment are the members, and all others are clients.
func TestChartDeploysMembersAndClients(t *testing.T) {
	objects := render(t, "sidecar.namespaces={apps}", "sidecar.config.membership.dns=ringside", "members.replicas=5")
	roles, selectors := map[string]string{}, map[string]string{}
	for _, object := range objects {
		if object.GetNamespace() != "apps" {
			continue
		}
		switch object.GetKind() {
		case "ConfigMap":
			text, _, _ := unstructured.NestedString(object.Object, "data", "ringside.yaml")
			var config struct{ Membership struct{ Role string } }
			if err := sigsyaml.Unmarshal([]byte(text), &config); err != nil {
				t.Fatal(err)
			}
			roles[object.GetName()] = config.Membership.Role
		case "Deployment":
			replicas, _, _ := unstructured.NestedInt64(object.Object, "spec", "replicas")
			uses, _, _ := unstructured.NestedString(object.Object, "spec", "template", "metadata", "annotations", "ringside.dev/config")
			limit, _, _ := unstructured.NestedString(object.Object, "spec", "template", "metadata", "annotations", "ringside.dev/memory-limit")
			if replicas != 5 || uses != "ringside-members" || limit != "512Mi" {
				t.Errorf("got %d members with the configuration %s and %s, want 5, ringside-members, 512Mi", replicas, uses, limit)
			}
		case "Service":
			selector, _, _ := unstructured.NestedStringMap(object.Object, "spec", "selector")
			selectors[object.GetName()] = selector["app.kubernetes.io/name"]
		}
	}
	if want := map[string]string{"ringside": "client", "ringside-members": "member"}; !maps.Equal(roles, want) {
		t.Errorf("got the roles %v, want %v", roles, want)
	}
	if selectors["ringside"] != "ringside-member" {
		t.Errorf("got the Services of %v, want the members in DNS", selectors)
	}
	for _, object := range render(t, "sidecar.namespaces={apps}", "sidecar.config.membership.dns=ringside") {
		if object.GetName() == "ringside-members" {
			t.Errorf("without members.replicas there is a %s of members", object.GetKind())
		}
	}
	_, err := helm(t, "template", release, chart, "--set", "sidecar.config.membership.dns=ringside", "--set", "members.replicas=257")
	if err == nil || !strings.Contains(err.Error(), "257 is above sidecar.config.membership.max_members (256)") {
		t.Errorf("got %v, want an error for more replicas than members", err)
	}
}

func TestSchemaRejectsInvalidValues(t *testing.T) {
	tests := []struct{ value, want string }{
		{"sidecar.image.tag=latest", "tag"},
		{"sidecar.imaeg.tag=1", "imaeg"},
		{"sidecar.ports.http=80", "minimum"},
		{"sidecar.namespaces={Apps}", "pattern"},
		{"sidecar.meshes={consul}", "meshes"},
		{"sidecar.certificates.mode=maybe", "mode"},
		{"sidecar.certificates.cluster=a/b", "pattern"},
		{"injector.replicas=0", "minimum"},
		{"injector.failurePolicy=Maybe", "failurePolicy"},
		{"sidecar.resources.limits.memory=much", "pattern"},
		{"podMonitor.interval=often", "pattern"},
		{"sidecar.userID=-1", "minimum"},
		{"injector.excludedNamespaces=null", "excludedNamespaces"},
		{"revision=A_B", "revision"},
		{"sidecar.ports.http=7071", "grpc and http have the same port 7071"},
		{"sidecar.ports.redis=7072", "peer and redis have the same port 7072"},
		{fmt.Sprintf("sidecar.resources.limits.memory=%d", container.LeastMemory-1), fmt.Sprintf("want at least %dMi", container.LeastMemory>>20)},
		{"sidecar.resources.requests.cpu=2", "the cpu request 2 is above the limit 1"},
		{"sidecar.sharedProcesses=Maybe", "sharedProcesses"},
		{"injector.networkPolicy.from[0].cidr=10.0.0.0/8", "cidr"},
		{"injector.networkPolicy.from[0].ipBlock.except={10.0.0.1/32}", "cidr"},
		{"injector.clientCA.secret=x", "secret"},
		{"members.replicas=-1", "minimum"},
		{"sidecar.tenants.apps.config.memory=1GiB", "sidecar.tenants: apps is not in sidecar.namespaces"},
		{"sidecar.tenants.apps.config.memroy=1GiB", "memroy"},
		{"sidecar.tenants.apps.secret=x", "secret"},
		{"sidecar.volumes[0].name=etcd", "volumes/0"},
		{"sidecar.volumes[0].hostPath.path=/", "hostPath"},
		{"sidecar.volumes[0].name=a,sidecar.volumes[0].secret.secretName=b,sidecar.volumes[1].name=a,sidecar.volumes[1].secret.secretName=c",
			"two have the name a"},
		{"sidecar.volumes[0].name=a,sidecar.volumes[0].csi.driver=csi.cert-manager.io", "a has no csi.volumeAttributes"},
		{"members.replicas=3", "there is no sidecar.config.membership"},
		{"prometheusRule.alerts.RingsideLoadSlow.for=1m", "there is no alert RingsideLoadSlow"},
		{"prometheusRule.alerts.RingsideLoadsSlow.treshold=1", "treshold"},
	}
	for _, test := range tests {
		t.Run(test.value, func(t *testing.T) {
			_, err := helm(t, "template", release, chart, "--set", test.value)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("rejected with %v, want %s", err, test.want)
			}
		})
	}
}

func TestLeastMemoryIsAccepted(t *testing.T) {
	if _, err := helm(t, "template", release, chart, "--set", fmt.Sprintf("sidecar.resources.limits.memory=%d", container.LeastMemory)); err != nil {
		t.Error(err)
	}
}

// The injector can parse the template of the chart.
func TestTemplateOfTheInjector(t *testing.T) {
	for _, values := range [][]string{nil, everything} {
		object := find(t, render(t, values...), "ConfigMap", release+"-injector")
		text, _, _ := unstructured.NestedString(object.Object, "data", "template.yaml")
		template, err := inject.ParseTemplate([]byte(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if want := "ghcr.io/ringside-cache/ringside:0.1.0"; template.Image != want {
			t.Errorf("image %s, want %s", template.Image, want)
		}
	}
}

// A cluster is secure by default: its configuration has certificates, which sidecars accept.
func TestConfigurationHasCertificates(t *testing.T) {
	cluster := []string{"sidecar.namespaces={apps}", "sidecar.config.membership.etcd.endpoints={http://etcd:2379}"}
	const files = `"ca_file":"/run/secrets/ringside-tls/ca.crt","cert_file":"/run/secrets/ringside-tls/tls.crt",`
	for _, test := range []struct {
		values []string
		want   string // peer_tls in JSON
		volume string // a part of the template's certificates
	}{
		{nil, `{` + files + `"key_file":"/run/secrets/ringside-tls/tls.key","name":"ringside.apps"}`, "secret: ringside-tls"},
		{[]string{"sidecar.sharedRing=true"}, `{` + files + `"key_file":"/run/secrets/ringside-tls/tls.key","name":"ringside"}`, "secret: ringside-tls"},
		{
			[]string{"sidecar.certificates.mode=cert-manager"},
			`{` + files + `"cluster":"apps","key_file":"/run/secrets/ringside-tls/tls.key","trust_domain":"cluster.local"}`,
			`uri-sans: "spiffe://cluster.local/ringside/${POD_NAMESPACE}/member/${POD_NAME}.${POD_NAMESPACE}"`,
		},
		{
			[]string{"sidecar.certificates.mode=cert-manager", "sidecar.sharedRing=true"},
			`{` + files + `"cluster":"default","key_file":"/run/secrets/ringside-tls/tls.key","trust_domain":"cluster.local"}`,
			`uri-sans: "spiffe://cluster.local/ringside/default/member/${POD_NAME}.${POD_NAMESPACE}"`,
		},
		{
			[]string{"sidecar.certificates.mode=spire", "sidecar.certificates.cluster=prod"},
			`{"cluster":"prod","trust_domain":"cluster.local","workload_api":"unix:///run/secrets/ringside-tls/spire-agent.sock"}`,
			"driver: csi.spiffe.io",
		},
		{[]string{"sidecar.certificates.mode=none"}, `null`, ""},
		{[]string{"sidecar.config.peer_tls.insecure=true"}, `{"insecure":true}`, ""},
	} {
		objects := render(t, append(test.values, cluster...)...)
		text, _, _ := unstructured.NestedString(find(t, objects, "ConfigMap", "ringside").Object, "data", "ringside.yaml")
		var got struct {
			PeerTLS json.RawMessage `json:"peer_tls"`
		}
		if err := sigsyaml.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if string(got.PeerTLS) != test.want && !(test.want == "null" && got.PeerTLS == nil) {
			t.Errorf("%v: got peer_tls %s, want %s", test.values, got.PeerTLS, test.want)
		}
		injector, _, _ := unstructured.NestedString(find(t, objects, "ConfigMap", release+"-injector").Object, "data", "template.yaml")
		if _, err := inject.ParseTemplate([]byte(injector)); err != nil || !strings.Contains(injector, test.volume) {
			t.Errorf("%v: %v: got\n%s\nwant %q in it", test.values, err, injector, test.volume)
		}
	}
}

// peersOf returns the peers of each port of a NetworkPolicy.
func peersOf(t *testing.T, objects []*unstructured.Unstructured, name string) map[string]string {
	t.Helper()
	rules, _, err := unstructured.NestedSlice(find(t, objects, "NetworkPolicy", name).Object, "spec", "ingress")
	if err != nil {
		t.Fatal(err)
	}
	peers := map[string]string{}
	for _, rule := range rules {
		from, err := json.Marshal(rule.(map[string]any)["from"])
		if err != nil {
			t.Fatal(err)
		}
		for _, port := range rule.(map[string]any)["ports"].([]any) {
			peers[fmt.Sprint(port.(map[string]any)["port"])] = string(from)
		}
	}
	return peers
}

func TestNetworkPolicies(t *testing.T) {
	some := render(t, everything...)
	for _, test := range []struct {
		objects []*unstructured.Unstructured
		name    string
		want    map[string]string // :: port → peers, null: all
	}{
		{render(t), release + "-injector", map[string]string{"webhook": "null", "metrics": "null"}},
		{some, release + "-injector", map[string]string{
			"webhook": `[{"ipBlock":{"cidr":"10.0.0.0/24"}}]`, "metrics": `[{"namespaceSelector":{"matchLabels":{"a":"b"}}}]`,
		}},
		{some, "ringside", map[string]string{
			"7072": `[{"podSelector":{"matchLabels":{"ringside.dev/status":"injected"}}}]`, // of the namespace
			"7073": `[{"podSelector":{"matchLabels":{"app":"x"}}}]`,
		}},
		{render(t, append(slices.Clone(everything), "sidecar.sharedRing=true")...), "ringside", map[string]string{
			"7072": `[{"namespaceSelector":{},"podSelector":{"matchLabels":{"ringside.dev/status":"injected"}}}]`,
			"7073": `[{"podSelector":{"matchLabels":{"app":"x"}}}]`,
		}},
	} {
		if got := peersOf(t, test.objects, test.name); !maps.Equal(got, test.want) {
			t.Errorf("%s allows %v, want %v", test.name, got, test.want)
		}
	}
}

func TestClientCAOfTheChart(t *testing.T) {
	text, err := json.Marshal(find(t, render(t, everything...), "Deployment", release+"-injector"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"--client-ca=/etc/ringside-injector-clients/ca.crt"`, `"--client-name=kube-apiserver"`,
		`"mountPath":"/etc/ringside-injector-clients"`, `"secretName":"clients"`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the deployment has no %s: %s", want, text)
		}
	}
}

func TestImagesByDigest(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0", 64)
	deployment := find(t, render(t, "injector.image.digest="+digest), "Deployment", release+"-injector")
	if text, err := json.Marshal(deployment); err != nil || !strings.Contains(string(text), "ringside-injector@"+digest) {
		t.Errorf("%s, %v", text, err)
	}
}

// With certificates of cert-manager the injector publishes the authority, and reads no Secret. The authority outlives the
// certificate, and cert-manager's ca-injector does not replace what the injector publishes.
func TestInjectorWithCertManager(t *testing.T) {
	objects := render(t, "injector.certManager.enabled=true")
	issuers, certificates := map[string]string{}, map[string]string{} // :: name → what it is
	for _, object := range objects {
		switch object.GetKind() {
		case "Role", "RoleBinding", "Secret":
			t.Errorf("the chart has a %s", object.GetKind())
		case "Issuer":
			spec, _, _ := unstructured.NestedMap(object.Object, "spec")
			text, err := json.Marshal(spec)
			if err != nil {
				t.Fatal(err)
			}
			issuers[object.GetName()] = string(text)
		case "Certificate":
			ca, _, _ := unstructured.NestedBool(object.Object, "spec", "isCA")
			issuer, _, _ := unstructured.NestedString(object.Object, "spec", "issuerRef", "name")
			duration, _, _ := unstructured.NestedString(object.Object, "spec", "duration")
			certificates[object.GetName()] = fmt.Sprint(ca, " ", issuer, " ", duration)
		}
		if text, err := json.Marshal(object); err != nil || strings.Contains(string(text), "inject-ca-from") {
			t.Errorf("%s %s asks for cert-manager's ca-injector (%v)", object.GetKind(), object.GetName(), err)
		}
	}
	const name = release + "-injector"
	if want := map[string]string{name + "-self-signed": `{"selfSigned":{}}`, name: `{"ca":{"secretName":"` + name + `-ca"}}`}; !maps.Equal(issuers, want) {
		t.Errorf("got the issuers %v, want %v", issuers, want)
	}
	if want := map[string]string{name + "-ca": "true " + name + "-self-signed 87600h", name: "false " + name + " 2160h"}; !maps.Equal(certificates, want) {
		t.Errorf("got the certificates %v, want %v", certificates, want)
	}
	rules, _, err := unstructured.NestedSlice(find(t, objects, "ClusterRole", name).Object, "rules")
	if text := fmt.Sprint(rules); err != nil || text != "[map[apiGroups:[admissionregistration.k8s.io] resourceNames:[inject.ringside.dev] "+
		"resources:[mutatingwebhookconfigurations] verbs:[get update]]]" {
		t.Errorf("got the rights %s (%v), want those to one webhook configuration", text, err)
	}
	for _, object := range render(t, "injector.certManager.enabled=true", "injector.certManager.issuerRef.name=corporate") {
		if object.GetKind() == "Issuer" || object.GetName() == name+"-ca" {
			t.Errorf("beside another issuer, the chart has the %s %s", object.GetKind(), object.GetName())
		}
	}
}

// configOf returns the configuration of a namespace.
func configOf(t *testing.T, objects []*unstructured.Unstructured, namespace string) (c struct {
	Membership struct{ Etcd struct{ Prefix string } }
	PeerTLS    struct{ Name string } `json:"peer_tls"`
	Memory     string
}) {
	t.Helper()
	for _, object := range objects {
		if object.GetKind() == "ConfigMap" && object.GetNamespace() == namespace && object.GetName() == "ringside" {
			text, _, _ := unstructured.NestedString(object.Object, "data", "ringside.yaml")
			if err := sigsyaml.Unmarshal([]byte(text), &c); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
		}
	}
	return c
}

// Namespaces are one ring only if the values say so.
func TestNamespacesAreRingsOfTheirOwn(t *testing.T) {
	both := []string{"sidecar.namespaces={apps,more}", "sidecar.config.membership.etcd.endpoints={http://etcd:2379}"}
	const prefix, own, shared = "sidecar.config.membership.etcd.prefix=", "sidecar.tenants.more.config.membership.etcd.prefix=/ringside/own", "sidecar.sharedRing=true"
	for _, test := range []struct {
		values     []string
		apps, more string // prefixes; none: the sidecar's default, /ringside/NAMESPACE
		nameOfMore string
		err        string
	}{
		{nil, "", "", "ringside.more", ""},
		{[]string{own}, "", "/ringside/own", "ringside.more", ""},
		{[]string{prefix + "/x", own}, "/x", "/ringside/own", "ringside.more", ""},
		{[]string{prefix + "/ringside/${POD_NAMESPACE}"}, "/ringside/${POD_NAMESPACE}", "/ringside/${POD_NAMESPACE}", "ringside.more", ""},
		{[]string{shared}, "/ringside/default", "/ringside/default", "ringside", ""},
		{[]string{shared, prefix + "/x"}, "/x", "/x", "ringside", ""},
		{[]string{prefix + "/x"}, "", "", "", "apps and more would be one ring"},
		{[]string{prefix + "/ringside/own", own}, "", "", "", "apps and more would be one ring"},
		{[]string{"sidecar.config.membership.etcd=null", "sidecar.config.membership.dns=ring.infra.svc"}, "", "", "", "apps and more would be one ring"},
		{[]string{"sidecar.config.membership.etcd=null", "sidecar.config.membership.static={10.0.0.1:7072}"}, "", "", "", "apps and more would be one ring"},
		{[]string{"sidecar.config.membership.etcd=null", "sidecar.config.membership.dns=ringside"}, "", "", "ringside.more", ""},
	} {
		values := append(slices.Clone(both), test.values...)
		if test.err != "" {
			args := []string{"template", release, chart}
			for _, value := range values {
				args = append(args, "--set", value)
			}
			if _, err := helm(t, args...); err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("%v: got %v, want an error with %q", test.values, err, test.err)
			}
			continue
		}
		objects := render(t, values...)
		apps, more := configOf(t, objects, "apps"), configOf(t, objects, "more")
		if apps.Membership.Etcd.Prefix != test.apps || more.Membership.Etcd.Prefix != test.more || more.PeerTLS.Name != test.nameOfMore {
			t.Errorf("%v: got the prefixes %q and %q and the name %q; want %q, %q, %q", test.values,
				apps.Membership.Etcd.Prefix, more.Membership.Etcd.Prefix, more.PeerTLS.Name, test.apps, test.more, test.nameOfMore)
		}
	}
}

// A tenant changes what it names, and has the rest of the common configuration.
func TestConfigurationOfATenant(t *testing.T) {
	objects := render(t, "sidecar.namespaces={apps,more}", "sidecar.config.memory=64MiB", "sidecar.config.membership.dns=ringside",
		"sidecar.tenants.more.config.memory=32MiB", "sidecar.tenants.more.config.membership.dns=ring")
	if apps, more := configOf(t, objects, "apps"), configOf(t, objects, "more"); apps.Memory != "64MiB" || more.Memory != "32MiB" || more.PeerTLS.Name != "ringside.more" {
		t.Errorf("got %+v and %+v", apps, more)
	}
	services := map[string]string{}
	for _, object := range objects {
		if object.GetKind() == "Service" {
			services[object.GetNamespace()] = object.GetName()
		}
	}
	if services["apps"] != "ringside" || services["more"] != "ring" {
		t.Errorf("got the Services %v, want that of each tenant's membership.dns", services)
	}
}

// A second release with a revision shares no object with the first one, and injects into other namespaces.
func TestSecondRelease(t *testing.T) {
	text, err := helm(t, "template", "canary", chart, "--namespace", "canary", "--set", "revision=canary")
	if err != nil {
		t.Fatal(err)
	}
	first, second := render(t), parse(t, text)
	taken := map[string]bool{}
	for _, object := range first {
		taken[object.GetKind()+"/"+object.GetName()] = !namespaced(object)
	}
	for _, object := range second {
		if key := object.GetKind() + "/" + object.GetName(); taken[key] {
			t.Errorf("both releases have the %s", key)
		}
	}
	for name, objects := range map[string][]*unstructured.Unstructured{"inject": first, "inject-canary": second} {
		webhooks, _, err := unstructured.NestedSlice(find(t, objects, "MutatingWebhookConfiguration", name+".ringside.dev").Object, "webhooks")
		if err != nil || len(webhooks) != 2 {
			t.Fatalf("%s has %d webhooks (%v), want 2", name, len(webhooks), err)
		}
		want := "map[key:ringside.dev/revision operator:DoesNotExist]"
		if name == "inject-canary" {
			want = "map[key:ringside.dev/revision operator:In values:[canary]]"
		}
		for _, webhook := range webhooks {
			if selector := fmt.Sprint(webhook.(map[string]any)["namespaceSelector"]); !strings.Contains(selector, want) {
				t.Errorf("%s selects %s, want %s", name, selector, want)
			}
		}
	}
}

func TestEachRuleAndDashboardFileBecomesAnObject(t *testing.T) {
	files, err := filepath.Glob(chart + "/*/*")
	if err != nil {
		t.Fatal(err)
	}
	objects := render(t, everything...)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
		switch filepath.Base(filepath.Dir(file)) {
		case "rules":
			object := find(t, objects, "PrometheusRule", "ringside-"+name)
			if groups, _, _ := unstructured.NestedSlice(object.Object, "spec", "groups"); len(groups) == 0 {
				t.Errorf("%s: no groups", file)
			}
		case "dashboards":
			if filepath.Ext(file) == ".json" {
				find(t, objects, "ConfigMap", "ringside-dashboard-"+name)
			}
		}
	}
}

func TestAlertsFollowTheValues(t *testing.T) {
	values := filepath.Join(t.TempDir(), "values.yaml")
	err := os.WriteFile(values, []byte(`prometheusRule:
  enabled: true
  alerts:
    RingsideLoadsSlow: {threshold: 1.5, for: 15m, severity: critical}
    RingsideReadErrors: {threshold: 0.2}
    RingsideRingsDisagree: {enabled: false}
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	text, err := helm(t, "template", release, chart, "--values", values)
	if err != nil {
		t.Fatal(err)
	}
	rules := map[string]map[string]any{}
	groups, _, _ := unstructured.NestedSlice(find(t, parse(t, text), "PrometheusRule", "ringside-alerts").Object, "spec", "groups")
	for _, group := range groups {
		for _, rule := range group.(map[string]any)["rules"].([]any) {
			rule := rule.(map[string]any)
			rules[rule["alert"].(string)] = rule
		}
	}
	slow, failed := rules["RingsideLoadsSlow"], rules["RingsideReadErrors"]
	if slow["for"] != "15m" || slow["labels"].(map[string]any)["severity"] != "critical" ||
		!strings.HasSuffix(slow["expr"].(string), ":p99_rate5m > 1.5") {
		t.Errorf("got %v, want other values", slow)
	}
	if expr := failed["expr"].(string); !strings.Contains(expr, "> 0.2\n") || !strings.Contains(expr, "> 0.1") || failed["for"] != "5m" {
		t.Errorf("got %v, want another value of the first comparison only", failed)
	}
	if _, ok := rules["RingsideRingsDisagree"]; ok || len(rules) < 20 {
		t.Errorf("%d alerts, RingsideRingsDisagree: %v", len(rules), ok)
	}
}

// The kustomize base is the chart with its default values, for users without helm.
func TestKustomizeBaseIsTheChart(t *testing.T) {
	var base strings.Builder
	base.WriteString("# Rendered from deploy/chart by a test: cd e2e/kube && go test -run Kustomize -update .\n")
	for _, object := range render(t) {
		if namespaced(object) {
			object.SetNamespace(home)
		}
		text, err := sigsyaml.Marshal(object.Object)
		if err != nil {
			t.Fatal(err)
		}
		base.WriteString("---\n" + string(text))
	}
	const file = "../../deploy/kustomize/ringside.yaml"
	if *update {
		if err := os.WriteFile(file, []byte(base.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(file); err != nil || string(have) != base.String() {
		t.Errorf("%s differs from the output of the chart (%v); run go test -run Kustomize -update", file, err)
	}
}

// The injector renders pods offline with the template of the chart's default values.
func TestDefaultTemplateIsThatOfTheChart(t *testing.T) {
	data, found, err := unstructured.NestedString(find(t, render(t), "ConfigMap", "ringside-injector").Object, "data", "template.yaml")
	if err != nil || !found {
		t.Fatal(found, err)
	}
	const file = "../../deploy/inject/default-template.yaml"
	if *update {
		if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if string(inject.DefaultTemplate) != data {
		t.Errorf("%s differs from the template of the chart; run go test -run Template -update", file)
	}
}

func namespaced(object *unstructured.Unstructured) bool {
	return !strings.HasPrefix(object.GetKind(), "Cluster") && object.GroupVersionKind().Group != "admissionregistration.k8s.io"
}
