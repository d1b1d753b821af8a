package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
)

// notices writes the notices of each program: its license, and those of Go and of all modules in it. Images contain them.
func (r *release) notices(ctx context.Context) error {
	for _, program := range programs {
		var text bytes.Buffer
		if err := printNotices(ctx, &text, filepath.Join(r.out, r.binary(program, r.platforms[0]))); err != nil {
			return err
		}
		if err := r.write(fmt.Sprintf("%s-%s-NOTICES.txt", path.Base(program), r.version), text.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// modules returns the modules in a program, with replacements, in the order of their paths.
func modules(program string) ([]*debug.Module, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("read the modules of %s: %w", program, err)
	}
	var list []*debug.Module
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		list = append(list, m)
	}
	return list, nil
}

// noticeName matches files with licenses and notices.
var noticeName = regexp.MustCompile(`(?i)(^|[-_.])(licen[cs]e|notice|copying|copyright|patents|unlicense)([-_.]|$)`)

func printNotices(ctx context.Context, w io.Writer, program string) error {
	list, err := modules(program)
	if err != nil {
		return err
	}
	folders, err := download(ctx, list)
	if err != nil {
		return err
	}
	goroot, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("find the license of Go: %w", err)
	}
	license, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(goroot)), "LICENSE"))
	if err != nil {
		return fmt.Errorf("read the license of Go: %w", err)
	}
	fmt.Fprintf(w, "This program contains the following software.\n\n==== Go\n\n%s", license)
	var missing []error
	for _, m := range list {
		texts, err := noticesIn(folders[m.Path])
		if err == nil && len(texts) == 0 {
			err = fmt.Errorf("%s@%s has no license file", m.Path, m.Version)
		}
		missing = append(missing, err)
		fmt.Fprintf(w, "\n==== %s %s\n\n%s", m.Path, m.Version, strings.Join(texts, "\n\n"))
	}
	return errors.Join(missing...)
}

// download returns the folders of modules in the module cache, by their paths.
func download(ctx context.Context, list []*debug.Module) (map[string]string, error) {
	args := []string{"mod", "download", "-json"}
	for _, m := range list {
		args = append(args, m.Path+"@"+m.Version)
	}
	out, err := exec.CommandContext(ctx, "go", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("download the modules: %w\n%s", err, out)
	}
	folders := map[string]string{}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var m struct{ Path, Dir string }
		if err := decoder.Decode(&m); errors.Is(err, io.EOF) {
			return folders, nil
		} else if err != nil {
			return nil, fmt.Errorf("read the list of modules: %w", err)
		}
		folders[m.Path] = m.Dir
	}
}

// noticesIn returns the different texts of the license files below a folder.
func noticesIn(dir string) (texts []string, err error) {
	seen := map[[sha256.Size]byte]bool{}
	err = filepath.WalkDir(dir, func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains([]string{"testdata", ".github"}, entry.Name()):
			return filepath.SkipDir
		case entry.IsDir(), !noticeName.MatchString(entry.Name()), slices.Contains([]string{".go", ".tmpl", ".sh"}, filepath.Ext(file)):
			return nil
		}
		text, err := os.ReadFile(file)
		if sum := sha256.Sum256(text); err == nil && !seen[sum] {
			seen[sum] = true
			name, _ := filepath.Rel(dir, file) // it is below dir
			texts = append(texts, fmt.Sprintf("-- %s\n\n%s", name, text))
		}
		return err
	})
	return texts, err
}
