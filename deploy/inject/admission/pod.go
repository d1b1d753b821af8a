package admission

import (
	"bufio"
	"cmp"
	"io"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ringside-cache/ringside/deploy/inject"
)

// The most elements of a pod that are accepted. Pods in use have a tenth of each. Only containers and ports are kept one by
// one: of the others, those that inject.Patch does not use are counted.
const (
	maxContainers = 128
	maxPorts      = 512
	maxVolumes    = 1024
	maxMounts     = 4096
	maxKeys       = 2048 // labels and annotations
	maxOurs       = 256  // labels, annotations, volumes and mounts that inject.Patch uses
	maxGroups     = 64
	maxOwners     = 64
	maxTerms      = 256  // terms of node affinity, and their requirements of labels that inject.Patch uses
	maxLabel      = 63   // bytes in the name of a container or a volume (RFC 1123)
	maxPath       = 4096 // PATH_MAX of Linux
	// maxValue bounds the values that are kept: the longest are lists of ports.
	maxValue = 2 << 10
)

const ofOurs = "labels, annotations, volumes and mounts with names of ringside or of a mesh"

// count returns an error if n exceeds a limit.
func count(n *int, limit int, what string) error {
	if *n++; *n > limit { //guard:elements-are-unbounded
		return rejectf("the pod has more than %d %s; ringside does not inject such a pod: "+
			"decline with the annotation ringside.dev/inject: \"false\"", limit, what)
	}
	return nil
}

// Pod has the fields of a pod that inject.Patch uses. Those of containers are in a tenth of the memory of corev1.Container,
// because a review may take seconds to arrive.
type Pod struct {
	pod              corev1.Pod // without containers
	init, containers []container
	controller       *metav1.OwnerReference
}

type container struct {
	name   string
	ports  []int32 // of TCP
	probed []int32 // ports
	mounts []mount // that inject.Patch uses
	user   int64   // runAsUser, if hasUser

	exact, hasUser, hasMounts bool // exact: the limits equal the requests
	native, httpProbe         bool // native: restartPolicy Always, as a sidecar has among the init containers
}

type mount struct {
	volume             string
	atSocket, readOnly bool
}

// Name returns the name of the pod, or the prefix from which the API server makes it.
func (p *Pod) Name() string { return cmp.Or(p.pod.Name, p.pod.GenerateName) }

// Controller returns the owner that has made the pod, such as a ReplicaSet; nil if there is none.
func (p *Pod) Controller() *metav1.OwnerReference { return p.controller }

// ForPatch returns the pod for inject.Patch. Its lists and maps are empty if, and only if, they are empty in the document;
// of the elements that inject.Patch does not use, at most one is present.
func (p *Pod) ForPatch() *corev1.Pod {
	pod := p.pod.DeepCopy()
	pod.Spec.InitContainers, pod.Spec.Containers = forPatch(p.init), forPatch(p.containers)
	return pod
}

func forPatch(list []container) []corev1.Container {
	all := make([]corev1.Container, len(list))
	for i, c := range list {
		all[i].Name = c.name
		if c.exact {
			all[i].Resources = exact
		}
		if c.native {
			all[i].RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		}
		if c.httpProbe {
			all[i].StartupProbe = httpProbe
		}
		if c.hasUser {
			all[i].SecurityContext = &corev1.SecurityContext{RunAsUser: new(c.user)}
		}
		for _, port := range slices.Concat(c.ports, c.probed) {
			all[i].Ports = append(all[i].Ports, corev1.ContainerPort{ContainerPort: port})
		}
		for _, m := range c.mounts {
			mounted := corev1.VolumeMount{Name: m.volume, ReadOnly: m.readOnly}
			if m.atSocket {
				mounted.MountPath = inject.SocketDir
			}
			all[i].VolumeMounts = append(all[i].VolumeMounts, mounted)
		}
		if c.hasMounts && len(c.mounts) == 0 {
			all[i].VolumeMounts = make([]corev1.VolumeMount, 1)
		}
	}
	return all
}

// httpProbe stands for those of a container, whose ports are among its ports.
var httpProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: new(corev1.HTTPGetAction)}}

// ReadPod reads a pod as JSON, and returns it for inject.Patch.
func ReadPod(r io.Reader) (*corev1.Pod, error) {
	p := podReader{scanner: &scanner{r: bufio.NewReaderSize(r, bufferSize)}, Pod: new(Pod)}
	err := p.read()
	return p.ForPatch(), err
}

// podReader reads a pod. Of labels, annotations and volumes it keeps the first one and those that inject.Patch uses.
type podReader struct {
	*scanner
	*Pod

	// counted so far:
	nContainers, nPorts, nVolumes, nMounts, nKeys, nOurs, nGroups, nTerms, nOwners int
}

func (p *podReader) read() error {
	return p.object(func(name string) error {
		switch name {
		case "kind":
			return p.set(&p.pod.Kind, "kind", maxName)
		case "metadata":
			return p.object(p.metadata)
		case "spec":
			return p.object(p.spec)
		}
		return p.skip()
	})
}

func (p *podReader) set(into *string, what string, limit int) (err error) {
	*into, err = p.string(what, limit)
	return err
}

func (p *podReader) metadata(name string) error {
	switch name {
	case "name":
		return p.set(&p.pod.Name, "metadata.name", maxName)
	case "generateName":
		return p.set(&p.pod.GenerateName, "metadata.generateName", maxName)
	case "ownerReferences":
		p.controller = nil
		return p.array(p.owner)
	case "labels":
		return p.stringMap(&p.pod.Labels, "label")
	case "annotations":
		return p.stringMap(&p.pod.Annotations, "annotation")
	}
	return p.skip()
}

// owner keeps the one that is the controller.
func (p *podReader) owner() error {
	if err := count(&p.nOwners, maxOwners, "owners"); err != nil {
		return err
	}
	var o metav1.OwnerReference
	controls := false
	err := p.object(func(name string) (err error) {
		switch name {
		case "apiVersion":
			return p.set(&o.APIVersion, "the apiVersion of an owner", maxName)
		case "kind":
			return p.set(&o.Kind, "the kind of an owner", maxName)
		case "name":
			return p.set(&o.Name, "the name of an owner", maxName)
		case "uid":
			return p.set((*string)(&o.UID), "the uid of an owner", maxUID)
		case "controller":
			controls, err = p.bool()
			return err
		}
		return p.skip()
	})
	if controls {
		p.controller = &o
	}
	return err
}

// stringMap reads labels or annotations.
func (p *podReader) stringMap(into *map[string]string, kind string) error {
	*into = nil
	return p.object(func(key string) error {
		if err := count(&p.nKeys, maxKeys, "labels and annotations"); err != nil {
			return err
		}
		used := inject.UsesKey(key)
		switch {
		case !used && len(*into) > 0:
			return p.skip()
		case *into == nil:
			*into = map[string]string{}
		}
		if !used {
			(*into)[key] = "" //guard:labels-are-replaced
			return p.skip()
		}
		if err := count(&p.nOurs, maxOurs, ofOurs); err != nil {
			return err
		}
		value, err := p.string(kind+" "+key, maxValue)
		(*into)[key] = value
		return err
	})
}

func (p *podReader) spec(name string) (err error) {
	spec := &p.pod.Spec
	switch name {
	case "volumes":
		spec.Volumes = nil
		return p.array(p.volume)
	case "initContainers":
		return p.containerList(&p.init)
	case "containers":
		return p.containerList(&p.Pod.containers)
	case "securityContext":
		spec.SecurityContext = nil
		return p.podSecurity()
	case "resources":
		return p.podResources()
	case "hostNetwork":
		spec.HostNetwork, err = p.bool()
	case "hostPID":
		spec.HostPID, err = p.bool()
	case "shareProcessNamespace":
		err = optional(p, p.bool, &spec.ShareProcessNamespace)
	case "terminationGracePeriodSeconds":
		err = optional(p, p.int64, &spec.TerminationGracePeriodSeconds)
	case "os":
		spec.OS = nil
		return p.os()
	case "nodeSelector":
		spec.NodeSelector = nil
		return p.nodeSelector()
	case "affinity":
		spec.Affinity = nil
		return p.affinity()
	default:
		err = p.skip()
	}
	return err
}

func (p *podReader) int64() (int64, error) { return p.integer(64) }

// optional reads a value that may be null.
func optional[T any](p *podReader, read func() (T, error), into **T) error {
	*into = nil
	if null, err := p.null(); null || err != nil {
		return err
	}
	value, err := read()
	*into = &value
	return err
}

func (p *podReader) os() error {
	if null, err := p.null(); null || err != nil {
		return err
	}
	os := new(corev1.PodOS)
	p.pod.Spec.OS = os
	return p.object(func(name string) error {
		if name != "name" {
			return p.skip()
		}
		return p.set((*string)(&os.Name), "spec.os.name", maxName)
	})
}

// nodeSelector keeps the labels of nodes that inject.Patch uses.
func (p *podReader) nodeSelector() error {
	return p.object(func(name string) error {
		if !inject.UsesNodeLabel(name) {
			return p.skip()
		}
		value, err := p.string("spec.nodeSelector", maxLabel)
		p.pod.Spec.NodeSelector = map[string]string{name: value}
		return err
	})
}

// affinity keeps the required terms with the labels of nodes that inject.Patch uses.
func (p *podReader) affinity() error {
	const required = "requiredDuringSchedulingIgnoredDuringExecution"
	var terms []corev1.NodeSelectorTerm
	err := p.field("nodeAffinity", func() error {
		return p.field(required, func() error {
			return p.field("nodeSelectorTerms", func() error {
				terms = nil
				return p.array(func() error {
					terms = append(terms, corev1.NodeSelectorTerm{})
					if err := count(&p.nTerms, maxTerms, "terms of node affinity"); err != nil {
						return err
					}
					return p.field("matchExpressions", func() error { return p.requirements(&terms[len(terms)-1]) })
				})
			})
		})
	})
	if len(terms) > 0 {
		p.pod.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: terms},
		}}
	}
	return err
}

// requirements keeps those with a label that inject.Patch uses.
func (p *podReader) requirements(term *corev1.NodeSelectorTerm) error {
	term.MatchExpressions = nil
	return p.array(func() error {
		var r corev1.NodeSelectorRequirement
		err := p.object(func(name string) error {
			switch name {
			case "key":
				return p.set(&r.Key, "the key of a node affinity", maxKey)
			case "operator":
				return p.set((*string)(&r.Operator), "the operator of a node affinity", maxLabel)
			case "values":
				r.Values = nil
				return p.array(func() error {
					value, err := p.string("a value of a node affinity", maxLabel)
					if len(r.Values) < 2 { // one, or others too
						r.Values = append(r.Values, value)
					}
					return err
				})
			}
			return p.skip()
		})
		if err != nil || !inject.UsesNodeLabel(r.Key) {
			return err
		}
		if err := count(&p.nTerms, maxTerms, "terms of node affinity"); err != nil {
			return err
		}
		term.MatchExpressions = append(term.MatchExpressions, r)
		return nil
	})
}

// field reads the value of one field of an object.
func (p *podReader) field(name string, read func() error) error {
	return p.object(func(found string) error {
		if found != name {
			return p.skip()
		}
		return read()
	})
}

func (p *podReader) volume() error {
	if err := count(&p.nVolumes, maxVolumes, "volumes"); err != nil {
		return err
	}
	name, err := p.nameOf("the name of a volume")
	list := &p.pod.Spec.Volumes
	if err != nil || len(*list) > 0 && !inject.ReservedVolume(name) {
		return err
	}
	if err := count(&p.nOurs, maxOurs, ofOurs); err != nil {
		return err
	}
	*list = append(*list, corev1.Volume{Name: name})
	return nil
}

// nameOf reads an object of which only the name is used.
func (p *podReader) nameOf(what string) (value string, err error) {
	err = p.object(func(name string) error {
		if name != "name" {
			return p.skip()
		}
		return p.set(&value, what, maxLabel)
	})
	return value, err
}

func (p *podReader) podSecurity() error {
	if null, err := p.null(); null || err != nil {
		return err
	}
	security := new(corev1.PodSecurityContext)
	p.pod.Spec.SecurityContext = security
	return p.object(func(name string) error {
		switch name {
		case "fsGroup":
			return optional(p, p.int64, &security.FSGroup)
		case "runAsUser":
			return optional(p, p.int64, &security.RunAsUser)
		case "supplementalGroups":
			security.SupplementalGroups = nil
			return p.array(func() error {
				if err := count(&p.nGroups, maxGroups, "supplemental groups"); err != nil {
					return err
				}
				group, err := p.int64()
				security.SupplementalGroups = append(security.SupplementalGroups, group)
				return err
			})
		}
		return p.skip()
	})
}

func (p *podReader) containerList(into *[]container) error {
	*into = nil
	return p.array(func() error {
		if err := count(&p.nContainers, maxContainers, "containers"); err != nil {
			return err
		}
		var c container
		err := p.object(func(name string) error { return p.container(&c, name) })
		*into = append(*into, c)
		return err
	})
}

func (p *podReader) container(c *container, name string) error {
	switch name {
	case "name":
		return p.set(&c.name, "the name of a container", maxLabel)
	case "ports":
		c.ports = nil
		return p.array(func() error { return p.port(c) })
	case "restartPolicy":
		var policy string
		err := p.set(&policy, "the restartPolicy of a container", maxLabel)
		c.native = policy == string(corev1.ContainerRestartPolicyAlways)
		return err
	case "startupProbe", "livenessProbe", "readinessProbe":
		return p.probe(c)
	case "resources":
		return p.resources(c)
	case "volumeMounts":
		c.mounts, c.hasMounts = nil, false
		return p.array(func() error { return p.mount(c) })
	case "securityContext":
		c.hasUser = false
		return p.object(func(name string) error {
			if name != "runAsUser" {
				return p.skip()
			}
			var user *int64
			if err := optional(p, p.int64, &user); err != nil || user == nil {
				return err
			}
			c.user, c.hasUser = *user, true
			return nil
		})
	}
	return p.skip()
}

// port keeps a port of TCP, which is the default.
func (p *podReader) port(c *container) error {
	if err := count(&p.nPorts, maxPorts, "ports"); err != nil {
		return err
	}
	var number int64
	var protocol string
	err := p.object(func(name string) (err error) {
		switch name {
		case "containerPort":
			number, err = p.integer(32)
			return err
		case "protocol":
			return p.set(&protocol, "the protocol of a port", maxLabel)
		}
		return p.skip()
	})
	if protocol == "" || protocol == string(corev1.ProtocolTCP) {
		c.ports = append(c.ports, int32(number))
	}
	return err
}

// probe reads the port of each kind of probe, unless it is that of another host, or a name.
func (p *podReader) probe(c *container) error {
	return p.object(func(kind string) error {
		if kind != "httpGet" && kind != "tcpSocket" && kind != "grpc" {
			return p.skip()
		}
		c.httpProbe = c.httpProbe || kind == "httpGet"
		if err := count(&p.nPorts, maxPorts, "ports"); err != nil {
			return err
		}
		var number *int64
		elsewhere := false
		err := p.object(func(name string) error {
			b, err := p.peek()
			switch {
			case err != nil:
				return err
			case name == "port" && b != '"':
				return optional(p, func() (int64, error) { return p.integer(32) }, &number)
			case name == "host":
				var host string
				err := p.set(&host, "the host of a probe", maxPath)
				elsewhere = host != ""
				return err
			}
			return p.skip()
		})
		if number != nil && !elsewhere {
			c.probed = append(c.probed, int32(*number))
		}
		return err
	})
}

func (p *podReader) mount(c *container) error {
	if err := count(&p.nMounts, maxMounts, "volume mounts"); err != nil {
		return err
	}
	c.hasMounts = true
	var read corev1.VolumeMount
	err := p.object(func(name string) (err error) {
		switch name {
		case "name":
			return p.set(&read.Name, "the volume of a mount", maxLabel)
		case "mountPath":
			return p.set(&read.MountPath, "a mountPath", maxPath)
		case "readOnly":
			read.ReadOnly, err = p.bool()
			return err
		}
		return p.skip()
	})
	if err != nil || !inject.UsesMount(read) {
		return err
	}
	c.mounts = append(c.mounts, mount{read.Name, path.Clean(read.MountPath) == inject.SocketDir, read.ReadOnly})
	return count(&p.nOurs, maxOurs, ofOurs)
}

// exact are the resources of a container whose limits equal its requests. They are shared, because inject.Patch compares
// limits and requests, and does not use their values.
var exact = func() corev1.ResourceRequirements {
	one := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("1")}
	return corev1.ResourceRequirements{Limits: one, Requests: one}
}()

// amounts are the limits or requests of a container for CPU and memory.
type amounts struct{ cpu, memory *resource.Quantity }

// list returns the amounts that there are.
func (a amounts) list() corev1.ResourceList {
	list := corev1.ResourceList{}
	if a.cpu != nil {
		list[corev1.ResourceCPU] = *a.cpu
	}
	if a.memory != nil {
		list[corev1.ResourceMemory] = *a.memory
	}
	return list
}

// podResources reads the resources of the whole pod.
func (p *podReader) podResources() error {
	p.pod.Spec.Resources = nil
	limits, requests, err := p.limitsAndRequests()
	if limits != (amounts{}) || requests != (amounts{}) {
		p.pod.Spec.Resources = &corev1.ResourceRequirements{Limits: limits.list(), Requests: requests.list()}
	}
	return err
}

func (p *podReader) limitsAndRequests() (limits, requests amounts, err error) {
	err = p.object(func(name string) error {
		switch name {
		case "limits":
			limits = amounts{}
			return p.amounts(&limits)
		case "requests":
			requests = amounts{}
			return p.amounts(&requests)
		}
		return p.skip()
	})
	return limits, requests, err
}

// resources compares the limits of a container with its requests.
func (p *podReader) resources(c *container) error {
	limits, requests, err := p.limitsAndRequests()
	c.exact = equal(limits.cpu, requests.cpu) && equal(limits.memory, requests.memory)
	return err
}

// equal reports whether a limit equals the request, which is that of the limit by default.
func equal(limit, request *resource.Quantity) bool {
	return limit != nil && (request == nil || request.Cmp(*limit) == 0)
}

func (p *podReader) amounts(a *amounts) error {
	return p.object(func(name string) error {
		switch name {
		case "cpu":
			return p.quantity(&a.cpu)
		case "memory":
			return p.quantity(&a.memory)
		}
		return p.skip()
	})
}

// quantity reads a quantity, which may be a string or a number.
func (p *podReader) quantity(into **resource.Quantity) error {
	b, err := p.peek()
	if err != nil {
		return err
	}
	var text string
	switch b {
	case '"':
		text, err = p.string("a quantity", maxNumber)
	case 'n':
		_, err = p.null()
		return err
	default:
		err = p.number()
		text = string(p.text)
	}
	if err != nil {
		return err
	}
	q, err := inject.ParseQuantity(text)
	if err != nil {
		return rejectf("resources: %v", err)
	}
	*into = &q
	return nil
}
