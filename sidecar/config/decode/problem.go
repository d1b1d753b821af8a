package decode

import (
	"fmt"
	"regexp"
	"strings"
)

// Problem is one fault of a configuration.
type Problem struct {
	// Where is file:line:column, the variable or the flag that sets the value; empty if none does.
	Where string
	// Field is the path of the field, such as datasets.routes.ttl; empty if the file is not valid YAML.
	Field string
	// Message says what is wrong and what to do.
	Message string
	// Excerpt is the line of the file with a mark under the column; empty if it could show a secret.
	Excerpt string
}

func (p Problem) String() string {
	var b strings.Builder
	for _, part := range []string{p.Where, p.Field} {
		if part != "" {
			b.WriteString(part + ": ")
		}
	}
	b.WriteString(p.Message)
	if p.Excerpt != "" {
		b.WriteString("\n" + p.Excerpt)
	}
	return b.String()
}

// Error has all problems of a configuration.
type Error struct{ Problems []Problem }

func (e *Error) Error() string {
	lines := make([]string, 0, len(e.Problems))
	for _, p := range e.Problems {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// position is a place in a file; line and column count from 1.
type position struct{ line, column int }

var (
	secretKey = regexp.MustCompile(`\b((dsn|password)(_file)?|tokens?|file)\b["']?\s*[:=]`) // a secret may have been written in the field of its file
	userinfo  = regexp.MustCompile(`[^\s"']:[^\s"']*@`)                                     // user:password@ in any field
	anyKey    = regexp.MustCompile(`^\s*(- )?["']?[\w-]+["']?\s*:(\s|$)`)
)

// excerpt returns the line at p with a mark under the column. It is empty for a line that holds a secret or may continue
// one: error messages end up in logs and tickets.
func excerpt(source []byte, p position) string {
	lines := strings.Split(string(source), "\n")
	if p.line < 1 || p.line > len(lines) || p.column < 1 || mayHoldSecret(lines[:p.line]) { //guard:error-shows-line-of-secret
		return ""
	}
	const widest = 160
	line := strings.TrimRight(strings.ReplaceAll(lines[p.line-1], "\t", " "), "\r")
	if len(line) > widest || p.column > len(line)+1 {
		return ""
	}
	number := fmt.Sprintf("%5d | ", p.line)
	return number + line + "\n" + strings.Repeat(" ", len(number)+p.column-1) + "^"
}

// mayHoldSecret reports whether the last of lines, or the nearest line above it that opens a key, names a secret.
func mayHoldSecret(lines []string) bool {
	for i := len(lines) - 1; i >= 0; i-- {
		if secretKey.MatchString(lines[i]) || userinfo.MatchString(lines[i]) {
			return true
		}
		if anyKey.MatchString(lines[i]) {
			return false
		}
	}
	return false
}
