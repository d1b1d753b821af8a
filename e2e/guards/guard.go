// Package guards removes lines that prevent known faults, one at a time, and checks that a test fails without the line.
//
// A guarded line has a marker, the comment `guard:NAME`. The file guards.yaml in the folder of the package has one row per
// marker: the fault, the change of the line that brings the fault back, and the tests of the package of which at least one
// must then fail.
package guards

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
)

// FileName is the name of a package's list of guards.
const FileName = "guards.yaml"

// reach bounds the lines between a marker and the text of its `replace`.
const reach = 60

// Guard is one row of a guards.yaml. Exactly one of Condition, Delete and Replace is set: the change of the marked line.
type Guard struct {
	Name  string // the name of the marker
	Fault string // the fault that the line prevents
	Test  string // test functions of the package, with subtests behind a slash, separated by |
	In    string // folder of the package that has the tests, relative to the root; empty: the package of the guard

	// Condition is the constant (true or false) that replaces the condition of the marked if, for or case.
	Condition string
	// Delete removes the marked line.
	Delete bool
	// Replace is the text, on the marked line or soon below it, that With replaces.
	Replace, With string

	dir  string // of the package, relative to the root
	file string // with the marker, relative to the root
}

// marker finds the names in a comment such as //guard:a guard:b.
var marker = regexp.MustCompile(`\bguard:([a-z0-9-]+)`)

// comment matches a whole marker, in Go and in a template of SQL.
var comment = regexp.MustCompile(`[ \t]*//guard:.*|[ \t]*\{\{/\* guard:.* \*/\}\}`)

// Load returns the guards of all packages below root, in the order of their paths. It fails if a marker has no row, a row has
// no marker, or a package has two markers of the same name.
func Load(root string) (all []Guard, err error) {
	var dirs []string
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != root, entry.Name() == "node_modules":
			return filepath.SkipDir
		case entry.Name() == FileName:
			dirs = append(dirs, filepath.Dir(path))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var failures []error
	for _, dir := range dirs {
		guards, err := load(root, dir)
		all, failures = append(all, guards...), append(failures, err)
	}
	return all, errors.Join(failures...)
}

// load reads the rows of one package and finds their markers.
func load(root, dir string) ([]Guard, error) {
	path := filepath.Join(dir, FileName)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var guards []Guard
	if err := yaml.UnmarshalWithOptions(text, &guards, yaml.Strict()); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	marked, err := markers(dir)
	if err != nil {
		return nil, err
	}
	var failures []error
	for i := range guards {
		g := &guards[i]
		g.dir, _ = filepath.Rel(root, dir)
		switch files := marked[g.Name]; len(files) {
		case 0:
			failures = append(failures, fmt.Errorf("%s: no line has the marker guard:%s", path, g.Name))
		case 1:
			g.file, _ = filepath.Rel(root, files[0])
		default:
			failures = append(failures, fmt.Errorf("%s: the marker guard:%s occurs %d times; it must occur once", path, g.Name, len(files)))
		}
		delete(marked, g.Name)
	}
	for name, files := range marked {
		failures = append(failures, fmt.Errorf("%s: the marker guard:%s has no row in %s", files[0], name, path))
	}
	return guards, errors.Join(failures...)
}

// markers returns the files with each marker, in the folder of the package and in subfolders without Go files, which it embeds.
func markers(dir string) (map[string][]string, error) {
	found := map[string][]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != dir && hasGo(path):
			return filepath.SkipDir
		case entry.IsDir(), entry.Name() == FileName, strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, name := range marker.FindAllSubmatch(text, -1) {
			found[string(name[1])] = append(found[string(name[1])], path)
		}
		return nil
	})
	return found, err
}

func hasGo(dir string) bool {
	names, _ := filepath.Glob(filepath.Join(dir, "*.go"))
	return len(names) > 0
}

func (g Guard) marks(line []byte) bool {
	for _, name := range marker.FindAllSubmatch(line, -1) {
		if string(name[1]) == g.Name {
			return true
		}
	}
	return false
}

// Without returns the text of the guard's file with the fault.
func (g Guard) Without(text []byte) ([]byte, error) {
	lines := bytes.SplitAfter(text, []byte("\n"))
	marked := slices.IndexFunc(lines, g.marks)
	if marked < 0 {
		return nil, fmt.Errorf("%s: no line has the marker guard:%s", g.file, g.Name)
	}
	for i, line := range lines {
		lines[i] = comment.ReplaceAll(line, nil) // so that the text to replace may span lines with markers
	}
	if len(bytes.TrimSpace(lines[marked])) == 0 {
		marked++ // the marker is on a separate line, above its line
	}
	text = slices.Concat(lines...)
	begin := len(slices.Concat(lines[:marked]...))
	end := begin + len(lines[marked])
	switch {
	case g.Delete:
		return slices.Concat(text[:begin], text[end:]), nil
	case g.Condition != "":
		from, to, err := g.condition(text, begin, end)
		if err != nil {
			return nil, err
		}
		// The condition stays, so that the compiler reports no unused variables or imports.
		constant := map[string]string{"false": "false && (", "true": "true || ("}[g.Condition]
		return slices.Concat(text[:from], []byte(constant), text[from:to], []byte(")"), text[to:]), nil
	}
	n := bytes.Index(text[begin:], []byte(g.Replace))
	if n < 0 || bytes.Count(text[begin:begin+n], []byte("\n")) > reach {
		return nil, fmt.Errorf("%s: %q is neither at the marker guard:%s nor in the %d lines below it", g.file, g.Replace, g.Name, reach)
	}
	return slices.Concat(text[:begin+n], []byte(g.With), text[begin+n+len(g.Replace):]), nil
}

// condition returns the offsets of the condition of the if, for or case that begins between two offsets.
func (g Guard) condition(text []byte, begin, end int) (from, to int, err error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, g.file, text, parser.SkipObjectResolution)
	if err != nil {
		return 0, 0, err
	}
	offset := func(p token.Pos) int { return files.Position(p).Offset }
	ast.Inspect(file, func(n ast.Node) bool {
		var cond ast.Expr
		switch n := n.(type) {
		case *ast.IfStmt:
			cond = n.Cond
		case *ast.ForStmt:
			cond = n.Cond
		case *ast.CaseClause:
			if len(n.List) == 1 {
				cond = n.List[0]
			}
		}
		if cond != nil && to == 0 && offset(n.Pos()) >= begin && offset(n.Pos()) < end {
			from, to = offset(cond.Pos()), offset(cond.End())
		}
		return true
	})
	if to == 0 {
		return 0, 0, fmt.Errorf("%s: the line with the marker guard:%s has no condition", g.file, g.Name)
	}
	return from, to, nil
}

// overlay writes the file without the guard to dir, and the list for the flag -overlay (go help build) that replaces the file.
func (g Guard) overlay(root, dir string) (list string, err error) {
	path, err := filepath.Abs(filepath.Join(root, g.file))
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if text, err = g.Without(text); err != nil {
		return "", err
	}
	changed, list := filepath.Join(dir, "changed"), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(changed, text, 0o600); err != nil {
		return "", err
	}
	b, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	if err != nil {
		return "", err
	}
	return list, os.WriteFile(list, b, 0o600)
}

// pattern returns the -run pattern of exactly the guard's tests and subtests.
func (g Guard) pattern() string {
	var whole []string
	for test := range strings.SplitSeq(g.Test, "|") {
		whole = append(whole, "^"+strings.ReplaceAll(test, "/", "$/^")+"$")
	}
	return strings.Join(whole, "|")
}
