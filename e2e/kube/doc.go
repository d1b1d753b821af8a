// Package kube tests Ringside against a real kube-apiserver: the chart applies, the API server returns pods with the sidecar,
// and the injected container runs as the API server describes it. There is no kubelet: the tests do its work with runc and
// the security profile of containerd.
package kube
