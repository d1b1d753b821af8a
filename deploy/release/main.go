// Command release makes the files of a release: programs for each platform, images, the chart, SBOMs, notices, checksums and
// provenance. It publishes nothing.
//
//	make release VERSION=1.2.3              from a clean work tree, at the tag v1.2.3
//	make release DRY_RUN=1                  from any work tree; the version is that of the chart
//	go run ./deploy/release notices FILE    prints the notices of a program's dependencies
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// programs are the main packages of the images.
var programs = []string{"sidecar/cmd/ringside", "deploy/cmd/ringside-injector"}

// release is one run.
type release struct {
	root, out string   // folders
	version   string   // without v
	platforms []string // such as linux/amd64
	dryRun    bool
	log       io.Writer

	commit, image string // of the source; base image with its digest
	committed     int64  // in seconds since 1970
	files         []string
	digests       map[string]string // of the images, by the name of the program
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) == 2 && args[0] == "notices" {
		return printNotices(ctx, stdout, args[1])
	}
	r := &release{log: stdout, digests: map[string]string{}}
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.StringVar(&r.root, "root", ".", "folder of the repository")
	flags.StringVar(&r.out, "out", "dist", "folder for the files; it must not exist or be empty")
	flags.StringVar(&r.version, "version", "", "version, such as 1.2.3; default: that of the chart")
	flags.BoolVar(&r.dryRun, "dry-run", false, "accept uncommitted changes and a missing tag")
	platforms := flags.String("platforms", "linux/amd64,linux/arm64", "platforms, separated by commas")
	if err := flags.Parse(args); err != nil {
		return err
	}
	r.platforms = strings.Split(*platforms, ",")
	if r.version == "" {
		if err := r.chartVersion(); err != nil {
			return err
		}
	}
	if err := r.check(ctx); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{r.build, r.sbom, r.notices, r.images, r.chart, r.source, r.provenance, r.vulnerabilities} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	fmt.Fprintf(r.log, "wrote %d files to %s\n", len(r.files), r.out)
	return nil
}

var semver = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$`)

var appVersion = regexp.MustCompile(`(?m)^appVersion: "?([^"\s]+)"?$`)

func (r *release) chartVersion() error {
	text, err := os.ReadFile(filepath.Join(r.root, "deploy/chart/Chart.yaml"))
	if err != nil {
		return err
	}
	match := appVersion.FindSubmatch(text)
	if match == nil {
		return errors.New("deploy/chart/Chart.yaml has no appVersion")
	}
	r.version = string(match[1])
	return nil
}

// check reports everything that prevents the release.
func (r *release) check(ctx context.Context) error {
	var wrong []error
	if !semver.MatchString(r.version) {
		wrong = append(wrong, fmt.Errorf("version %q: want one such as 1.2.3 (VERSION=1.2.3)", r.version))
	}
	if entries, err := os.ReadDir(r.out); err == nil && len(entries) > 0 {
		wrong = append(wrong, fmt.Errorf("%s is not empty", r.out))
	}
	var err error
	if r.commit, err = r.git(ctx, "rev-parse", "HEAD"); err != nil {
		wrong = append(wrong, err)
	}
	if at, err := r.git(ctx, "log", "-1", "--format=%ct"); err == nil {
		r.committed, err = strconv.ParseInt(at, 10, 64)
		wrong = append(wrong, err)
	}
	wrong = append(wrong, r.checkTree(ctx), r.checkImages(ctx))
	if err := errors.Join(wrong...); err != nil {
		return err
	}
	r.out, err = filepath.Abs(r.out)
	return errors.Join(err, os.MkdirAll(r.out, 0o755))
}

// checkTree requires that the files of the release can be made again from the tag.
func (r *release) checkTree(ctx context.Context) error {
	if r.dryRun {
		return nil
	}
	changes, err := r.git(ctx, "status", "--porcelain")
	if err == nil && changes != "" {
		err = fmt.Errorf("uncommitted changes; commit them, or use DRY_RUN=1:\n%s", changes)
	}
	tags, tagErr := r.git(ctx, "tag", "--points-at", "HEAD")
	if tagErr == nil && !slices.Contains(strings.Fields(tags), "v"+r.version) {
		tagErr = fmt.Errorf("the commit %.10s has no tag v%s; tag it, or use DRY_RUN=1", r.commit, r.version)
	}
	return errors.Join(err, tagErr)
}

func (r *release) git(ctx context.Context, args ...string) (string, error) {
	out, err := r.command(ctx, nil, "git", args...)
	return strings.TrimSpace(string(out)), err
}

// command runs a program in the repository and returns its output.
func (r *release) command(ctx context.Context, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = r.root, append(os.Environ(), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out, err
}

// write writes a file of the release.
func (r *release) write(name string, text []byte) error {
	r.files = append(r.files, name)
	return os.WriteFile(filepath.Join(r.out, name), text, 0o644)
}
