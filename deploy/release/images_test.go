package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// blobs is an OCI archive: its files by their names.
type blobs map[string][]byte

func untar(t *testing.T, text []byte) blobs {
	t.Helper()
	files := blobs{}
	for in := tar.NewReader(bytes.NewReader(text)); ; {
		header, err := in.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		if files[header.Name], err = io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
	}
}

func gunzip(t *testing.T, text []byte) []byte {
	t.Helper()
	plain, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(plain)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// described is a reference to a blob. See the OCI image specification, Content Descriptors.
type described struct {
	MediaType, Digest string
	Size              int
	Platform          struct{ Architecture, OS string }
}

type manifest struct {
	Manifests, Layers []described
	Config            described
	Annotations       map[string]string
}

// of returns a blob whose digest and size are right.
func (b blobs) of(t *testing.T, d described) []byte {
	t.Helper()
	algorithm, sum, _ := strings.Cut(d.Digest, ":")
	text := b["blobs/"+algorithm+"/"+sum]
	if got := sha256.Sum256(text); hex.EncodeToString(got[:]) != sum || len(text) != d.Size {
		t.Fatalf("the blob %s has %d bytes, and the digest %x; want %d", d.Digest, len(text), got, d.Size)
	}
	return text
}

func decode[T any](t *testing.T, text []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%v in %.200s", err, text)
	}
	return v
}

// checkImage reads an archive as a container engine does.
func checkImage(t *testing.T, dist, program string) {
	archive := untar(t, read(t, filepath.Join(dist, program+"-0.0.1-image.tar")))
	top := decode[manifest](t, archive["index.json"])
	if len(top.Manifests) != 1 || !strings.Contains(string(archive["oci-layout"]), `"1.0.0"`) {
		t.Fatalf("index.json has %d images, oci-layout is %s", len(top.Manifests), archive["oci-layout"])
	}
	index := decode[manifest](t, archive.of(t, top.Manifests[0]))
	if index.Annotations["org.opencontainers.image.version"] != "0.0.1" || len(index.Annotations["org.opencontainers.image.revision"]) != 40 {
		t.Errorf("annotations %v", index.Annotations)
	}
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	for _, image := range index.Manifests {
		arch := image.Platform.Architecture
		want := machines[arch]
		delete(machines, arch)
		one := decode[manifest](t, archive.of(t, image))
		checkConfig(t, archive.of(t, one.Config), arch, program)
		if len(one.Layers) != 1 {
			t.Fatalf("%s: %d layers, want 1", arch, len(one.Layers))
		}
		files := untar(t, gunzip(t, archive.of(t, one.Layers[0])))
		if built := read(t, filepath.Join(dist, program+"-0.0.1-linux-"+arch)); !bytes.Equal(files[program], built) {
			t.Errorf("%s: /%s is not the program of the release", arch, program)
		}
		init, err := elf.NewFile(bytes.NewReader(files["sbin/tini"]))
		if err != nil || init.Machine != want || init.Section(".interp") != nil {
			t.Errorf("%s: /sbin/tini: %v, %v; want a static program for %s", arch, init, err, want)
		}
		if n := bytes.Count(files["etc/ssl/certs/ca-certificates.crt"], []byte("-----BEGIN CERTIFICATE-----\n")); n < 100 {
			t.Errorf("%s: %d certificates of public CAs", arch, n)
		}
		if !bytes.Contains(files["NOTICES"], []byte("==== tini (Debian)")) || len(files) != 6 {
			t.Errorf("%s: %d files, want 6, of which one has the notices", arch, len(files))
		}
	}
	if len(machines) > 0 {
		t.Errorf("no image for %v", machines)
	}
}

func checkConfig(t *testing.T, text []byte, arch, program string) {
	t.Helper()
	got := decode[struct {
		Architecture, OS string
		Config           struct {
			stage
			Labels map[string]string
		}
	}](t, text)
	want, err := stageOf(string(read(t, filepath.Join(root, "deploy/Dockerfile"))), program)
	if err != nil || got.Architecture != arch || got.OS != "linux" || !reflect.DeepEqual(got.Config.stage, want) {
		t.Errorf("%s/%s with %+v, want linux/%s with %+v (%v)", got.OS, got.Architecture, got.Config.stage, arch, want, err)
	}
}

// checkChart checks that the chart installs the images of the release, and that its archive has what helm requires.
func checkChart(t *testing.T, dist string) {
	packed := read(t, filepath.Join(dist, "ringside-chart-0.0.1.tgz"))
	files := untar(t, gunzip(t, packed))
	for _, program := range []string{"ringside", "ringside-injector"} {
		index := untar(t, read(t, filepath.Join(dist, program+"-0.0.1-image.tar")))["index.json"]
		digest := decode[manifest](t, index).Manifests[0].Digest
		image := regexp.MustCompile(`/` + program + `\n[^-]*?digest: "` + digest + `"`)
		if !image.Match(files["ringside/values.yaml"]) {
			t.Errorf("the values do not have the digest %s of %s", digest, program)
		}
	}
	if text := string(files["ringside/Chart.yaml"]); !strings.Contains(text, "\nversion: 0.0.1\nappVersion: 0.0.1\n") {
		t.Errorf("Chart.yaml has other versions:\n%s", text)
	}
	archive := untar(t, read(t, filepath.Join(dist, "ringside-chart-0.0.1-oci.tar")))
	chart := decode[manifest](t, archive.of(t, decode[manifest](t, archive["index.json"]).Manifests[0]))
	metadata := decode[map[string]any](t, archive.of(t, chart.Config))
	if chart.Config.MediaType != "application/vnd.cncf.helm.config.v1+json" || metadata["name"] != "ringside" || metadata["version"] != "0.0.1" {
		t.Errorf("config %s: %v", chart.Config.MediaType, metadata)
	}
	if len(chart.Layers) != 1 || chart.Layers[0].MediaType != "application/vnd.cncf.helm.chart.content.v1.tar+gzip" ||
		!bytes.Equal(archive.of(t, chart.Layers[0]), packed) {
		t.Errorf("layers %+v, want the packed chart", chart.Layers)
	}
}
