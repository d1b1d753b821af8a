package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/blakesmith/ar"
	"github.com/ulikunitz/xz"
)

// deb is a file of one of Debian's archives.
type deb struct{ archive, path, sha256 string }

// packages are those whose files an image has, by architecture. To update them, take Filename and SHA256 of `apt-cache show`.
var packages = map[string][]deb{
	"amd64": {
		{"debian", "pool/main/t/tini/tini_0.19.0-1+b3_amd64.deb", "7d1947665fa40e55f218fefad773dc6de66458d0b39eaa292cdcadfc7c996632"},
		certificates,
	},
	"arm64": {
		{"debian", "pool/main/t/tini/tini_0.19.0-1+b3_arm64.deb", "335dee1e36c0bf61f11c9fe9740012966a3183bd50405b73ed19477293c28f7f"},
		certificates,
	},
}

var certificates = deb{"debian-security", "pool/updates/main/c/ca-certificates/ca-certificates_20250419~deb12u2_all.deb",
	"b9f76b5271a7ac373fd5e7e1b5b826a71ddd702b42a0d104955ecb1acfffc94b"}

// mirrors are the addresses of a package. The second one keeps what Debian has replaced.
func (d deb) mirrors() []string {
	return []string{
		"http://deb.debian.org/" + d.archive + "/" + d.path,
		"http://snapshot.debian.org/archive/" + d.archive + "/20260101T000000Z/" + d.path,
	}
}

// extractPackages extracts the packages of an architecture to a folder, and makes the file of all certificates there, as the
// installation of ca-certificates does.
func extractPackages(ctx context.Context, arch, dir string) error {
	list, ok := packages[arch]
	if !ok {
		return fmt.Errorf("no Debian packages are known for the architecture %q; add them to deploy/release/tools/oci/debian.go", arch)
	}
	for _, d := range list {
		text, err := d.fetch(ctx)
		if err == nil {
			err = extract(text, dir)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", d.path, err)
		}
	}
	return bundle(dir)
}

// maxPackage bounds a download.
const maxPackage = 16 << 20

func (d deb) fetch(ctx context.Context) ([]byte, error) {
	var failed []error
	for _, url := range d.mirrors() {
		text, err := get(ctx, url)
		sum := sha256.Sum256(text)
		switch {
		case err != nil:
			failed = append(failed, err)
		case hex.EncodeToString(sum[:]) != d.sha256:
			failed = append(failed, fmt.Errorf("%s has the SHA-256 %x, want %s", url, sum, d.sha256))
		default:
			return text, nil
		}
	}
	return nil, errors.Join(failed...)
}

func get(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, response.Status)
	}
	return io.ReadAll(io.LimitReader(response.Body, maxPackage))
}

// extract writes the regular files of a package below dir.
func extract(text []byte, dir string) error {
	root, err := openRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	members := ar.NewReader(bytes.NewReader(text))
	for {
		member, err := members.Next()
		if err != nil {
			return fmt.Errorf("find data.tar.xz: %w", err)
		}
		if strings.TrimSuffix(member.Name, "/") == "data.tar.xz" {
			break
		}
	}
	plain, err := xz.NewReader(members)
	if err != nil {
		return err
	}
	files := tar.NewReader(plain)
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		name := filepath.Clean(header.Name)
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, header.FileInfo().Mode().Perm())
		if err != nil {
			return err
		}
		_, err = io.Copy(f, files)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
}

func openRoot(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return os.OpenRoot(dir)
}

func bundle(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "usr/share/ca-certificates/mozilla/*.crt")) // sorted
	if err != nil || len(names) == 0 {
		return errors.Join(err, errors.New("ca-certificates has no certificates"))
	}
	var all bytes.Buffer
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(&all, "%s\n", bytes.TrimSpace(text))
	}
	to := filepath.Join(dir, "etc/ssl/certs/ca-certificates.crt")
	return errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, all.Bytes(), 0o644))
}
