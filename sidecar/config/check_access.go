package config

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/sidecar/internal/access"
)

// tokens checks the names and the files of the tokens.
func (k *checker) tokens() {
	for _, name := range slices.Sorted(maps.Keys(k.config.Tokens)) {
		path, file := "tokens."+name, k.config.Tokens[name].File
		if err := access.CheckTokenName(name); err != nil {
			k.problem("tokens", "%v", err)
		}
		if file == "" {
			k.problem(path+".file", "is missing; want the path of a file that contains the token")
			continue
		}
		if err := access.CheckTokenFile(file); err != nil {
			k.problem(path+".file", "%v", err)
		}
	}
}

// audit checks the place of the audit log. The file itself is created at the start.
func (k *checker) audit() {
	if f := k.config.Audit.File; f != "" && f != AuditStdout && !filepath.IsAbs(f) {
		k.problem("audit.file", "want an absolute path, or %s; got %q", AuditStdout, f)
	}
}

// AuditStdout is the value of audit.file that means the standard output.
const AuditStdout = "stdout"

// allow checks who may do what with a dataset.
func (k datasetChecker) allow() {
	for operation, subjects := range map[string][]string{
		"read": k.Allow.Read, "write": k.Allow.Write, "invalidate": k.Allow.Invalidate,
	} {
		for i, s := range subjects {
			k.subject(fmt.Sprintf("%s.allow.%s[%d]", k.path, operation, i), s)
		}
	}
	if len(k.Allow.Write) > 0 && !k.Writable {
		k.problem(k.path+".allow.write", "belongs to writable: true; this dataset is read-only")
	}
}

func (k datasetChecker) subject(path, s string) {
	if err := access.CheckSubject(s); err != nil {
		k.problem(path, "%v", err)
		return
	}
	if name, ok := access.TokenOf(s); ok {
		if _, known := k.config.Tokens[name]; !known {
			k.problem(path, "no token has this name; the tokens are: %s",
				cmp.Or(strings.Join(slices.Sorted(maps.Keys(k.config.Tokens)), ", "), "none"))
		}
	}
}
