package sqltext_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

func TestCommentNamesTheTraceparent(t *testing.T) {
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	ctx := sqltext.WithComment(t.Context(), parent)
	if got, want := sqltext.Comment(ctx), "\n/*traceparent='"+parent+"'*/"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, none := range []string{"", strings.Repeat("0", 129)} {
		if got := sqltext.Comment(sqltext.WithComment(t.Context(), none)); got != "" {
			t.Errorf("%q: got the comment %q, want none", none, got)
		}
	}
}

// Whatever a client sends, a comment is one comment.
func FuzzComment(f *testing.F) {
	for _, seed := range []string{"00-0a-0b-01", "*/ DROP TABLE t; /*", "'", "\n--", "%27", "\x00", "é", `\`} {
		f.Add(seed)
	}
	inside := regexp.MustCompile(`^\n/\*traceparent='[0-9A-Za-z%-]*'\*/$`)
	f.Fuzz(func(t *testing.T, s string) {
		if c := sqltext.Comment(sqltext.WithComment(t.Context(), s)); c != "" && !inside.MatchString(c) {
			t.Errorf("%q: got %q", s, c)
		}
	})
}
