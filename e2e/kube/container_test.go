package kube

import (
	"database/sql"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/e2e/rig/proc"
)

// userOf has the user of each image.
var userOf = map[string]string{"ringside": "57072", "ringside-injector": "65532"}

// rootfs makes the root filesystem of a program's image with the script of the Dockerfile.
func rootfs(t testing.TB, pkg string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "rootfs")
	program, notices := build(t, pkg), filepath.Join(t.TempDir(), "notices")
	cmd := exec.Command("go", "run", "./deploy/release", "notices", program)
	cmd.Dir = "../.."
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("notices of %s: %v", pkg, err)
	}
	writeFile(t, notices, string(text))
	command(t, "../../deploy/rootfs.sh", dir, program, userOf[filepath.Base(pkg)], notices)
	return dir
}

// image returns the entry point and the user of a target of the Dockerfile.
func image(t testing.TB, target string) (entry []string, user string) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	pattern := `(?s)FROM scratch AS ` + target + `\n.*?USER (\S+)\n.*?ENTRYPOINT (\[.*?\])`
	stage := regexp.MustCompile(pattern).FindSubmatch(text)
	if stage == nil {
		t.Fatalf("the Dockerfile has no target %s", target)
	}
	if err := json.Unmarshal(stage[2], &entry); err != nil {
		t.Fatal(err)
	}
	return entry, string(stage[1])
}

func TestImagesHaveOnlyTheNeededFiles(t *testing.T) {
	for target, pkg := range map[string]string{
		"ringside": "./sidecar/cmd/ringside", "ringside-injector": "./deploy/cmd/ringside-injector",
	} {
		root := rootfs(t, pkg)
		var files []string
		var size int64
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			stat, err := entry.Info()
			if err != nil {
				return err
			}
			size += stat.Size()
			files = append(files, strings.TrimPrefix(path, root))
			if stat.Mode()&(fs.ModeSetuid|fs.ModeSetgid|0o022) != 0 {
				t.Errorf("%s has the mode %v", path, stat.Mode())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(files)
		want := []string{"/etc/group", "/etc/passwd", "/etc/ssl/certs/ca-certificates.crt", "/" + target, "/sbin/tini", "/NOTICES"}
		slices.Sort(want)
		if !slices.Equal(files, want) {
			t.Errorf("%s holds %v, want %v", target, files, want)
		}
		if _, user := image(t, target); user != userOf[target]+":"+userOf[target] {
			t.Errorf("%s runs as %s, want %s", target, user, userOf[target])
		}
		if passwd, err := os.ReadFile(root + "/etc/passwd"); err != nil || !strings.Contains(string(passwd), "x:"+userOf[target]+":") {
			t.Errorf("%s has the users %s (%v), want %s", target, passwd, err, userOf[target])
		}
		for _, program := range []string{"/" + target, "/sbin/tini"} {
			if !static(t, root+program) {
				t.Errorf("%s is not static, and the image has no libc", program)
			}
		}
		t.Logf("%s: %.1f MB", target, float64(size)/1e6)
	}
}

func static(t testing.TB, program string) bool {
	t.Helper()
	file, err := elf.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	return !slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// testInjectorImage starts the injector's image as the chart's Deployment says.
func (c *cluster) testInjectorImage(t *testing.T) {
	deployment, err := c.client.AppsV1().Deployments(home).Get(t.Context(), release+"-injector", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	spec := deployment.Spec.Template.Spec
	container := spec.Containers[0]
	container.SecurityContext.RunAsUser = spec.SecurityContext.RunAsUser
	container.SecurityContext.RunAsGroup = spec.SecurityContext.RunAsGroup
	container.Args, container.VolumeMounts = []string{"version"}, nil
	entry, _ := image(t, "ringside-injector")
	s := c.sandbox(t, &corev1.Pod{}, rootfs(t, "./deploy/cmd/ringside-injector"), entry)
	_, process := s.run(t, container)
	<-process.exited
	out := process.log.tail()
	if process.cmd.ProcessState.ExitCode() != 0 || !strings.HasPrefix(out, "ringside-injector ") {
		t.Errorf("got the output %s (%v)", out, process.cmd.ProcessState)
	}
}

// seeded starts a database with one row and returns its DSN.
func seeded(t *testing.T) string {
	t.Helper()
	dsn := rig.Postgres(t)
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const rows = `CREATE TABLE cnf_metrics (cnf_id text PRIMARY KEY, value float8);
		INSERT INTO cnf_metrics VALUES ('CNF-001', 42.5)`
	if _, err := db.Exec(rows); err != nil {
		t.Fatal(err)
	}
	return dsn
}

const sidecarConfig = `
peer_tls: {insecure: true}
membership: {etcd: {endpoints: [%q]}}
origins: {metrics-db: {driver: postgres, dsn_file: /run/secrets/ringside/dsn}}
datasets: {cnf-metrics: {origin: metrics-db, table: cnf_metrics, key: cnf_id}}
`

const runningPod = `
metadata:
  name: runs
  annotations:
    ringside.dev/inject: "true"
    ringside.dev/config: runs
    ringside.dev/secret: runs
    ringside.dev/unix-socket: "true"
spec:
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: app
    image: ringside:1
    command: [/ringside, get, cnf-metrics, CNF-001]
    securityContext:
      runAsUser: 1000
      runAsGroup: 1000
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
`

// testContainerRuns starts the containers of a pod as a kubelet would.
func (c *cluster) testContainerRuns(t *testing.T) {
	dsn, etcd := seeded(t), rig.Etcd(t).Endpoint()
	meta := metav1.ObjectMeta{Name: "runs", Namespace: "apps"}
	config := &corev1.ConfigMap{ObjectMeta: meta, Data: map[string]string{
		"ringside.yaml": fmt.Sprintf(sidecarConfig, etcd),
	}}
	secret := &corev1.Secret{ObjectMeta: meta, Data: map[string][]byte{"dsn": []byte(dsn)}}
	if _, err := c.client.CoreV1().ConfigMaps("apps").Create(t.Context(), config, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.client.CoreV1().Secrets("apps").Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod, err := c.create(t, "apps", runningPod)
	if err != nil {
		t.Fatal(err)
	}
	entry, _ := image(t, "ringside")
	s := c.sandbox(t, pod, rootfs(t, "./sidecar/cmd/ringside"), entry)
	s.relay(t, host(t, dsn))
	s.relay(t, host(t, etcd))

	sidecar := pod.Spec.InitContainers[0]
	began := time.Now()
	_, process := s.run(t, sidecar)
	timeout := time.Duration(sidecar.StartupProbe.PeriodSeconds*sidecar.StartupProbe.FailureThreshold) * time.Second
	rig.Eventually(t, timeout, func() error { return s.probe(t.Context(), sidecar.StartupProbe) })
	t.Logf("started after %v", time.Since(began).Round(time.Millisecond))
	for _, probe := range []*corev1.Probe{sidecar.LivenessProbe, sidecar.ReadinessProbe} {
		if err := s.probe(t.Context(), probe); err != nil {
			t.Error(err)
		}
	}
	pid := onlyChild(t, onlyChild(t, process.cmd.Process.Pid)) // runc → tini → ringside
	t.Run("confined", func(t *testing.T) { checkConfined(t, pid) })
	t.Run("a member", func(t *testing.T) { checkMember(t, process) })
	t.Run("limited", func(t *testing.T) { checkLimited(t, process, sidecar, pid) })
	t.Run("the application reads", func(t *testing.T) { checkRead(t, s) })
	t.Run("a read over the Unix socket", func(t *testing.T) { checkSocket(t, s) })
	t.Run("init reaps orphans", func(t *testing.T) { checkReaps(t, onlyChild(t, process.cmd.Process.Pid)) })
	if code := process.stop(); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
}

func host(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

func onlyChild(t *testing.T, pid int) int {
	t.Helper()
	running, _ := proc.Children(pid)
	if len(running) != 1 {
		t.Fatalf("process %d has the children %v, want one", pid, running)
	}
	return running[0]
}

func checkConfined(t *testing.T, pid int) {
	got := proc.Status(t, pid)
	for field, want := range map[string]string{
		"Name": "ringside", "Uid": "57072\t57072\t57072\t57072", "Gid": "57072\t57072\t57072\t57072",
		"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapBnd": "0000000000000000",
		"CapAmb": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2",
	} {
		if got[field] != want {
			t.Errorf("%s is %q, want %q", field, got[field], want)
		}
	}
	for _, path := range []string{
		"/x", "/etc/ringside/x", "/run/secrets/ringside/x", "/var/run/secrets/kubernetes.io/serviceaccount/x",
	} {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/root%s", pid, path), nil, 0o600); !errors.Is(err, syscall.EROFS) {
			t.Errorf("write %s: got %v, want a read-only file system", path, err)
		}
	}
}

// checkMember checks that the sidecar advertises the address of the pod.
func checkMember(t *testing.T, process *server) {
	for _, want := range []string{`"node":"runs.apps"`, `"advertise":"` + podIP + `:7072"`, `"membership":"etcd"`} {
		if log := process.log.tail(); !strings.Contains(log, want) {
			t.Errorf("the start line has no %s:\n%s", want, log)
		}
	}
}

// checkLimited checks that the sidecar derives its memory limit from that of the container.
func checkLimited(t *testing.T, process *server, container corev1.Container, pid int) {
	limit := container.Resources.Limits.Memory().Value()
	entries := regexp.MustCompile(`"memory_bytes":(\d+)`).FindStringSubmatch(process.log.tail())
	if entries == nil {
		t.Fatalf("no start line:\n%s", process.log.tail())
	}
	if n, err := strconv.ParseInt(entries[1], 10, 64); err != nil || n < limit/4 || n > limit/2 {
		t.Errorf("%d bytes for entries (%v), of a limit of %d", n, err, limit)
	}
	status := proc.Status(t, pid)
	t.Logf("idle: %s resident, of which %s anonymous", status["VmRSS"], status["RssAnon"])
}

// checkRead runs the application's container beside the sidecar.
func checkRead(t *testing.T, s *sandbox) {
	_, app := s.run(t, s.pod.Spec.Containers[0])
	<-app.exited
	out := app.log.tail()
	if app.cmd.ProcessState.ExitCode() != 0 || !strings.Contains(out, `{"cnf_id":"CNF-001","value":42.5}`) {
		t.Errorf("the application got %s (%v)", out, app.cmd.ProcessState)
	}
}

// checkSocket connects as the application's user, with and without the group that the injector adds to the pod.
func checkSocket(t *testing.T, s *sandbox) {
	group := s.pod.Spec.SecurityContext.SupplementalGroups
	if len(group) != 1 {
		t.Fatalf("supplemental groups %v", group)
	}
	fetch := func(groups string) ([]byte, error) {
		cmd := exec.Command("setpriv", "--reuid=1000", "--regid=1000", groups, "curl", "--silent", "--show-error",
			"--unix-socket", filepath.Join("/proc/self/cwd", "ringside.sock"), "http://localhost/v1/cnf-metrics/CNF-001")
		cmd.Dir = s.volumes["ringside-run"]
		return cmd.CombinedOutput()
	}
	if out, err := fetch(fmt.Sprintf("--groups=%d", group[0])); err != nil || !strings.Contains(string(out), "42.5") {
		t.Errorf("over the socket: %s, %v", out, err)
	}
	if out, err := fetch("--clear-groups"); err == nil {
		t.Errorf("over the socket without the group: %s", out)
	}
}

// checkReaps makes an orphan in the container and kills it. The container's init must wait for it.
func checkReaps(t *testing.T, init int) {
	before, _ := proc.Children(init)
	command(t, "nsenter", "--target", strconv.Itoa(init), "--pid", "sh", "-c", "sleep 1000 >/dev/null 2>&1 &")
	var orphans []int
	rig.Eventually(t, startTimeout, func() error { // the kernel moves an orphan to init after its parent has exited
		after, _ := proc.Children(init)
		orphans = slices.DeleteFunc(after, func(pid int) bool { return slices.Contains(before, pid) })
		if len(orphans) != 1 {
			return fmt.Errorf("init has the new children %v, want one", orphans)
		}
		return nil
	})
	if err := syscall.Kill(orphans[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, startTimeout, func() error {
		if running, zombies := proc.Children(init); len(running)+len(zombies) != len(before) {
			return fmt.Errorf("init still has the children %v and the zombies %v, want %v", running, zombies, before)
		}
		return nil
	})
}
