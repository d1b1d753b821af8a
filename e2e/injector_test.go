package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/attack"
	"github.com/ringside-cache/ringside/e2e/rig"
)

// injectorMemory is the memory limit of the injector's container in the chart.
const injectorMemory = 96 << 20

// limitedInjector is ringside-injector in a control group like that of its container.
type limitedInjector struct {
	*rig.Cgroup
	webhook, metrics string // addresses
	cmd              *exec.Cmd
	exited           chan struct{}
}

func startInjector(t *testing.T) *limitedInjector {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "ringside-injector")
	build := exec.Command("go", "build", "-trimpath", "-o", program, "../deploy/cmd/ringside-injector")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the injector: %v\n%s", err, out)
	}
	template := filepath.Join(dir, "template.yaml")
	if err := os.WriteFile(template, []byte("image: registry.example/ringside:1.2.3"), 0o600); err != nil {
		t.Fatal(err)
	}
	writeServingCertificate(t, dir)
	i := &limitedInjector{
		Cgroup: rig.NewCgroup(t, injectorMemory), webhook: rig.FreeAddress(t), metrics: rig.FreeAddress(t), exited: make(chan struct{}),
	}
	i.cmd = i.Command(program, "serve", "--template", template, "--cert-dir", dir, "--listen", i.webhook, "--metrics", i.metrics, "--drain", "0s")
	log := new(bytes.Buffer)
	i.cmd.Stderr, i.cmd.SysProcAttr = log, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := i.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(i.exited)
		_ = i.cmd.Wait() // the state is in i.cmd.ProcessState
	}()
	t.Cleanup(func() {
		_ = i.cmd.Process.Kill() // fails if it has exited
		<-i.exited
		if t.Failed() {
			text := log.String()
			t.Logf("the end of the injector's log:\n%s", text[max(0, len(text)-4<<10):])
		}
	})
	rig.Eventually(t, 2*time.Minute, i.ready)
	return i
}

// writeServingCertificate writes the certificate of net/http/httptest, which is valid for example.com.
func writeServingCertificate(t *testing.T, dir string) {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	defer server.Close()
	pair := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, "tls.key": {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// ready makes a request as the kubelet does, on a new connection.
func (i *limitedInjector) ready() error {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + i.metrics + "/readyz")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// attacker is the address that hostile clients connect from: that of another pod than the API server's.
var attacker = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 66)}

func clientTLS() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

func fromAttacker(address string) attack.Dial {
	return func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{LocalAddr: attacker}).DialContext(ctx, "tcp", address)
	}
}

func fromAttackerTLS(address string) attack.Dial {
	return func(ctx context.Context) (net.Conn, error) {
		dialer := tls.Dialer{NetDialer: &net.Dialer{LocalAddr: attacker}, Config: clientTLS()}
		return dialer.DialContext(ctx, "tcp", address)
	}
}

// admissionReview returns a review of a pod.
func admissionReview(pod string) string {
	return `{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1", "namespace": "ns",
		"kind": {"version": "v1", "kind": "Pod"}, "object": ` + pod + `}}`
}

// send sends a review as the API server does.
func send(ctx context.Context, client *http.Client, address, path string, body io.Reader) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+path, body)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", response.Status, text)
	}
	return string(text), err
}

// sendAgain sends a small review, on a busy machine again: there the deadlines of the injector can be too short for a
// handshake. Controllers also create a pod again.
func sendAgain(ctx context.Context, client *http.Client, address, path string) (text string, err error) {
	err = untilAnswered(func() error {
		text, err = send(ctx, client, address, path, strings.NewReader(admissionReview("{}")))
		return err
	})
	return text, err
}

// untilAnswered asks up to three times, while the injector closes the connection before it answers.
func untilAnswered(ask func() error) (err error) {
	for range 3 {
		if err = ask(); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			break
		}
	}
	return err
}

// reviews sends the same review over and over, on n connections at once.
func reviews(n int, pod string) func(ctx context.Context, i *limitedInjector) {
	return func(ctx context.Context, i *limitedInjector) {
		attack.Flood(n, "", attack.Post("/inject/namespace", admissionReview(pod)))(ctx, fromAttackerTLS(i.webhook))
	}
}

// largestReview is the beginning of a review with as many containers as are accepted, with all that is kept of them.
func largestReview() string {
	name := strings.Repeat("x", 63)
	container := `{"name": "` + name + `", "securityContext": {"runAsUser": 1}, "ports": [{"containerPort": 1}, {"containerPort": 2},
		{"containerPort": 3}], "volumeMounts": [{"name": "ringside-x"}]},`
	return strings.TrimSuffix(admissionReview(`{"spec": {"containers": [`+strings.Repeat(container, 128)), "}}")
}

// mutate returns a review with a few changes: other bytes, a missing end, pieces that are repeated, up to 2 MiB of them.
func mutate(r *rand.Rand, text []byte) []byte {
	text = bytes.Clone(text)
	for range 1 + r.IntN(4) {
		from := r.IntN(len(text))
		to := from + r.IntN(min(64, len(text)-from)+1)
		switch r.IntN(5) {
		case 0:
			text[from] = "{}[]\",:0\\e\x00"[r.IntN(11)]
		case 1:
			text = append(text[:from:from], text[to:]...)
		case 2:
			text = slices.Concat(text[:to], bytes.Repeat(text[from:to], 1+r.IntN(20)), text[to:])
		case 3:
			text = slices.Concat(text[:to], bytes.Repeat(text[from:to], 1+r.IntN(1<<21)/(1+to-from)), text[to:])
		case 4:
			text = slices.Concat(text[:from], bytes.Repeat([]byte("{\"a\":["), r.IntN(10_000)), text[from:])
		}
		text = append(text[:min(len(text), 3<<20):min(len(text), 3<<20)], ' ')
	}
	return text
}

// sendFuzzedReviews sends mutated reviews. Each gets a response, which is no failure of the server.
func sendFuzzedReviews(t *testing.T, i *limitedInjector, client *http.Client) {
	const n, seed = 500, 1
	r := rand.New(rand.NewPCG(seed, 0))
	valid := []byte(admissionReview(`{"metadata": {"name": "a", "labels": {"app": "a", "ringside.dev/inject": "true"}, "annotations": {
		"ringside.dev/unix-socket": "true", "ringside.dev/cpu-limit": "1e3", "ringside.dev/redis-port": "7080"}}, "spec": {
		"volumes": [{"name": "v", "emptyDir": {}}], "securityContext": {"supplementalGroups": [1]}, "hostPID": false,
		"initContainers": [{"name": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}]}],
		"containers": [{"name": "app", "resources": {"limits": {"cpu": "1", "memory": 1e9}}, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}}`))
	codes := map[string]int{}
	for k := range n {
		text := mutate(r, valid)
		var response *http.Response
		err := untilAnswered(func() (err error) {
			response, err = client.Post("https://"+i.webhook+"/inject/namespace", "application/json", bytes.NewReader(text))
			return err
		})
		if err != nil {
			t.Fatalf("review %d of seed %d: %v\n%.500q", k, seed, err, text)
		}
		response.Body.Close()
		if response.StatusCode >= http.StatusInternalServerError {
			t.Errorf("review %d of seed %d: got %s\n%.500q", k, seed, response.Status, text)
		}
		codes[response.Status]++
	}
	t.Logf("%d reviews: %v", n, codes)
	if kills := i.OOMKills(); kills != 0 {
		t.Fatalf("the kernel has killed %d processes", kills)
	}
}

func on(dial func(i *limitedInjector) attack.Dial, a attack.Attack) func(ctx context.Context, i *limitedInjector) {
	return func(ctx context.Context, i *limitedInjector) { a(ctx, dial(i)) }
}

// The injector answers the API server and the kubelet during each attack, and the kernel never kills it.
func TestInjectorWithstandsHostileReviews(t *testing.T) {
	rig.NeedServers(t)
	i := startInjector(t)
	plain := func(i *limitedInjector) attack.Dial { return fromAttacker(i.webhook) }
	encrypted := func(i *limitedInjector) attack.Dial { return fromAttackerTLS(i.webhook) }
	metrics := func(i *limitedInjector) attack.Dial { return fromAttacker(i.metrics) }
	const path = "/inject/namespace"
	sockets := `{"metadata": {"annotations": {"ringside.dev/unix-socket": "true"}}, "spec": {"containers": [` + strings.Repeat("{},", 127) + `{}]}}`
	attacks := map[string]func(ctx context.Context, i *limitedInjector){
		"100 000 containers":           reviews(50, `{"spec": {"containers": [`+strings.Repeat("{},", 99_999)+`{}]}}`),
		"deep nesting":                 reviews(8, `{"spec": `+strings.Repeat("[", 1<<20)),
		"huge annotations":             reviews(8, `{"metadata": {"annotations": {"a": "`+strings.Repeat("x", 3<<20)+`"}}}`),
		"huge annotations of ours":     reviews(8, `{"metadata": {"annotations": {"ringside.dev/config": "`+strings.Repeat("x", 3<<20)+`"}}}`),
		"many annotations":             reviews(8, `{"metadata": {"annotations": {`+strings.Repeat(`"ringside.dev/x": "",`, 100_000)+`"a": ""}}}`),
		"huge quantities":              reviews(8, `{"metadata": {"annotations": {"ringside.dev/cpu-limit": "1e999999999"}}}`),
		"large patches, not read":      reviews(8, sockets),
		"announced bodies":             on(encrypted, attack.Announce(300, "POST", path, "x")),
		"slow bodies":                  on(encrypted, attack.SlowBodies(100, "POST", path)),
		"chunks without end":           on(encrypted, attack.SlowChunks(100, "POST", path)),
		"slow headers":                 on(encrypted, attack.SlowHeaders(300, path)),
		"headers without end":          on(encrypted, attack.HugeHeaders(50, path)),
		"slow reviews":                 on(encrypted, attack.Send(500, strings.Replace(attack.Post(path, largestReview()), "Content-Length: ", "Content-Length: 1", 1))),
		"idle connections":             on(plain, attack.Idle(1000)),
		"half handshakes":              on(plain, attack.HalfHandshakes(1000)),
		"slow handshakes":              on(plain, attack.SlowHandshakes(300)),
		"huge handshakes":              on(plain, attack.HugeHandshakes(100)),
		"idle connections for metrics": on(metrics, attack.Idle(1000)),
		"slow requests for metrics":    on(metrics, attack.SlowHeaders(300, "/metrics")),
		"bodies for metrics":           on(metrics, attack.SlowBodies(100, "GET", "/metrics")),
		"pipelined metrics, not read":  on(metrics, attack.Pipelined(100, attack.Get("/metrics"))),
	}
	apiServer := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: clientTLS()}}
	defer apiServer.CloseIdleConnections()
	restarted := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: clientTLS()}}
	for name, run := range attacks {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			var attackers sync.WaitGroup
			attackers.Go(func() { run(ctx, i) })
			defer attackers.Wait()
			defer stop()
			for n := range 5 {
				time.Sleep(50 * time.Millisecond) // so that the attack takes its course
				for kind, client := range map[string]*http.Client{"the API server": apiServer, "a new client": restarted} {
					text, err := sendAgain(t.Context(), client, i.webhook, path)
					if err != nil || !strings.Contains(text, `"patchType":"JSONPatch"`) {
						t.Fatalf("review %d of %s: got %.200s, %v; want a patch", n, kind, text, err)
					}
				}
				if err := i.ready(); err != nil {
					t.Fatalf("readiness %d: %v", n, err)
				}
			}
			if kills := i.OOMKills(); kills != 0 {
				t.Fatalf("the kernel has killed %d processes", kills)
			}
		})
	}
	t.Run("fuzzed reviews", func(t *testing.T) { sendFuzzedReviews(t, i, restarted) })
	t.Logf("peak: %.1f of %d MiB", float64(i.Peak())/(1<<20), injectorMemory>>20)
	select {
	case <-i.exited:
		t.Fatalf("the injector has exited: %v", i.cmd.ProcessState)
	default:
	}
}
