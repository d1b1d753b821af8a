// Package httpview is how HTTP clients see a dataset beside GET /v1/{dataset}/{key}: under other names and paths, with an answer
// of its own for keys that the origin does not have, and with columns as header fields. Network functions need it: most have fixed
// URLs, and know one meaning of each status.
//
//	view, err := httpview.Fields{Paths: []string{"/dns/lookup/{name}/{type}"}}.Compile([]string{"name", "type"})
//	values, ok := view.Paths[0].Match("/dns/lookup/example.org./A", nil)
package httpview

import (
	"cmp"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"strings"
)

// Fields are the fields of a dataset in the configuration.
type Fields struct {
	Alias []string `yaml:"alias"` // other names of the dataset
	Paths []string `yaml:"paths"` // other paths of its keys
	// Body is the text around the value in the responses at Paths, with {value} where it stands; empty: the value alone.
	Body    string            `yaml:"body"`
	Absent  Absent            `yaml:"absent"`
	Headers map[string]string `yaml:"headers"` // :: name of a header field → column
}

// Absent is the response for a key that the origin does not have. The zero value is a problem document with the status 404.
type Absent struct {
	Status      int    `yaml:"status"` // 200, 204, 403 or 404
	Body        string `yaml:"body"`
	ContentType string `yaml:"content_type"`
}

// View is the compiled form of Fields. A nil *View is that of a dataset without any of them.
type View struct {
	Aliases       []string
	Paths         []*Template
	before, after string // of the body
	absent        Absent
	columns       []column
}

// Problem is a fault of one field.
type Problem struct {
	Field string // such as absent.status
	Text  string
}

const (
	// MaxAliases, MaxPaths and MaxHeaders limit the lists.
	MaxAliases, MaxPaths, MaxHeaders = 8, 8, 16
	// maxBody limits texts of the configuration that become bodies: less than what a connection has paid for.
	maxBody = 4096
)

var (
	alias     = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)
	mediaType = regexp.MustCompile(`^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+( *; *[A-Za-z0-9_.-]+=("[ !#-\[\]-~]*"|[A-Za-z0-9!#$%&'*+.^_|~-]+))*$`)
)

// Compile returns the View of a dataset whose key is in the given columns, or all faults. For a query whose parameter has no
// name, keys has one empty name. The View is nil if no field is set.
func (f Fields) Compile(keys []string) (*View, []Problem) {
	c := compiler{fields: f, keys: keys, view: &View{Aliases: f.Alias}}
	c.aliases()
	c.paths()
	c.body()
	c.absent()
	c.headers()
	if reflect.DeepEqual(f, Fields{}) {
		c.view = nil
	}
	return c.view, c.problems
}

type compiler struct {
	fields   Fields
	keys     []string
	view     *View
	problems []Problem
}

func (c *compiler) problem(field, format string, args ...any) {
	c.problems = append(c.problems, Problem{field, fmt.Sprintf(format, args...)})
}

func (c *compiler) aliases() {
	for i, a := range c.fields.Alias {
		if !alias.MatchString(a) || len(a) > 63 {
			c.problem(at("alias", i), "want letters, digits, '.', '_' and '-', at most 63, that do not begin with '.' or '-'; got %q", a)
		}
	}
	if len(c.fields.Alias) > MaxAliases {
		c.problem("alias", "at most %d names; got %d", MaxAliases, len(c.fields.Alias))
	}
}

func at(list string, i int) string { return list + "[" + strconv.Itoa(i) + "]" }

func (c *compiler) paths() {
	for i, text := range c.fields.Paths {
		t, err := parse(text, c.keys)
		if err != nil {
			c.problem(at("paths", i), "%v", err)
			continue
		}
		c.view.Paths = append(c.view.Paths, t)
	}
	if len(c.fields.Paths) > MaxPaths {
		c.problem("paths", "at most %d paths; got %d", MaxPaths, len(c.fields.Paths))
	}
}

func (c *compiler) body() {
	const mark = "{value}"
	text := c.fields.Body
	switch {
	case text == "":
		return
	case len(c.fields.Paths) == 0:
		c.problem("body", "belongs to paths: at /v1 the body is the value alone; set paths, or remove body")
	case strings.Count(text, mark) != 1:
		c.problem("body", "want {value} once, where the value of the dataset stands; got it %d times", strings.Count(text, mark))
	case len(text) > maxBody:
		c.problem("body", "at most %d bytes; got %d", maxBody, len(text))
	}
	c.view.before, c.view.after, _ = strings.Cut(text, mark)
}

func (c *compiler) absent() {
	a := c.fields.Absent
	a.Status = cmp.Or(a.Status, http.StatusNotFound)
	c.view.absent = a
	switch a.Status {
	case http.StatusNotFound, http.StatusForbidden:
	case http.StatusOK:
		if a.Body == "" {
			c.problem("absent.body", "is missing: a response with status 200 has a body; without one use status 204")
		}
	case http.StatusNoContent:
		if a.Body != "" || a.ContentType != "" {
			c.problem("absent.body", "a response with status 204 has neither body nor content_type; remove them, or use status 200")
		}
	default:
		c.problem("absent.status", "want one of 200, 204, 403, 404; got %d", a.Status)
	}
	switch {
	case len(a.Body) > maxBody:
		c.problem("absent.body", "at most %d bytes; got %d", maxBody, len(a.Body))
	case a.ContentType != "" && a.Body == "":
		c.problem("absent.content_type", "belongs to absent.body; set that, or remove content_type")
	case a.ContentType != "" && !mediaType.MatchString(a.ContentType):
		c.problem("absent.content_type", "want a media type, such as application/json; got %q", a.ContentType)
	}
}

// Absent returns the response for a key that the origin does not have. Its status is set. Without a body it is a problem document,
// or nothing with the status 204. The media type of a body is that of the values if it is empty.
func (v *View) Absent() Absent {
	if v == nil {
		return Absent{Status: http.StatusNotFound}
	}
	return v.absent
}

// Around returns what stands before and after the value in a response at one of Paths.
func (v *View) Around() (before, after string) { return v.before, v.after }
