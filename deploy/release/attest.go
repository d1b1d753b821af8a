package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// tools has the programs of the release, with pinned versions.
const tools = "deploy/release/tools"

func (r *release) tool(ctx context.Context, name string, args ...string) ([]byte, error) {
	return r.command(ctx, []string{"GOFLAGS=", "GOWORK=off"}, "go", append([]string{"-C", tools, "tool", name}, args...)...)
}

// sbom writes the components of each program in the format of CycloneDX. They are those in the program, not those of go.mod.
func (r *release) sbom(ctx context.Context) error {
	for _, platform := range r.platforms {
		for _, program := range programs {
			name := r.binary(program, platform)
			text, err := r.tool(ctx, "cyclonedx-gomod", "bin", "-json", "-std", "-noserial", "-notimestamp",
				"-version", "v"+r.version, filepath.Join(r.out, name))
			if err != nil {
				return err
			}
			if err := r.write(name+".cdx.json", text); err != nil {
				return err
			}
		}
	}
	return nil
}

// foundVulnerabilities is the exit code of govulncheck if it found any that the program calls.
const foundVulnerabilities = 3

// vulnerabilities runs govulncheck. Without its database it writes that it has not run, and why. It runs last, and its report has
// no checksum: it depends on the day, and the rest is equal whenever it is made.
func (r *release) vulnerabilities(ctx context.Context) error {
	var report strings.Builder
	for _, program := range programs {
		name := r.binary(program, r.platforms[0])
		text, err := r.tool(ctx, "govulncheck", "-mode=binary", filepath.Join(r.out, name))
		var exit *exec.ExitError
		switch {
		case errors.As(err, &exit) && exit.ExitCode() == foundVulnerabilities:
			return fmt.Errorf("govulncheck found vulnerabilities in %s; upgrade the modules\n%s", name, text)
		case err != nil:
			fmt.Fprintf(&report, "%s: govulncheck has NOT run: %v\n", name, err)
		default:
			fmt.Fprintf(&report, "%s: %s\n", name, bytes.TrimSpace(text))
		}
	}
	fmt.Fprint(r.log, report.String())
	return r.write(fmt.Sprintf("ringside-%s-govulncheck.txt", r.version), []byte(report.String()))
}

// The types of in-toto's attestation framework (Statement v1) and of SLSA (Provenance v1), of which the release fills the
// required fields.
type (
	statement struct {
		Type          string     `json:"_type"`
		Subject       []resource `json:"subject"`
		PredicateType string     `json:"predicateType"`
		Predicate     predicate  `json:"predicate"`
	}
	resource struct {
		Name   string            `json:"name,omitempty"`
		URI    string            `json:"uri,omitempty"`
		Digest map[string]string `json:"digest,omitempty"`
	}
	predicate struct {
		BuildDefinition buildDefinition `json:"buildDefinition"`
		RunDetails      runDetails      `json:"runDetails"`
	}
	buildDefinition struct {
		BuildType            string         `json:"buildType"`
		ExternalParameters   map[string]any `json:"externalParameters"`
		InternalParameters   map[string]any `json:"internalParameters"`
		ResolvedDependencies []resource     `json:"resolvedDependencies"`
	}
	runDetails struct {
		Builder struct {
			ID string `json:"id"`
		} `json:"builder"`
	}
)

const repository = "https://github.com/ringside-cache/ringside"

// provenance writes the checksums and where the files come from. It is not signed: the publisher of a release signs it.
func (r *release) provenance(context.Context) error {
	slices.Sort(r.files)
	var subjects []resource
	var sums strings.Builder
	for _, name := range r.files {
		sum, err := checksum(filepath.Join(r.out, name))
		if err != nil {
			return err
		}
		subjects = append(subjects, resource{Name: name, Digest: map[string]string{"sha256": sum}})
		fmt.Fprintf(&sums, "%s  %s\n", sum, name)
	}
	base, digest, _ := strings.Cut(r.image, "@sha256:")
	s := statement{
		Type: "https://in-toto.io/Statement/v1", Subject: subjects, PredicateType: "https://slsa.dev/provenance/v1",
		Predicate: predicate{BuildDefinition: buildDefinition{
			BuildType:          repository + "/tree/main/deploy/release",
			ExternalParameters: map[string]any{"version": r.version, "platforms": r.platforms, "dryRun": r.dryRun},
			InternalParameters: map[string]any{"go": runtime.Version(), "settings": settings},
			ResolvedDependencies: []resource{
				{URI: "git+" + repository + "@refs/tags/v" + r.version, Digest: map[string]string{"gitCommit": r.commit}},
				{URI: "pkg:docker/" + base, Digest: map[string]string{"sha256": digest}},
			},
		}},
	}
	s.Predicate.RunDetails.Builder.ID = repository + "/tree/main/deploy/release"
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(
		r.write(fmt.Sprintf("ringside-%s.intoto.json", r.version), append(text, '\n')), r.write("SHA256SUMS", []byte(sums.String())))
}

func checksum(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	_, err = io.Copy(hash, f)
	return hex.EncodeToString(hash.Sum(nil)), err
}
