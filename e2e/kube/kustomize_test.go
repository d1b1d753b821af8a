package kube

import (
	"testing"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func TestKustomizeBuilds(t *testing.T) {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), "../../deploy/kustomize")
	if err != nil {
		t.Fatal(err)
	}
	if want := len(render(t)) + 1; built.Size() != want { // and the namespace
		t.Errorf("%d objects, want %d", built.Size(), want)
	}
}
