package inject

import (
	"crypto/sha256"
	_ "embed" // the default template
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"
)

// Template has the values that the cluster operator sets for all sidecars; pods choose the rest by annotations. Only Image
// is required.
type Template struct {
	// Version is recorded on each pod; none by default.
	Version string `json:"version,omitempty"`
	// Image has a digest or a tag other than latest, so that the tested version runs.
	Image           string            `json:"image"`
	ImagePullPolicy corev1.PullPolicy `json:"imagePullPolicy,omitempty"`
	// Config is the ConfigMap with ringside.yaml, in the namespace of each pod; by default "ringside".
	Config string `json:"config,omitempty"`
	// Secret is mounted at /run/secrets/ringside, for the files that ringside.yaml names; none by default.
	Secret string `json:"secret,omitempty"`
	// Volumes are mounted at /run/secrets/NAME, for more files that ringside.yaml names; none by default.
	Volumes []Volume `json:"volumes,omitempty"`
	// Certificates are mounted at /run/secrets/ringside-tls, for peer_tls; none by default.
	Certificates Certificates                `json:"certificates,omitzero"`
	Resources    corev1.ResourceRequirements `json:"resources,omitzero"`
	Ports        Ports                       `json:"ports,omitzero"`
	// Meshes (istio, linkerd) run in every pod, even if the pod does not show it at injection.
	Meshes []string `json:"meshes,omitempty"`
	// UserID is the user and the group of the sidecar, by default 57072. With 0 the sidecar has that of the pod or of the
	// platform: OpenShift assigns one of the namespace's range.
	UserID *int64 `json:"userID,omitempty"`
	// SharedProcesses is what happens to pods with shareProcessNamespace or hostPID: Warn (default) or Reject.
	SharedProcesses string `json:"sharedProcesses,omitempty"`

	revision string
}

// Revision identifies the text of the template.
func (t *Template) Revision() string { return t.revision }

// DefaultTemplate is the template of the chart with its default values, in YAML.
//
//go:embed default-template.yaml
var DefaultTemplate []byte

const warnShared, rejectShared = "Warn", "Reject"

// Certificates are the source of the certificate of each sidecar; at most one of them is set.
type Certificates struct {
	// Secret is one in the namespace of each pod that all sidecars share. A pod without it starts, too: its configuration need
	// not have peer_tls.
	Secret string `json:"secret,omitempty"`
	// CSI is a volume that has a certificate for each pod (csi.cert-manager.io), or the SPIFFE Workload API (csi.spiffe.io).
	CSI *corev1.CSIVolumeSource `json:"csi,omitempty"`
}

// Ports are the ports of the sidecar's listeners; 0 means the default. That of Redis is what ringside.yaml says: off, unless it has
// listen.redis.
type Ports struct {
	HTTP    int32 `json:"http,omitempty"`
	GRPC    int32 `json:"grpc,omitempty"`
	Redis   int32 `json:"redis,omitempty"`
	Peer    int32 `json:"peer,omitempty"`
	Metrics int32 `json:"metrics,omitempty"`
	Admin   int32 `json:"admin,omitempty"`
}

const defaultPeerPort = 7072

// ParseTemplate reads YAML or JSON. It rejects unknown fields and a template that could not be injected.
func ParseTemplate(text []byte) (*Template, error) {
	t := new(Template)
	if err := yaml.UnmarshalStrict(text, t); err != nil {
		return nil, fmt.Errorf("parse the template: %w", err)
	}
	sum := sha256.Sum256(text)
	t.revision = hex.EncodeToString(sum[:6])
	t.setDefaults()
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("check the template: %w", err)
	}
	return t, nil
}

func (t *Template) setDefaults() {
	t.Config = or(t.Config, "ringside")
	if t.UserID == nil {
		t.UserID = new(defaultUser)
	}
	t.SharedProcesses = or(t.SharedProcesses, warnShared)
	t.ImagePullPolicy = or(t.ImagePullPolicy, corev1.PullIfNotPresent)
	t.Ports = Ports{
		HTTP: or(t.Ports.HTTP, 7070), GRPC: or(t.Ports.GRPC, 7071), Redis: t.Ports.Redis, Peer: or(t.Ports.Peer, defaultPeerPort),
		Metrics: or(t.Ports.Metrics, 7073), Admin: or(t.Ports.Admin, 7075),
	}
	t.Resources.Requests = withDefaults(t.Resources.Requests, "10m", "32Mi")
	t.Resources.Limits = withDefaults(t.Resources.Limits, "1", "128Mi")
}

func withDefaults(list corev1.ResourceList, cpu, memory string) corev1.ResourceList {
	all := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory),
	}
	maps.Copy(all, list)
	return all
}

func (t *Template) check() error {
	_, err := t.settle(&choices{})
	wrong := []error{checkImage(t.Image), checkMeshes(t.Meshes), err}
	if *t.UserID < 0 || *t.UserID > math.MaxInt32 {
		wrong = append(wrong, fmt.Errorf("userID %d: want 0, for that of the platform, to %d", *t.UserID, math.MaxInt32))
	}
	if t.SharedProcesses != warnShared && t.SharedProcesses != rejectShared {
		wrong = append(wrong, fmt.Errorf("sharedProcesses %q: want %s or %s", t.SharedProcesses, warnShared, rejectShared))
	}
	if err := checkName(t.Config); err != nil {
		wrong = append(wrong, fmt.Errorf("config %q: %w", t.Config, err))
	}
	if c := t.Certificates; c.Secret != "" && c.CSI != nil {
		wrong = append(wrong, errors.New("certificates: want secret or csi, not both"))
	} else if c.CSI != nil && c.CSI.Driver == certManagerDriver && c.CSI.VolumeAttributes == nil {
		wrong = append(wrong, errors.New("certificates.csi.volumeAttributes: is missing; it names the issuer"))
	} else if err := checkName(c.Secret); c.Secret != "" && err != nil {
		wrong = append(wrong, fmt.Errorf("certificates.secret %q: %w", c.Secret, err))
	}
	if err := checkName(t.Secret); t.Secret != "" && err != nil {
		wrong = append(wrong, fmt.Errorf("secret %q: %w", t.Secret, err))
	}
	for i, v := range t.Volumes {
		if err := v.check(); err != nil {
			wrong = append(wrong, fmt.Errorf("volumes[%d] %q: %w", i, v.Name, err))
		}
		if slices.ContainsFunc(t.Volumes[:i], v.sameName) {
			wrong = append(wrong, fmt.Errorf("volumes[%d]: the name %q is there twice", i, v.Name))
		}
	}
	return errors.Join(wrong...)
}

func checkImage(image string) error {
	name, digest, pinned := strings.Cut(image, "@")
	_, tag, tagged := strings.Cut(name[strings.LastIndex(name, "/")+1:], ":")
	switch {
	case name == "":
		return errors.New("image: want a name with a tag or a digest")
	case pinned && !strings.HasPrefix(digest, "sha256:"):
		return fmt.Errorf("image %q: want a sha256 digest", image)
	case !pinned && (!tagged || tag == "" || tag == "latest"):
		return fmt.Errorf("image %q: want a tag other than latest, or a digest", image)
	}
	return nil
}

func checkMeshes(names []string) error {
	for _, name := range names {
		if !slices.ContainsFunc(meshes, func(m mesh) bool { return m.name == name }) {
			return fmt.Errorf("meshes: %q is unknown; allowed are istio and linkerd", name)
		}
	}
	return nil
}

// or returns value, or fallback if value is zero.
func or[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}
