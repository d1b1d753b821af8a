package kube

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"

	"github.com/ringside-cache/ringside/e2e/rig"
)

const startTimeout = 3 * time.Minute // a shared build machine may be this slow

// cluster is a kube-apiserver with its own etcd, and clients with all rights.
type cluster struct {
	config  *rest.Config
	client  *kubernetes.Clientset
	dynamic *dynamic.DynamicClient
	mapper  *restmapper.DeferredDiscoveryRESTMapper
	warned  *warnings
	clients string // file with the CA of the certificate that the API server presents to webhooks
}

// tool returns the path of a program in .bin of the repository.
func tool(t testing.TB, name string) string {
	t.Helper()
	rig.NeedServers(t)
	path, err := filepath.Abs(filepath.Join("../../.bin", name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make setup", err)
	}
	return path
}

// startCluster starts a cluster that ends with the test.
func startCluster(t *testing.T) *cluster {
	t.Helper()
	dir, port := t.TempDir(), rig.FreePort(t)
	writeKey(t, filepath.Join(dir, "sa.key"))
	writeFile(t, filepath.Join(dir, "tokens.csv"), "admin-token,admin,admin,system:masters\n")
	server := exec.Command(tool(t, "kube-apiserver"),
		"--etcd-servers="+rig.Etcd(t).Endpoint(), "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port),
		"--cert-dir="+dir, "--token-auth-file="+filepath.Join(dir, "tokens.csv"), "--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+filepath.Join(dir, "sa.key"),
		"--service-account-signing-key-file="+filepath.Join(dir, "sa.key"), "--service-cluster-ip-range=10.96.0.0/16",
		"--endpoint-reconciler-type=none", "--profiling=false",
		"--admission-control-config-file="+admissionConfiguration(t, dir),
		"--enable-aggregator-routing") // reaches webhooks at the endpoints of their Services: there is no proxy for Services
	run(t, "kube-apiserver", server)
	host, ca := fmt.Sprintf("https://127.0.0.1:%d", port), filepath.Join(dir, "apiserver.crt")
	rig.Eventually(t, startTimeout, func() error {
		_, err := os.Stat(filepath.Join(dir, "apiserver.key")) // written after the whole certificate
		return err
	})
	c := connect(t, &rest.Config{
		Host: host, BearerToken: "admin-token", TLSClientConfig: rest.TLSClientConfig{CAFile: ca}, QPS: -1,
	})
	c.clients = filepath.Join(dir, "webhook-client.crt")
	rig.Eventually(t, startTimeout, func() error {
		return c.client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(t.Context()).Error()
	})
	return c
}

// admissionConfiguration makes the API server present a certificate to webhooks, as deploy/README.md explains.
func admissionConfiguration(t *testing.T, dir string) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kube-apiserver"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, keyFile := filepath.Join(dir, "webhook-client.crt"), filepath.Join(dir, "webhook-client.key")
	writeFile(t, certificate, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	writeFile(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})))
	kubeconfig, file := filepath.Join(dir, "webhook-kubeconfig"), filepath.Join(dir, "admission.yaml")
	writeFile(t, kubeconfig, fmt.Sprintf("apiVersion: v1\nkind: Config\nusers:\n- name: '*'\n  user: {client-certificate: %q, client-key: %q}\n",
		certificate, keyFile))
	writeFile(t, file, "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n"+
		"- name: MutatingAdmissionWebhook\n  configuration: {apiVersion: apiserver.config.k8s.io/v1, "+
		"kind: WebhookAdmissionConfiguration, kubeConfigFile: "+kubeconfig+"}\n")
	return file
}

func connect(t *testing.T, config *rest.Config) *cluster {
	t.Helper()
	c := &cluster{config: config, warned: &warnings{}}
	config.WarningHandler = c.warned
	var err error
	if c.client, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	if c.dynamic, err = dynamic.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	c.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(c.client.Discovery()))
	return c
}

// warnings collects the warnings that the API server adds to its responses.
type warnings struct {
	mu   sync.Mutex
	text []string // guarded by mu
}

// HandleWarningHeader implements rest.WarningHandler.
func (w *warnings) HandleWarningHeader(_ int, _ string, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, text)
}

func (w *warnings) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer func() { w.text = nil }()
	return w.text
}

// namespace creates a namespace and its default service account, which a controller would create.
func (c *cluster) namespace(t *testing.T, name string, labels map[string]string) {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	_, err := c.client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) { // of the installation page
		_, err = c.client.CoreV1().Namespaces().Update(t.Context(), namespace, metav1.UpdateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := c.client.CoreV1().ServiceAccounts(name).Create(t.Context(), account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}

// server is a process that ends with its test.
type server struct {
	cmd    *exec.Cmd
	log    *log
	exited chan struct{} // closed after the process has exited
}

func run(t testing.TB, name string, cmd *exec.Cmd) *server {
	t.Helper()
	s := &server{cmd: cmd, log: &log{}, exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = s.log, s.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		defer close(s.exited)
		_ = cmd.Wait() // the state is in cmd.ProcessState
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-s.exited
		if t.Failed() {
			t.Logf("the end of the log of %s:\n%s", name, s.log.tail())
		}
	})
	return s
}

// stop sends SIGTERM, waits, and returns the exit code.
func (s *server) stop() int {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has exited
	<-s.exited
	return s.cmd.ProcessState.ExitCode()
}

type log struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.text.Bytes()
	return string(text[max(0, len(text)-4<<10):])
}

func writeKey(t testing.TB, path string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	block := &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}
	writeFile(t, path, string(pem.EncodeToMemory(block)))
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// respondsOK returns a check that url responds with 200.
func respondsOK(ctx context.Context, url string) func() error {
	return func() error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", url, response.Status)
		}
		return nil
	}
}

// build builds a program with the flags of its image, and returns the path. go build does nothing if the program is current.
func build(t testing.TB, pkg string) string {
	t.Helper()
	rig.NeedServers(t)
	out, err := filepath.Abs(filepath.Join("../../.bin/images", filepath.Base(pkg)))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Dir, cmd.Env = "../..", append(slices.Clone(os.Environ()), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, text)
	}
	return out
}
