package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const podIP = "10.244.0.7"

// sandbox does the work of a kubelet for one pod: network, volumes, and containers as the API server describes them.
type sandbox struct {
	c       *cluster
	pod     *corev1.Pod
	network string            // name of the network namespace
	volumes map[string]string // :: name → directory
	hosts   string            // file for /etc/hosts
	rootfs  string            // of all containers, which have the same image
	entry   []string          // the image's entry point
}

func (c *cluster) sandbox(t *testing.T, pod *corev1.Pod, rootfs string, entry []string) *sandbox {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for namespaces and cgroups")
	}
	s := &sandbox{
		c: c, pod: pod, rootfs: rootfs, entry: entry, volumes: map[string]string{},
		network: fmt.Sprintf("ringside-test-%d", os.Getpid()),
	}
	command(t, "ip", "netns", "add", s.network)
	t.Cleanup(func() { command(t, "ip", "netns", "delete", s.network) })
	command(t, "ip", "-n", s.network, "link", "set", "lo", "up")
	command(t, "ip", "-n", s.network, "address", "add", podIP+"/32", "dev", "lo")
	for _, volume := range pod.Spec.Volumes {
		s.volumes[volume.Name] = s.volume(t, volume)
	}
	s.hosts = filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(s.hosts, []byte("127.0.0.1\tlocalhost\n::1\tlocalhost\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return s
}

func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// volume creates the directory of a volume with the file modes that a kubelet sets.
func (s *sandbox) volume(t *testing.T, volume corev1.Volume) string {
	t.Helper()
	dir := t.TempDir()
	files, mode := map[string][]byte{}, os.FileMode(0o644)
	core, get := s.c.client.CoreV1(), metav1.GetOptions{}
	switch {
	case volume.ConfigMap != nil:
		object, err := core.ConfigMaps(s.pod.Namespace).Get(t.Context(), volume.ConfigMap.Name, get)
		if err != nil {
			t.Fatal(err)
		}
		mode = os.FileMode(*volume.ConfigMap.DefaultMode)
		for name, text := range object.Data {
			files[name] = []byte(text)
		}
	case volume.Secret != nil:
		object, err := core.Secrets(s.pod.Namespace).Get(t.Context(), volume.Secret.SecretName, get)
		if err != nil {
			t.Fatal(err)
		}
		files, mode = object.Data, os.FileMode(*volume.Secret.DefaultMode)
	case volume.EmptyDir != nil:
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// run starts a container of the pod with runc.
func (s *sandbox) run(t *testing.T, container corev1.Container) (id string, process *server) {
	t.Helper()
	bundle := t.TempDir()
	text, err := json.Marshal(s.spec(t, container))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(bundle, "config.json"), string(text))
	state := filepath.Join(bundle, "state")
	id = s.network + "-" + container.Name
	process = run(t, "container "+container.Name, exec.Command("runc", "--root", state, "run", "--bundle", bundle, id))
	t.Cleanup(func() { _ = exec.Command("runc", "--root", state, "delete", "--force", id).Run() })
	return id, process
}

// spec translates a container of Kubernetes into one of OCI, as containerd does for the kubelet.
func (s *sandbox) spec(t *testing.T, container corev1.Container) *specs.Spec {
	t.Helper()
	security := container.SecurityContext
	spec := &specs.Spec{
		Version: "1.0.2",
		Root: &specs.Root{
			Path: s.rootfs, Readonly: security.ReadOnlyRootFilesystem != nil && *security.ReadOnlyRootFilesystem,
		},
		Process: &specs.Process{
			Args: arguments(s.entry, container), Env: s.env(t, container), Cwd: "/",
			User:            s.user(security),
			NoNewPrivileges: security.AllowPrivilegeEscalation != nil && !*security.AllowPrivilegeEscalation,
			Capabilities:    capabilities(t, security),
		},
		Mounts: append(systemMounts(), s.mounts(t, container)...),
		Linux: &specs.Linux{
			CgroupsPath: "/" + s.network + "-" + container.Name,
			Resources:   resources(container.Resources),
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.NetworkNamespace, Path: "/run/netns/" + s.network},
			},
		},
	}
	spec.Linux.Seccomp = seccomp.DefaultProfile(spec) // RuntimeDefault
	return spec
}

func arguments(entry []string, container corev1.Container) []string {
	if container.Command != nil {
		entry = container.Command
	}
	return append(append([]string{}, entry...), container.Args...)
}

var reference = regexp.MustCompile(`\$\((\w+)\)`)

// env resolves fields of the pod and $(NAME), as the kubelet does.
func (s *sandbox) env(t *testing.T, container corev1.Container) (list []string) {
	t.Helper()
	fields := map[string]string{
		"metadata.name": s.pod.Name, "metadata.namespace": s.pod.Namespace, "status.podIP": podIP, "spec.nodeName": "node",
		"metadata.labels['" + corev1.LabelTopologyZone + "']": s.pod.Labels[corev1.LabelTopologyZone], // "" without the label
	}
	values := map[string]string{}
	for _, v := range container.Env {
		value := reference.ReplaceAllStringFunc(v.Value, func(r string) string { return values[r[2:len(r)-1]] })
		if v.ValueFrom != nil {
			var known bool
			if value, known = fields[v.ValueFrom.FieldRef.FieldPath]; !known {
				t.Fatalf("%s: the test does not support the field %s", v.Name, v.ValueFrom.FieldRef.FieldPath)
			}
		}
		values[v.Name] = value
		list = append(list, v.Name+"="+value)
	}
	return list
}

func (s *sandbox) user(security *corev1.SecurityContext) specs.User {
	user := specs.User{UID: 1000, GID: 1000}
	if of := s.pod.Spec.SecurityContext; of != nil {
		for _, group := range of.SupplementalGroups {
			user.AdditionalGids = append(user.AdditionalGids, uint32(group))
		}
	}
	if security.RunAsUser != nil {
		user.UID, user.GID = uint32(*security.RunAsUser), uint32(*security.RunAsGroup)
	}
	return user
}

func capabilities(t *testing.T, security *corev1.SecurityContext) *specs.LinuxCapabilities {
	t.Helper()
	if c := security.Capabilities; c == nil || len(c.Drop) != 1 || c.Drop[0] != "ALL" || len(c.Add) > 0 {
		t.Fatalf("the container has capabilities: %v", c)
	}
	return &specs.LinuxCapabilities{}
}

func resources(r corev1.ResourceRequirements) *specs.LinuxResources {
	list := &specs.LinuxResources{}
	if memory, ok := r.Limits[corev1.ResourceMemory]; ok {
		list.Memory = &specs.LinuxMemory{Limit: new(memory.Value())}
	}
	if cpu, ok := r.Limits[corev1.ResourceCPU]; ok {
		list.CPU = &specs.LinuxCPU{Period: new(uint64(100_000)), Quota: new(cpu.MilliValue() * 100)}
	}
	return list
}

func systemMounts() []specs.Mount {
	confined := []string{"nosuid", "noexec", "nodev", "ro"}
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755", "size=64m"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: confined},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: confined},
	}
}

func (s *sandbox) mounts(t *testing.T, container corev1.Container) (list []specs.Mount) {
	t.Helper()
	list = append(list, specs.Mount{Destination: "/etc/hosts", Type: "bind", Source: s.hosts, Options: []string{"bind"}})
	for _, mount := range container.VolumeMounts {
		options := []string{"rbind", "rprivate"}
		if mount.ReadOnly {
			options = append(options, "ro")
		}
		list = append(list, specs.Mount{
			Destination: mount.MountPath, Type: "bind", Source: s.volumes[mount.Name], Options: options,
		})
	}
	return list
}

// inside calls do in the network of the pod. Sockets stay in the network in which they were created.
func (s *sandbox) inside(do func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		return err
	}
	defer home.Close()
	network, err := os.Open("/run/netns/" + s.network)
	if err != nil {
		return err
	}
	defer network.Close()
	if err := unix.Setns(int(network.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the pod's network: %w", err)
	}
	err = do()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(back) // the thread must not continue in the wrong network
	}
	return err
}

func (s *sandbox) dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = s.inside(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// relay makes an address of the host's loopback interface reachable at the same address in the pod, whose network has no other
// connection.
func (s *sandbox) relay(t *testing.T, address string) {
	t.Helper()
	s.relayTo(t, address, address)
}

// relayTo makes an address of the host reachable at another one in the pod.
func (s *sandbox) relayTo(t *testing.T, inside, outside string) {
	t.Helper()
	var listener net.Listener
	err := s.inside(func() (err error) {
		listener, err = net.Listen("tcp", inside)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			inner, err := listener.Accept()
			if err != nil {
				return // closed by the cleanup
			}
			go pipe(inner, outside)
		}
	}()
}

func pipe(inner net.Conn, address string) {
	defer inner.Close()
	outer, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer outer.Close()
	go func() {
		defer outer.Close()
		_, _ = io.Copy(outer, inner)
	}()
	_, _ = io.Copy(inner, outer)
}

// probe sends one request of a probe, as the kubelet does.
func (s *sandbox) probe(ctx context.Context, p *corev1.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(p.TimeoutSeconds)*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DialContext: s.dial, DisableKeepAlives: true}}
	url := fmt.Sprintf("http://%s:%d%s", podIP, p.HTTPGet.Port.IntValue(), p.HTTPGet.Path)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode < 200 || response.StatusCode >= 400 {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return nil
}
