package inject

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// SocketDir is the directory of the socket, in all containers.
const SocketDir = "/run/ringside"

const (
	containerName = "ringside"
	// defaultUser is the user and group of the sidecar, and of its image. No other program should run as it: it is none of
	// the usual ones (1000, 65532 of distroless images, those of meshes), none that systemd assigns (61184 to 65519), and
	// below 65536, because a pod with its own user namespace has no others.
	defaultUser = int64(57072)

	volumePrefix             = "ringside-" // of the names of the sidecar's volumes
	configVolume, configPath = "ringside-config", "/etc/ringside"
	secretVolume, secretPath = "ringside-secret", "/run/secrets/ringside"
	runVolume, runPath       = "ringside-run", SocketDir
	tlsVolume, tlsPath       = "ringside-tls", "/run/secrets/ringside-tls"
	// maskVolume is mounted where the API server would mount the pod's service-account token, which the sidecar does not need.
	maskVolume, tokenPath = "ringside-no-token", "/var/run/secrets/kubernetes.io/serviceaccount"

	metricsPortName, peerPortName = "ringside-prom", "ringside-peer"
)

// container returns the sidecar. As the first init container, or the first one after the proxy of a mesh (afterProxies), with restartPolicy Always, it
// starts before all other containers of the pod and stops after them, and Jobs complete without it (KEP-753).
func (t *Template) container(c *choices) corev1.Container {
	return corev1.Container{
		Name: containerName, Image: t.Image, ImagePullPolicy: t.ImagePullPolicy,
		Args:          args(c),
		Env:           env(c),
		Ports:         []corev1.ContainerPort{tcp(metricsPortName, c.ports.Metrics), tcp(peerPortName, c.ports.Peer)},
		Resources:     corev1.ResourceRequirements{Requests: c.requests, Limits: c.limits},
		VolumeMounts:  t.mounts(c),
		RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
		// Every second for up to a minute, because the whole pod waits for it.
		StartupProbe:             c.probe("startupz", 1, 60),
		LivenessProbe:            c.probe("livez", 10, 3),
		ReadinessProbe:           c.probe("readyz", 5, 2),
		SecurityContext:          confined(*t.UserID),
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
}

func args(c *choices) []string {
	list := []string{"run", "--config", configPath + "/ringside.yaml"}
	if c.supervise {
		list = append(list, "--supervise")
	}
	return list
}

func tcp(name string, port int32) corev1.ContainerPort {
	return corev1.ContainerPort{Name: name, ContainerPort: port, Protocol: corev1.ProtocolTCP}
}

// probe returns an HTTP probe, which costs least. Istio redirects such probes to its proxy, which does not run yet when the
// sidecar starts: there the probe is a command.
func (c *choices) probe(name string, periodSeconds, failures int32) *corev1.Probe {
	p := &corev1.Probe{PeriodSeconds: periodSeconds, TimeoutSeconds: 2, FailureThreshold: failures}
	if c.execProbes { //guard:probe-waits-for-istio
		p.Exec = &corev1.ExecAction{Command: []string{"/ringside", "healthcheck", "--probe", name}}
		p.TimeoutSeconds = 5 // a process must start
		return p
	}
	p.HTTPGet = &corev1.HTTPGetAction{Path: "/" + name, Port: intstr.FromInt32(c.ports.Metrics), Scheme: corev1.URISchemeHTTP}
	return p
}

// confined meets the restricted Pod Security Standard, with a read-only root filesystem. With user 0 the platform chooses the
// user.
func confined(user int64) *corev1.SecurityContext {
	var id *int64
	if user != 0 {
		id = &user
	}
	return &corev1.SecurityContext{
		RunAsNonRoot: new(true), RunAsUser: id, RunAsGroup: id, ReadOnlyRootFilesystem: new(true),
		AllowPrivilegeEscalation: new(false), Privileged: new(false),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// env sets the identity of the sidecar and the ports that the probes and other containers use; a variable overrides the
// file. The address is in brackets because it may be IPv6; its port 0 stands for the port of the peer listener.
// Loopback is written as localhost because CNTI's hardcoded_ip_addresses_in_k8s_runtime_configuration searches for addresses.
func env(c *choices) []corev1.EnvVar {
	list := []corev1.EnvVar{
		field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace"),
		field("POD_IP", "status.podIP"), field("NODE_NAME", "spec.nodeName"),
		// for node.zone; Kubernetes 1.35 copies the label from the node, without it the value is empty
		field("NODE_ZONE", "metadata.labels['topology.kubernetes.io/zone']"),
		{Name: "RINGSIDE_NODE_ID", Value: "$(POD_NAME).$(POD_NAMESPACE)"},
		{Name: "RINGSIDE_NODE_NAMESPACE", Value: "$(POD_NAMESPACE)"}, // the default of membership.etcd.prefix: a ring for each namespace
		{Name: "RINGSIDE_NODE_ADVERTISE", Value: "[$(POD_IP)]:0"},
		{Name: "RINGSIDE_LISTEN_HTTP", Value: fmt.Sprintf("localhost:%d", c.ports.HTTP)},
		{Name: "RINGSIDE_LISTEN_GRPC", Value: fmt.Sprintf("localhost:%d", c.ports.GRPC)},
		{Name: "RINGSIDE_LISTEN_METRICS", Value: fmt.Sprintf(":%d", c.ports.Metrics)},
		{Name: "RINGSIDE_LISTEN_ADMIN", Value: fmt.Sprintf("localhost:%d", c.ports.Admin)},
	}
	if c.ports.Peer != defaultPeerPort { // with the default, a sidecar without membership keeps the listener off
		list = append(list, corev1.EnvVar{Name: "RINGSIDE_LISTEN_PEER", Value: fmt.Sprintf(":%d", c.ports.Peer)})
	}
	if c.ports.Redis != 0 { // otherwise the file says whether there is one
		list = append(list, corev1.EnvVar{Name: "RINGSIDE_LISTEN_REDIS", Value: fmt.Sprintf("localhost:%d", c.ports.Redis)})
	}
	if c.unixSocket {
		list = append(list, corev1.EnvVar{Name: "RINGSIDE_LISTEN_UNIX", Value: runPath + "/ringside.sock"})
	}
	if c.logLevel != "" {
		list = append(list, corev1.EnvVar{Name: "RINGSIDE_LOG_LEVEL", Value: c.logLevel})
	}
	return list
}

func field(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path},
	}}
}

func (t *Template) mounts(c *choices) []corev1.VolumeMount {
	list := []corev1.VolumeMount{
		{Name: configVolume, MountPath: configPath, ReadOnly: true},
		{Name: maskVolume, MountPath: tokenPath, ReadOnly: true},
	}
	if c.secret != "" {
		list = append(list, corev1.VolumeMount{Name: secretVolume, MountPath: secretPath, ReadOnly: true})
	}
	if t.Certificates != (Certificates{}) {
		list = append(list, corev1.VolumeMount{Name: tlsVolume, MountPath: tlsPath, ReadOnly: true})
	}
	for _, v := range c.volumes {
		list = append(list, corev1.VolumeMount{Name: v.volumeName(), MountPath: v.path(), ReadOnly: true})
	}
	if c.unixSocket {
		list = append(list, corev1.VolumeMount{Name: runVolume, MountPath: runPath})
	}
	return list
}

func (t *Template) volumes(c *choices) []corev1.Volume {
	list := []corev1.Volume{
		{Name: configVolume, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: c.config},
		}}},
		{Name: maskVolume, VolumeSource: memory()},
	}
	if c.secret != "" {
		list = append(list, corev1.Volume{Name: secretVolume, VolumeSource: corev1.VolumeSource{
			// Only the sidecar mounts it. Its user is not root and does not own the files of a secret.
			Secret: &corev1.SecretVolumeSource{SecretName: c.secret, DefaultMode: new(readable)},
		}})
	}
	if t.Certificates != (Certificates{}) {
		list = append(list, corev1.Volume{Name: tlsVolume, VolumeSource: t.certificates()})
	}
	for _, v := range c.volumes {
		list = append(list, v.volume(*t.UserID))
	}
	if c.unixSocket {
		list = append(list, corev1.Volume{Name: runVolume, VolumeSource: memory()})
	}
	return list
}

func (t *Template) certificates() corev1.VolumeSource {
	c := t.Certificates
	if c.CSI != nil {
		return corev1.VolumeSource{CSI: readableCSI(c.CSI, *t.UserID)}
	}
	return corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
		SecretName: c.Secret, DefaultMode: new(readable), Optional: new(true),
	}}
}

// memory is an emptyDir in memory. On disk it would prevent cluster-autoscaler from removing the node.
func memory() corev1.VolumeSource {
	return corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
		Medium: corev1.StorageMediumMemory, SizeLimit: new(resource.MustParse("1Mi")),
	}}
}
