package inject

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// tenants has a volume of each kind.
const tenants = `
image: registry.example/ringside:1.2.3
volumes:
- {name: etcd, secret: {secretName: etcd-client, optional: true}}
- {name: vault, projected: {sources: [{serviceAccountToken: {path: token}}, {secret: {name: vault-ca}}]}}
- name: peer
  csi: {driver: csi.cert-manager.io, readOnly: true, volumeAttributes: {csi.cert-manager.io/issuer-name: apps}}
- {name: spiffe, csi: {driver: csi.spiffe.io, readOnly: true}}
`

// Secrets, projected volumes and those of CSI drivers are mounted into the sidecar alone, with files that its user can read.
func TestVolumesOfTheTemplate(t *testing.T) {
	template, err := ParseTemplate([]byte(tenants))
	if err != nil {
		t.Fatal(err)
	}
	pod := newPod(t, `ringside.dev/secrets: "etcd=etcd-admin, dsn"`, "")
	ops, warnings, err := Patch(pod, Pod, template)
	if err != nil || len(warnings) > 0 {
		t.Fatal(warnings, err)
	}
	patched := apply(t, pod, ops)
	volumes := map[string]corev1.VolumeSource{}
	for _, v := range patched.Spec.Volumes {
		volumes[v.Name] = v.VolumeSource
	}
	for name, has := range map[string]bool{
		"etcd":   volumes["ringside-secret-etcd"].Secret != nil && volumes["ringside-secret-etcd"].Secret.SecretName == "etcd-admin" && *volumes["ringside-secret-etcd"].Secret.DefaultMode == 0o444,
		"dsn":    volumes["ringside-secret-dsn"].Secret != nil && volumes["ringside-secret-dsn"].Secret.SecretName == "dsn",
		"vault":  volumes["ringside-secret-vault"].Projected != nil && *volumes["ringside-secret-vault"].Projected.DefaultMode == 0o444 && len(volumes["ringside-secret-vault"].Projected.Sources) == 2,
		"peer":   volumes["ringside-secret-peer"].CSI != nil && volumes["ringside-secret-peer"].CSI.VolumeAttributes["csi.cert-manager.io/fs-group"] == "57072",
		"spiffe": volumes["ringside-secret-spiffe"].CSI != nil && volumes["ringside-secret-spiffe"].CSI.Driver == "csi.spiffe.io",
	} {
		if !has {
			t.Errorf("%s: got the volumes %v", name, volumes)
		}
		mounted := 0
		for _, mount := range patched.Spec.InitContainers[0].VolumeMounts {
			if mount.Name == "ringside-secret-"+name && mount.MountPath == "/run/secrets/"+name && mount.ReadOnly {
				mounted++
			}
		}
		if mounted != 1 {
			t.Errorf("%s is mounted %d times into the sidecar, want once: %v", name, mounted, patched.Spec.InitContainers[0].VolumeMounts)
		}
	}
	if mounts := patched.Spec.Containers[0].VolumeMounts; len(mounts) > 0 {
		t.Errorf("the application has the mounts %v", mounts)
	}
	if len(template.Volumes[2].CSI.VolumeAttributes) != 1 {
		t.Error("the patch has changed the template")
	}
}

func TestInvalidVolumesAreRejected(t *testing.T) {
	for volumes, want := range map[string]string{
		"[{name: etcd}]": "want exactly one of secret, projected and csi",
		"[{name: etcd, secret: {secretName: a}, csi: {driver: b}}]":                "want exactly one of",
		"[{name: etcd, secret: {secretName: A}}]":                                  "want the name of an object in the pod's namespace",
		"[{name: etcd, hostPath: {path: /}}]":                                      "hostPath",
		"[{name: etcd, csi: {}}]":                                                  "csi.driver: is missing",
		"[{name: a, csi: {driver: csi.cert-manager.io}}]":                          "csi.volumeAttributes: is missing",
		"[{name: ringside, secret: {secretName: a}}]":                              "/run/secrets/ringside is in use",
		"[{name: a/b, secret: {secretName: a}}]":                                   "want a name of at most 40",
		"[{name: a, secret: {secretName: a}}, {name: a, secret: {secretName: b}}]": `volumes[1]: the name "a" is there twice`,
	} {
		_, err := ParseTemplate([]byte("image: 'r:1'\nvolumes: " + volumes))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", volumes, err, want)
		}
	}
}
