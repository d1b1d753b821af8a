package kube

import (
	"strings"
	"testing"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func kustomize(t *testing.T, files filesys.FileSystem, dir string) resmap.ResMap {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, dir)
	if err != nil {
		t.Fatal(err)
	}
	return built
}

func TestKustomizeBuilds(t *testing.T) {
	built := kustomize(t, filesys.MakeFsOnDisk(), "../../deploy/kustomize")
	if want := len(render(t)) + 1; built.Size() != want { // and the namespace
		t.Errorf("%d objects, want %d", built.Size(), want)
	}
}

// An overlay with namespace: moves everything, also what is not a field with a namespace of Kubernetes.
func TestKustomizeOverlayMovesEverything(t *testing.T) {
	files, disk := filesys.MakeFsInMemory(), filesys.MakeFsOnDisk()
	for _, name := range []string{"kustomization.yaml", "namespace.yaml", "ringside.yaml"} {
		text, err := disk.ReadFile("../../deploy/kustomize/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := files.WriteFile("/base/"+name, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := files.WriteFile("/overlay/kustomization.yaml", []byte("namespace: moved\nresources: [../base]\n")); err != nil {
		t.Fatal(err)
	}
	text, err := kustomize(t, files, "/overlay").AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	moved := 0
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "namespace: moved" || line == "name: moved" {
			moved++
		}
		if strings.HasSuffix(line, ": "+home) && !strings.HasPrefix(line, "app.kubernetes.io/") && !strings.HasPrefix(line, "config:") || strings.Contains(line, "."+home+".svc") {
			t.Errorf("the overlay leaves %q", line)
		}
	}
	if moved < 10 {
		t.Errorf("%d names of the namespace, want at least 10", moved)
	}
}
