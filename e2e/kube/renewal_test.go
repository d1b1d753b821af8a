package kube

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// issuer is an authority of cert-manager.
type issuer struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// sign makes a key, and a certificate that ca signs; it signs itself if ca is nil.
func sign(t *testing.T, template *x509.Certificate, ca *issuer) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		t.Fatal(err)
	}
	template.NotBefore, template.NotAfter, template.BasicConstraintsValid = time.Now().Add(-time.Hour), time.Now().Add(90*24*time.Hour), true
	by := ca
	if ca == nil {
		by = &issuer{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.certificate, &key.PublicKey, by.key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{certificate, key}
}

// newIssuer has the same name as every other one, as a renewed authority has.
func newIssuer(t *testing.T) *issuer {
	return sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "ringside injector"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign}, nil)
}

// secret returns the content of a Secret that cert-manager has renewed.
func (ca *issuer) secret(t *testing.T) map[string][]byte {
	t.Helper()
	leaf := sign(t, &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca)
	key, err := x509.MarshalPKCS8PrivateKey(leaf.key)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.certificate.Raw}),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		"ca.crt":  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.certificate.Raw}),
	}
}

// mountSecret writes the files of a Secret all at once, as the kubelet does: through a link to another directory.
func mountSecret(t *testing.T, dir string, data map[string][]byte) {
	t.Helper()
	version, err := os.MkdirTemp(dir, "..version")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range data {
		writeFile(t, filepath.Join(version, name), string(text))
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Symlink(version, filepath.Join(dir, "..new")), os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data"))); err != nil {
		t.Fatal(err)
	}
}

// service forwards connections to the replicas in turn, as a Service does.
func service(t *testing.T, replicas ...string) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for n := 0; ; n++ {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			replica, err := net.Dial("tcp", replicas[n%len(replicas)])
			if err != nil {
				client.Close()
				continue
			}
			for _, to := range [][2]net.Conn{{client, replica}, {replica, client}} {
				go func() {
					_, _ = io.Copy(to[0], to[1]) // until one side closes
					to[0].Close()
				}()
			}
		}
	}()
	return listener.Addr().String()
}

// created counts pods, and connections as those of an API server that has just started.
type created struct {
	pods, connections, failed atomic.Int64
	mu                        sync.Mutex
	first                     error // guarded by mu
}

func (n *created) add(counter *atomic.Int64, err error) {
	counter.Add(1)
	if err == nil {
		return
	}
	n.failed.Add(1)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.first == nil {
		n.first = err
	}
}

// createPods creates pods, as dry runs, and connects to the injectors until ctx is done.
func (c *cluster) createPods(ctx context.Context, t *testing.T, namespace, webhook, address string, n *created) (wait func()) {
	pod := new(corev1.Pod)
	if err := yaml.UnmarshalStrict([]byte(podText("renewal", requested)), pod); err != nil {
		t.Fatal(err)
	}
	var tasks sync.WaitGroup
	for range 3 {
		tasks.Go(func() {
			for ctx.Err() == nil {
				got, err := c.client.CoreV1().Pods(namespace).Create(context.WithoutCancel(ctx), pod.DeepCopy(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
				if err == nil && !injected(got) {
					err = errors.New("the pod is not injected")
				}
				n.add(&n.pods, err)
			}
		})
	}
	tasks.Go(func() {
		for ctx.Err() == nil {
			configuration, err := c.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(context.WithoutCancel(ctx), webhook, metav1.GetOptions{})
			if err == nil {
				roots := x509.NewCertPool()
				roots.AppendCertsFromPEM(configuration.Webhooks[0].ClientConfig.CABundle)
				var conn *tls.Conn
				if conn, err = tls.Dial("tcp", address, &tls.Config{RootCAs: roots}); err == nil {
					conn.Close()
				}
			}
			n.add(&n.connections, err)
			time.Sleep(20 * time.Millisecond)
		}
	})
	return tasks.Wait
}

// testRenewals renews the certificate and its authority as cert-manager does: all keys of its Secret change at once, and the files of each
// replica later, at another time. No pod is rejected. cert-manager itself is not here: its programs are modules with a replace
// directive, which the proxy of Go modules does not have.
func (c *cluster) testRenewals(t *testing.T) {
	const name, webhook = "renewal", "inject-renewal.ringside.dev"
	c.namespace(t, name, map[string]string{"ringside.dev/revision": name})
	text, err := helm(t, "template", name, chart, "--namespace", home, "--set", "revision="+name, "--set", "injector.certManager.enabled=true")
	if err != nil {
		t.Fatal(err)
	}
	objects := slices.DeleteFunc(parse(t, text), func(o *unstructured.Unstructured) bool { return o.GroupVersionKind().Group == "cert-manager.io" })
	injector := find(t, objects, "Deployment", name+"-injector")
	containers, _, _ := unstructured.NestedSlice(injector.Object, "spec", "template", "spec", "containers")
	args, _, _ := unstructured.NestedStringSlice(containers[0].(map[string]any), "args")
	template, _, _ := unstructured.NestedString(find(t, objects, "ConfigMap", name+"-injector").Object, "data", "template.yaml")

	replicas := []string{rig.FreeAddress(t), rig.FreeAddress(t)}
	address := service(t, replicas...)
	c.apply(t, localAs(t, objects, webhook, address))
	ca, program := newIssuer(t), build(t, "./deploy/cmd/ringside-injector")
	data := ca.secret(t)
	var dirs []string
	for _, replica := range replicas {
		dir, metrics := t.TempDir(), rig.FreeAddress(t)
		mountSecret(t, dir, data)
		writeFile(t, filepath.Join(dir, "template.yaml"), template)
		own := append(slices.Clone(args), "--cert-dir="+dir, "--listen="+replica, "--metrics="+metrics, "--publish-delay=2s", "--drain=0s",
			"--template="+filepath.Join(dir, "template.yaml"), "--kubeconfig="+c.kubeconfig(t, dir, name+"-injector"))
		run(t, "ringside-injector", exec.Command(program, own...))
		rig.Eventually(t, startTimeout, respondsOK(t.Context(), "http://"+metrics+"/readyz"))
		dirs = append(dirs, dir)
	}
	rig.Eventually(t, startTimeout, func() error { // until the API server knows the webhook
		pod, err := c.create(t, name, podText("first", requested))
		if err == nil && !injected(pod) {
			_ = c.client.CoreV1().Pods(name).Delete(t.Context(), pod.Name, metav1.DeleteOptions{})
			err = errors.New("the pod is not injected")
		}
		return err
	})

	var n created
	ctx, stop := context.WithCancel(t.Context())
	wait := c.createPods(ctx, t, name, webhook, address, &n)
	renewals := []bool{false, false, true, false, true, false} // whether the authority is new, too
	for _, authority := range renewals {
		if authority {
			ca = newIssuer(t)
		}
		data = ca.secret(t)
		for _, dir := range dirs {
			mountSecret(t, dir, data)
			time.Sleep(500 * time.Millisecond) // the kubelets differ
		}
	}
	for _, replica := range replicas { // the last renewal is in use
		rig.Eventually(t, startTimeout, func() error {
			conn, err := tls.Dial("tcp", replica, &tls.Config{InsecureSkipVerify: true})
			if err != nil {
				return err
			}
			defer conn.Close()
			served := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: conn.ConnectionState().PeerCertificates[0].Raw})
			if !bytes.Equal(served, data["tls.crt"]) {
				return fmt.Errorf("%s serves an older certificate", replica)
			}
			return nil
		})
	}
	stop()
	wait()
	t.Logf("%d renewals, 2 of them with a new authority: %d pods and %d connections, %d failed", len(renewals), n.pods.Load(), n.connections.Load(), n.failed.Load())
	if n.failed.Load() > 0 || n.pods.Load() < 20 || n.connections.Load() < 20 {
		t.Errorf("%d of %d pods and connections failed, the first with %v", n.failed.Load(), n.pods.Load()+n.connections.Load(), n.first)
	}
	configuration, err := c.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), webhook, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(configuration.Webhooks[1].ClientConfig.CABundle), "BEGIN"); got != 3 {
		t.Errorf("the bundle has %d authorities, want 3", got)
	}
}
