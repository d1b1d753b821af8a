package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"sigs.k8s.io/yaml"
)

// archive is an OCI image layout in a tar file.
type archive struct {
	out         string
	annotations map[string]string
	created     time.Time
}

// image writes an image for each PLATFORM=DIR, where DIR has the root filesystem.
func (a archive) image(config v1.Config, platforms []string) error {
	var index v1.ImageIndex = mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, one := range platforms {
		name, dir, _ := strings.Cut(one, "=")
		platform, err := v1.ParsePlatform(name)
		if err != nil {
			return err
		}
		image, err := a.platform(config, platform, dir)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
	}
	index = mutate.Annotations(index, a.annotations).(v1.ImageIndex)
	return a.write(func(to layout.Path) (v1.Descriptor, error) {
		described, err := partial.Descriptor(index)
		if err != nil {
			return v1.Descriptor{}, err
		}
		return *described, to.WriteIndex(index)
	})
}

func (a archive) platform(config v1.Config, platform *v1.Platform, dir string) (v1.Image, error) {
	var files bytes.Buffer
	if err := writeTar(&files, dir, a.created); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	config.Labels = a.annotations
	image, err := mutate.ConfigFile(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON),
		&v1.ConfigFile{OS: platform.OS, Architecture: platform.Architecture, Variant: platform.Variant, Config: config,
			Created: v1.Time{Time: a.created}, RootFS: v1.RootFS{Type: "layers"}})
	if err != nil {
		return nil, err
	}
	image, err = mutate.Append(image, mutate.Addendum{Layer: layer, History: v1.History{
		Created: v1.Time{Time: a.created}, CreatedBy: "deploy/release"}})
	if err != nil {
		return nil, err
	}
	return mutate.Annotations(image, a.annotations).(v1.Image), nil
}

// The media types of Helm's charts in registries.
const (
	chartConfig types.MediaType = "application/vnd.cncf.helm.config.v1+json"
	chartLayer  types.MediaType = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
)

// chart writes a manifest whose config is Chart.yaml and whose only layer is the packed chart.
func (a archive) chart(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	metadata, err := chartMetadata(text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return a.write(func(to layout.Path) (v1.Descriptor, error) {
		config, err := writeBlob(to, chartConfig, metadata)
		if err != nil {
			return config, err
		}
		layer, err := writeBlob(to, chartLayer, text)
		if err != nil {
			return layer, err
		}
		manifest, err := json.Marshal(v1.Manifest{SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: config,
			Layers: []v1.Descriptor{layer}, Annotations: a.annotations})
		if err != nil {
			return layer, err
		}
		return writeBlob(to, types.OCIManifestSchema1, manifest)
	})
}

func writeBlob(to layout.Path, kind types.MediaType, text []byte) (v1.Descriptor, error) {
	digest, size, err := v1.SHA256(bytes.NewReader(text))
	if err != nil {
		return v1.Descriptor{}, err
	}
	return v1.Descriptor{MediaType: kind, Size: size, Digest: digest}, to.WriteBlob(digest, io.NopCloser(bytes.NewReader(text)))
}

// chartMetadata returns Chart.yaml of a packed chart as JSON.
func chartMetadata(packed []byte) ([]byte, error) {
	plain, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	for files := tar.NewReader(plain); ; {
		header, err := files.Next()
		if err != nil {
			return nil, fmt.Errorf("find Chart.yaml: %w", err)
		}
		if folder, name := filepath.Split(header.Name); name == "Chart.yaml" && strings.Count(folder, "/") == 1 {
			text, err := io.ReadAll(files)
			if err != nil {
				return nil, err
			}
			return yaml.YAMLToJSON(text)
		}
	}
}

// refName is the annotation that names what an archive has.
const refName = "org.opencontainers.image.ref.name"

// write makes the archive of what put writes and describes, and prints its digest.
func (a archive) write(put func(to layout.Path) (v1.Descriptor, error)) error {
	dir, err := os.MkdirTemp("", "oci-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	to, err := layout.Write(dir, mutate.IndexMediaType(empty.Index, types.OCIImageIndex))
	if err != nil {
		return err
	}
	described, err := put(to)
	if err != nil {
		return err
	}
	described.Annotations = map[string]string{refName: a.annotations["org.opencontainers.image.version"]}
	if err := to.AppendDescriptor(described); err != nil {
		return err
	}
	file, err := os.Create(a.out)
	if err != nil {
		return err
	}
	if err := errors.Join(writeTar(file, dir, a.created), file.Close()); err != nil {
		return err
	}
	fmt.Println(described.Digest)
	return nil
}

// writeTar writes the files of a folder, in the order of their names and with the same time and owner.
func writeTar(to io.Writer, dir string, at time.Time) error {
	archive := tar.NewWriter(to)
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, path) // it is below dir
		if err != nil || name == "." {
			return err
		}
		stat, err := entry.Info()
		if err != nil {
			return err
		}
		header := &tar.Header{Name: filepath.ToSlash(name), ModTime: at, Mode: 0o644, Typeflag: tar.TypeReg, Size: stat.Size()}
		if stat.IsDir() {
			header.Name, header.Mode, header.Typeflag, header.Size = header.Name+"/", 0o755, tar.TypeDir, 0
		} else if stat.Mode()&0o100 != 0 {
			header.Mode = 0o755
		}
		if err := archive.WriteHeader(header); err != nil || stat.IsDir() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(archive, file)
		return err
	})
	return errors.Join(err, archive.Close())
}
