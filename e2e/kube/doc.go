// Package kube tests Ringside against a real kube-apiserver: that the chart applies, that pods come back with the
// sidecar in them, and that the injected container runs as the API server describes it. There is no kubelet: the test
// does what one would do, with runc and the security profile of containerd.
package kube
