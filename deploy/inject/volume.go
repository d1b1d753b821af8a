package inject

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Volume has files for the sidecar alone, such as the client certificate for etcd, at /run/secrets/NAME. It has exactly one of
// the sources, all of which are in the namespace of the pod: the names of Secrets have no namespace.
type Volume struct {
	// Name has at most 40 lowercase letters, digits and dashes. It is neither ringside nor ringside-tls, which the other files have.
	Name string `json:"name"`

	Secret    *corev1.SecretVolumeSource    `json:"secret,omitempty"`
	Projected *corev1.ProjectedVolumeSource `json:"projected,omitempty"`
	// CSI is a driver that makes the files for each pod: csi.cert-manager.io, csi.spiffe.io, secrets-store.csi.k8s.io.
	CSI *corev1.CSIVolumeSource `json:"csi,omitempty"`
}

const (
	secretsPath = "/run/secrets"
	// maxVolumeName leaves room for the prefix in the name of a volume, which is a DNS label.
	maxVolumeName = 40
)

func (v Volume) sameName(other Volume) bool { return v.Name == other.Name }

func (v Volume) path() string { return secretsPath + "/" + v.Name }

// volumeName differs from the names of the other volumes of the sidecar.
func (v Volume) volumeName() string { return secretVolume + "-" + v.Name }

func (v Volume) check() error {
	if len(validation.IsDNS1123Label(v.Name)) > 0 || len(v.Name) > maxVolumeName {
		return fmt.Errorf("want a name of at most %d lowercase letters, digits and dashes, or NAME=SECRET", maxVolumeName)
	}
	if slices.Contains([]string{secretPath, tlsPath}, v.path()) {
		return fmt.Errorf("%s is in use; choose another name", v.path())
	}
	sources := 0
	for _, set := range []bool{v.Secret != nil, v.Projected != nil, v.CSI != nil} {
		if set {
			sources++
		}
	}
	switch {
	case sources != 1:
		return errors.New("want exactly one of secret, projected and csi")
	case v.Secret != nil:
		return checkName(v.Secret.SecretName)
	case v.CSI != nil && v.CSI.Driver == "":
		return errors.New("csi.driver: is missing")
	case v.CSI != nil && v.CSI.Driver == certManagerDriver && v.CSI.VolumeAttributes == nil:
		return errors.New("csi.volumeAttributes: is missing; it names the issuer")
	}
	return nil
}

// volume returns v with files that user can read: it is not root, and owns the files of no volume. Only the sidecar mounts them.
func (v Volume) volume(user int64) corev1.Volume {
	source := corev1.VolumeSource{}
	switch {
	case v.Secret != nil:
		source.Secret = v.Secret.DeepCopy()
		source.Secret.DefaultMode = or(source.Secret.DefaultMode, new(readable))
	case v.Projected != nil:
		source.Projected = v.Projected.DeepCopy()
		source.Projected.DefaultMode = or(source.Projected.DefaultMode, new(readable))
	default:
		source.CSI = readableCSI(v.CSI, user)
	}
	return corev1.Volume{Name: v.volumeName(), VolumeSource: source}
}

// readable is the mode of files for a user that does not own them.
const readable = int32(0o444)

const certManagerDriver = "csi.cert-manager.io"

// readableCSI makes cert-manager give the files, which belong to root, the group of user, unless the platform chooses the user.
func readableCSI(source *corev1.CSIVolumeSource, user int64) *corev1.CSIVolumeSource {
	source = source.DeepCopy()
	if source.Driver == certManagerDriver && user != 0 {
		source.VolumeAttributes[certManagerDriver+"/fs-group"] = strconv.FormatInt(user, 10)
	}
	return source
}

// withVolumes returns the volumes of a template and those that a pod has chosen, which replace the ones of the same name.
func withVolumes(template, chosen []Volume) []Volume {
	var all []Volume
	for _, v := range template {
		if !slices.ContainsFunc(chosen, v.sameName) { //guard:pod-gets-the-secret-of-the-template
			all = append(all, v)
		}
	}
	return append(all, chosen...)
}
