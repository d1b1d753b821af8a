package kube

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// operator is the module whose CRDs the chart is checked against.
const operator = "github.com/prometheus-operator/prometheus-operator@v0.85.0"

// testMonitors applies the chart's objects for prometheus-operator. Server-side apply rejects fields that a CRD does not have.
func (c *cluster) testMonitors(t *testing.T) {
	out, err := exec.Command("go", "mod", "download", "-json", operator).Output()
	if err != nil {
		t.Fatalf("download %s: %v\n%s", operator, err, out)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	for _, resource := range []string{"podmonitors", "prometheusrules"} {
		file := filepath.Join(module.Dir, "example/prometheus-operator-crd", "monitoring.coreos.com_"+resource+".yaml")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		c.apply(t, parse(t, text))
	}
	for _, kind := range []string{"PodMonitor", "PrometheusRule"} {
		rig.Eventually(t, startTimeout, func() error {
			c.mapper.Reset()
			_, err := c.mapper.RESTMapping(schema.GroupKind{Group: "monitoring.coreos.com", Kind: kind}, "v1")
			return err
		})
	}
	var monitors []*unstructured.Unstructured
	for _, object := range render(t, everything...) {
		if object.GroupVersionKind().Group == "monitoring.coreos.com" {
			monitors = append(monitors, object)
		}
	}
	if len(monitors) < 3 {
		t.Fatalf("the chart has %d monitors and rules", len(monitors))
	}
	c.apply(t, monitors)
}
