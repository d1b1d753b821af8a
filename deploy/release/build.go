package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// settings are those on which the bytes of a program depend, besides the source and the version of Go.
var settings = []string{"CGO_ENABLED=0", "GOFLAGS=", "GOEXPERIMENT=", "GOAMD64=v1", "GOARM64=v8.0", "GOWORK=off"}

// build builds the programs. Two builds of one commit have the same bytes, in any folder.
func (r *release) build(ctx context.Context) error {
	for _, platform := range r.platforms {
		system, arch, ok := strings.Cut(platform, "/")
		if !ok {
			return fmt.Errorf("platform %q: want one such as linux/amd64", platform)
		}
		for _, program := range programs {
			name := r.binary(program, platform)
			fmt.Fprintln(r.log, "building", name)
			env := append([]string{"GOOS=" + system, "GOARCH=" + arch}, settings...)
			_, err := r.command(ctx, env, "go", "build", "-trimpath", "-buildvcs=true", "-tags", "grpcnotrace",
				"-ldflags", "-s -w -buildid=", "-o", filepath.Join(r.out, name), "./"+program)
			if err != nil {
				return err
			}
			r.files = append(r.files, name)
		}
	}
	return nil
}

func (r *release) binary(program, platform string) string {
	return fmt.Sprintf("%s-%s-%s", path.Base(program), r.version, strings.ReplaceAll(platform, "/", "-"))
}

// source writes the context from which both images are built: docker build -f deploy/Dockerfile - <FILE. It is that of the
// commit.
func (r *release) source(ctx context.Context) error {
	name := fmt.Sprintf("ringside-%s-source.tar.gz", r.version)
	_, err := r.command(ctx, nil, "git", "archive", "--format=tar.gz", "--output", filepath.Join(r.out, name), "HEAD")
	r.files = append(r.files, name)
	return err
}

var from = regexp.MustCompile(`(?mi)^FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?`)

// baseImages returns the images of a Dockerfile that are not its own stages. Each must have a digest.
func baseImages(text string) (images []string, err error) {
	stages := map[string]bool{"scratch": true}
	var wrong []error
	for _, match := range from.FindAllStringSubmatch(text, -1) {
		image, stage := match[1], match[2]
		switch {
		case stages[image]:
		case pinned.MatchString(image):
			images = append(images, image)
		default:
			wrong = append(wrong, fmt.Errorf("FROM %s: want a digest; `docker buildx imagetools inspect %s` shows it", image, image))
		}
		stages[stage] = true
	}
	return images, errors.Join(wrong...)
}

var (
	pinned = regexp.MustCompile(`^[^@\s]+:[^@\s]+@sha256:[0-9a-f]{64}$`)
	golang = regexp.MustCompile(`^golang:([0-9.]+)-`)
)

// checkImages checks that base images are pinned, and that the images are built with the same Go as the programs.
func (r *release) checkImages(context.Context) error {
	text, err := os.ReadFile(filepath.Join(r.root, "deploy/Dockerfile"))
	if err != nil {
		return err
	}
	images, err := baseImages(string(text))
	if err != nil {
		return fmt.Errorf("deploy/Dockerfile: %w", err)
	}
	if len(images) != 1 || golang.FindStringSubmatch(images[0]) == nil {
		return fmt.Errorf("deploy/Dockerfile has the base images %v, want one of golang", images)
	}
	r.image = images[0]
	if want := "go" + golang.FindStringSubmatch(r.image)[1]; runtime.Version() != want && !r.dryRun {
		return fmt.Errorf("this is %s, and deploy/Dockerfile builds with %s; use the same (GOTOOLCHAIN=%s)", runtime.Version(), want, want)
	}
	return nil
}
