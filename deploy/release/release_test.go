package main

import (
	"bufio"
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

// make makes a release of a folder in a new folder, and returns it. Pinned tools and all modules must be available.
func makeRelease(t *testing.T, source string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "dist")
	var log bytes.Buffer
	args := []string{"-root", source, "-out", out, "-version", "0.0.1", "-dry-run", "-platforms", "linux/amd64,linux/arm64"}
	if err := run(t.Context(), args, &log); err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	return out
}

// commit copies the repository, with its uncommitted changes, to a new folder and commits it there. The commit is the same each time.
func commit(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "repository")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		name, _ := filepath.Rel(root, path) // it is below root
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (strings.HasPrefix(name, ".") && name != "." || entry.Name() == "node_modules" || name == "dist"):
			return filepath.SkipDir
		case entry.IsDir():
			return os.MkdirAll(filepath.Join(dir, name), 0o755)
		case entry.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			return errors.Join(err, os.Symlink(target, filepath.Join(dir, name)))
		case !entry.Type().IsRegular(), name == ".git":
			return nil
		}
		stat, err := entry.Info()
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		return errors.Join(err, os.WriteFile(filepath.Join(dir, name), text, stat.Mode().Perm()))
	})
	if err != nil {
		t.Fatal(err)
	}
	git(t, dir, "init", "--quiet")
	git(t, dir, "add", "--all")
	git(t, dir, "commit", "--quiet", "--message", "x")
	return dir
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@b"}, args...)...)
	const date = "2026-01-01T00:00:00Z"
	cmd.Env = append(os.Environ(), "GIT_AUTHOR_DATE="+date, "GIT_COMMITTER_DATE="+date)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", args[0], err, out)
	}
	return strings.TrimSpace(string(out))
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		list = append(list, entry.Name())
	}
	return list
}

// A release of the same commit in another folder has the same bytes.
func TestRelease(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the programs for two platforms: make test runs it")
	}
	committed, again := commit(t), commit(t)
	dist := makeRelease(t, committed)
	t.Run("files", func(t *testing.T) { checkFiles(t, dist) })
	t.Run("checksums", func(t *testing.T) { checkSums(t, dist) })
	t.Run("provenance", func(t *testing.T) { checkProvenance(t, dist, committed) })
	for _, program := range []string{
		"ringside-0.0.1-linux-amd64", "ringside-0.0.1-linux-arm64", "ringside-injector-0.0.1-linux-amd64", "ringside-injector-0.0.1-linux-arm64",
	} {
		t.Run("SBOM of "+program, func(t *testing.T) { checkSBOM(t, filepath.Join(dist, program)) })
	}
	t.Run("notices", func(t *testing.T) { checkNotices(t, dist) })
	for _, program := range []string{"ringside", "ringside-injector"} {
		t.Run("image of "+program, func(t *testing.T) { checkImage(t, dist, program) })
	}
	t.Run("chart", func(t *testing.T) { checkChart(t, dist) })
	t.Run("reproducible", func(t *testing.T) {
		second := makeRelease(t, again)
		for _, name := range names(t, dist) {
			if strings.HasSuffix(name, "-govulncheck.txt") {
				continue // depends on the day
			}
			first, other := read(t, filepath.Join(dist, name)), read(t, filepath.Join(second, name))
			if !bytes.Equal(first, other) {
				t.Errorf("%s differs between two folders", name)
			}
		}
	})
}

func checkFiles(t *testing.T, dist string) {
	want := []string{
		"SHA256SUMS", "ringside-0.0.1-NOTICES.txt", "ringside-0.0.1-govulncheck.txt", "ringside-0.0.1-image.tar", "ringside-0.0.1-linux-amd64", "ringside-0.0.1-linux-amd64.cdx.json",
		"ringside-0.0.1-linux-arm64", "ringside-0.0.1-linux-arm64.cdx.json", "ringside-0.0.1-source.tar.gz", "ringside-0.0.1.intoto.json",
		"ringside-chart-0.0.1-oci.tar", "ringside-chart-0.0.1.tgz",
		"ringside-injector-0.0.1-NOTICES.txt", "ringside-injector-0.0.1-image.tar", "ringside-injector-0.0.1-linux-amd64", "ringside-injector-0.0.1-linux-amd64.cdx.json",
		"ringside-injector-0.0.1-linux-arm64", "ringside-injector-0.0.1-linux-arm64.cdx.json",
	}
	if got := names(t, dist); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

func checkSums(t *testing.T, dist string) {
	sums := map[string]string{}
	for scanner := bufio.NewScanner(bytes.NewReader(read(t, filepath.Join(dist, "SHA256SUMS")))); scanner.Scan(); {
		sum, name, _ := strings.Cut(scanner.Text(), "  ")
		sums[name] = sum
	}
	for _, name := range names(t, dist) {
		if name == "SHA256SUMS" || strings.HasSuffix(name, ".intoto.json") || strings.HasSuffix(name, "-govulncheck.txt") {
			continue // the provenance has the sums of the others
		}
		if want, err := checksum(filepath.Join(dist, name)); err != nil || sums[name] != want {
			t.Errorf("SHA256SUMS has %q for %s (%v), want %s", sums[name], name, err, want)
		}
	}
}

func checkProvenance(t *testing.T, dist, source string) {
	var s statement
	if err := json.Unmarshal(read(t, filepath.Join(dist, "ringside-0.0.1.intoto.json")), &s); err != nil {
		t.Fatal(err)
	}
	head := git(t, source, "rev-parse", "HEAD")
	if s.Type != "https://in-toto.io/Statement/v1" || s.PredicateType != "https://slsa.dev/provenance/v1" {
		t.Errorf("types %s, %s", s.Type, s.PredicateType)
	}
	dependencies := s.Predicate.BuildDefinition.ResolvedDependencies
	if len(dependencies) != 2 || dependencies[0].Digest["gitCommit"] != head || len(dependencies[1].Digest["sha256"]) != 64 {
		t.Errorf("got the dependencies %v, want the commit %s and an image with its digest", dependencies, head)
	}
	subjects := map[string]string{}
	for _, subject := range s.Subject {
		subjects[subject.Name] = subject.Digest["sha256"]
	}
	for _, name := range []string{"ringside-0.0.1-linux-amd64", "ringside-0.0.1-linux-amd64.cdx.json", "ringside-0.0.1-source.tar.gz"} {
		if want, err := checksum(filepath.Join(dist, name)); err != nil || subjects[name] != want {
			t.Errorf("the provenance has %q for %s (%v), want %s", subjects[name], name, err, want)
		}
	}
}

// checkSBOM compares the SBOM with the modules that the linker recorded in the program.
func checkSBOM(t *testing.T, program string) {
	var bom struct {
		BOMFormat, SpecVersion string
		Metadata               struct {
			Component struct{ Name, Version string }
		}
		Components []struct{ Name, Version, PURL string }
	}
	if err := json.Unmarshal(read(t, program+".cdx.json"), &bom); err != nil {
		t.Fatal(err)
	}
	if bom.BOMFormat != "CycloneDX" || bom.SpecVersion == "" || bom.Metadata.Component.Version != "v0.0.1" {
		t.Errorf("format %s %s of version %s", bom.BOMFormat, bom.SpecVersion, bom.Metadata.Component.Version)
	}
	got := map[string]string{}
	for _, c := range bom.Components {
		got[c.Name] = c.Version
		if !strings.HasPrefix(c.PURL, "pkg:golang/") {
			t.Errorf("%s has the package URL %q", c.Name, c.PURL)
		}
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if len(info.Deps) < 20 {
		t.Fatalf("invalid run: %s has %d modules", program, len(info.Deps))
	}
	for _, m := range info.Deps {
		if got[m.Path] != m.Version {
			t.Errorf("the SBOM has %s in version %q, want %s", m.Path, got[m.Path], m.Version)
		}
	}
	if got["std"] == "" || len(got) != len(info.Deps)+1 {
		t.Errorf("the SBOM has %d components and Go %q, want %d and the standard library", len(got), got["std"], len(info.Deps)+1)
	}
}

func checkNotices(t *testing.T, dist string) {
	for _, program := range []string{"ringside", "ringside-injector"} {
		text := string(read(t, filepath.Join(dist, program+"-0.0.1-NOTICES.txt")))
		list, err := modules(filepath.Join(dist, program+"-0.0.1-linux-amd64"))
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range list {
			_, section, found := strings.Cut(text, "\n==== "+m.Path+" "+m.Version+"\n")
			section, _, _ = strings.Cut(section, "\n==== ")
			if !found || len(section) < 200 {
				t.Errorf("%s: module %d, %s, has a notice of %d bytes", program, i, m.Path, len(section))
			}
		}
	}
}

func TestBaseImages(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("0", 64)
	for text, want := range map[string]string{
		"FROM golang:1.2.3-x" + digest + " AS build\nFROM scratch\nFROM build":   "",
		"FROM golang:1.2.3-x AS build":                                           "FROM golang:1.2.3-x: want a digest",
		"from --platform=$BUILDPLATFORM golang:1.2.3-x\n":                        "want a digest",
		"FROM golang" + digest:                                                   "want a digest",
		"FROM golang:1.2.3-x@sha256:00":                                          "want a digest",
		"FROM a:1" + digest + " AS x\nFROM y AS z":                               "FROM y: want a digest",
		"ARG I=a:1\nFROM ${I}":                                                   "want a digest",
		"FROM b:2" + digest + "\n# FROM c:3\nFROM a:1" + digest + " AS scratch2": "",
	} {
		images, err := baseImages(text)
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, %v; want %q", text, images, err, want)
		}
	}
}

// Each base image of the repository has a digest.
func TestDockerfilesArePinned(t *testing.T) {
	checked := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (strings.HasPrefix(entry.Name(), ".") && path != root || entry.Name() == "node_modules"):
			return filepath.SkipDir
		case entry.IsDir(), !strings.Contains(entry.Name(), "Dockerfile"), strings.HasSuffix(path, "ignore"):
			return nil
		}
		checked++
		if _, err := baseImages(string(read(t, path))); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if checked == 0 {
		t.Error("invalid run: no Dockerfile")
	}
}

func TestReleaseIsRefused(t *testing.T) {
	dirty := t.TempDir()
	git(t, dirty, "init", "--quiet")
	git(t, dirty, "commit", "--quiet", "--allow-empty", "--message", "x")
	if err := os.MkdirAll(filepath.Join(dirty, "deploy"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dirty, "deploy/Dockerfile"), []byte("FROM golang:1.2.3-x AS build\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := run(context.Background(), []string{"-root", dirty, "-out", full, "-version", "latest"}, io.Discard)
	for _, want := range []string{
		`version "latest": want one such as 1.2.3`, "is not empty", "uncommitted changes", "has no tag vlatest", "FROM golang:1.2.3-x: want a digest",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got the error %v, want also %q", err, want)
		}
	}
}
