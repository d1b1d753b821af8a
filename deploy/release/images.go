package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// images writes the image of each program, for all platforms, as an OCI archive. Their content is that of the Dockerfile's images:
// the settings of its last stages, and what rootfs.sh makes.
func (r *release) images(ctx context.Context) error {
	work, err := os.MkdirTemp("", "release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	dockerfile, err := os.ReadFile(filepath.Join(r.root, "deploy/Dockerfile"))
	if err != nil {
		return err
	}
	for _, platform := range r.platforms {
		_, arch, _ := strings.Cut(platform, "/")
		if _, err := r.oci(ctx, "debian", arch, filepath.Join(work, "debian", arch)); err != nil {
			return err
		}
	}
	for _, program := range programs {
		if err := r.containerImage(ctx, path.Base(program), string(dockerfile), work); err != nil {
			return fmt.Errorf("image of %s: %w", path.Base(program), err)
		}
	}
	return nil
}

func (r *release) containerImage(ctx context.Context, name, dockerfile, work string) error {
	fmt.Fprintln(r.log, "making the image of", name)
	settings, err := stageOf(dockerfile, name)
	if err != nil {
		return err
	}
	config, err := json.Marshal(settings)
	if err != nil {
		return err
	}
	user, _, _ := strings.Cut(settings.User, ":")
	file := fmt.Sprintf("%s-%s-image.tar", name, r.version)
	args := append([]string{"image", "-config", string(config), "-out", filepath.Join(r.out, file)}, r.annotations(name)...)
	for _, platform := range r.platforms {
		_, arch, _ := strings.Cut(platform, "/")
		root := filepath.Join(work, name, arch)
		_, err := r.command(ctx, []string{"DEBIAN=" + filepath.Join(work, "debian", arch)}, "deploy/rootfs.sh", root,
			filepath.Join(r.out, fmt.Sprintf("%s-%s-%s", name, r.version, strings.ReplaceAll(platform, "/", "-"))), user,
			filepath.Join(r.out, fmt.Sprintf("%s-%s-NOTICES.txt", name, r.version)))
		if err != nil {
			return err
		}
		// The name of the program in an image has no version.
		if err := os.Rename(filepath.Join(root, r.binary(name, platform)), filepath.Join(root, name)); err != nil {
			return err
		}
		args = append(args, platform+"="+root)
	}
	digest, err := r.oci(ctx, args...)
	r.files = append(r.files, file)
	r.digests[name] = digest
	return err
}

// stage has the settings of an image, in the form of OCI.
type stage struct {
	User         string
	ExposedPorts map[string]struct{}
	Entrypoint   []string
	Cmd          []string
}

var instruction = regexp.MustCompile(`(?m)^(USER|EXPOSE|ENTRYPOINT|CMD) (.+)$`)

// stageOf returns the settings of the stage of a Dockerfile that has a name.
func stageOf(dockerfile, name string) (stage, error) {
	s := stage{ExposedPorts: map[string]struct{}{}}
	_, text, found := strings.Cut(dockerfile, "\nFROM scratch AS "+name+"\n")
	text, _, _ = strings.Cut(text, "\nFROM ")
	var wrong []error
	for _, match := range instruction.FindAllStringSubmatch(text, -1) {
		switch value := match[2]; match[1] {
		case "USER":
			s.User = value
		case "EXPOSE":
			for _, port := range strings.Fields(value) {
				s.ExposedPorts[port+"/tcp"] = struct{}{}
			}
		case "ENTRYPOINT":
			wrong = append(wrong, json.Unmarshal([]byte(value), &s.Entrypoint))
		case "CMD":
			wrong = append(wrong, json.Unmarshal([]byte(value), &s.Cmd))
		}
	}
	if err := errors.Join(wrong...); err != nil || !found || s.User == "" || len(s.Entrypoint) == 0 {
		return s, errors.Join(err, fmt.Errorf("deploy/Dockerfile: want a stage %s from scratch with USER and ENTRYPOINT", name))
	}
	return s, nil
}

// annotations are flags of oci.
func (r *release) annotations(title string) []string {
	flags := []string{"-created", fmt.Sprint(r.committed)}
	for key, value := range map[string]string{
		"title": title, "version": r.version, "revision": r.commit, "source": repository, "licenses": "Apache-2.0",
		"created": time.Unix(r.committed, 0).UTC().Format(time.RFC3339),
	} {
		flags = append(flags, "-annotation", "org.opencontainers.image."+key+"="+value)
	}
	return flags
}

// oci runs the tool of that name and returns what it printed.
func (r *release) oci(ctx context.Context, args ...string) (string, error) {
	out, err := r.command(ctx, []string{"GOFLAGS=", "GOWORK=off"}, "go", append([]string{"-C", tools, "run", "./oci"}, args...)...)
	return strings.TrimSpace(string(out)), err
}

// chart writes the chart of this version, whose values have the digests of the images: packed, for `helm install FILE`, and as an
// OCI archive, for registries.
func (r *release) chart(ctx context.Context) error {
	packed := fmt.Sprintf("ringside-chart-%s.tgz", r.version)
	text, err := r.packChart()
	if err == nil {
		err = r.write(packed, text)
	}
	if err != nil {
		return err
	}
	file := fmt.Sprintf("ringside-chart-%s-oci.tar", r.version)
	args := append([]string{"chart", "-out", filepath.Join(r.out, file)}, r.annotations("ringside")...)
	_, err = r.oci(ctx, append(args, filepath.Join(r.out, packed))...)
	r.files = append(r.files, file)
	return err
}

func (r *release) packChart() ([]byte, error) {
	var packed bytes.Buffer
	compressed := gzip.NewWriter(&packed)
	files := tar.NewWriter(compressed)
	dir := filepath.Join(r.root, "deploy/chart")
	err := filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, _ := filepath.Rel(dir, file) // it is below dir
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		switch name {
		case "Chart.yaml":
			text = chartVersions.ReplaceAll(text, []byte("${1}"+r.version))
		case "values.yaml":
			text, err = r.withDigests(text)
		}
		header := &tar.Header{Name: "ringside/" + filepath.ToSlash(name), Mode: 0o644, Size: int64(len(text)), ModTime: time.Unix(r.committed, 0)}
		err = errors.Join(err, files.WriteHeader(header))
		_, writeErr := files.Write(text)
		return errors.Join(err, writeErr)
	})
	err = errors.Join(err, files.Close(), compressed.Close())
	return packed.Bytes(), err
}

var chartVersions = regexp.MustCompile(`(?m)^((?:version|appVersion): ).*$`)

// withDigests sets the digest of each image in the values of the chart.
func (r *release) withDigests(values []byte) ([]byte, error) {
	for name, digest := range r.digests {
		image := regexp.MustCompile(`(repository: \S+/` + name + `\n(?:\s+(?:#.*|\w+: .*)\n)*?\s+digest: )""`)
		if found := len(image.FindAll(values, -1)); found != 1 {
			return nil, fmt.Errorf("deploy/chart/values.yaml has %d images %s with an empty digest, want one", found, name)
		}
		values = image.ReplaceAll(values, []byte(`${1}"`+digest+`"`))
	}
	return values, nil
}
