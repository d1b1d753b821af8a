package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// banned are phrases and retired names, each with what to write instead. Text is written in plain technical English with
// the standard term of each concept, so that a reader can search for it here and elsewhere.
var banned = []struct{ pattern, instead string }{
	{`\banew\b`, "again, or the name of the time or load that is meant"},
	{`\bbut for\b`, "except"},
	{`\b(in the|in its|in their|in another's|owner's) stead\b`, "instead of, as a failover"},
	{`\b(is|are|was|were|be|been) told\b`, "name the actor: the owner sends, the log says"},
	{`\b(tell|tells|told|telling) of\b`, "reports, announces"},
	{`\b(hear|hears|heard) of\b`, "receives"},
	{`\basked of\b`, "requested from, required of"},
	{`\bwhoever\b`, "name the actor"},
	{`\bcan not\b`, "cannot"},
	{`\ba stranger\b|\bstrangers\b`, "an unknown client, an independent client"},
	{`\bof its own accord\b`, "by itself"},
	{`\bgutter`, "failover"},
	{`\bhops?\b`, "peer fetch"},
	{`(^|[^.])\bfloors?\b|\bunfloored\b`, "read bound"},
	{`\bfences?\b|\bunfenced\b`, "epoch, ticket"},
	{`\bteller\b`, "broadcaster"},
	{`\broster\b`, "membership view"},
	{`\bdetours?\b|\bstandIn\b|\bstand-ins?\b`, "failover"},
	{`\bcopiesEnded\b|\bEndCopies\b|\bEndAll\b`, "expire"},
	{`\bskeptic\b|\bdoubtList\b`, "ring disagreement monitor"},
	{`\btwins?\b`, "duplicate member id"},
	{`\bsayGoodbye\b|\bstayIn\b|\buntilOdd\b`, "deregister, register, run session"},
	{`\buntold\b`, "ErrFeedUnavailable, unreached"},
	{`\bgathering\b|\bcompanion\b`, "batch"},
	{`\bcomplaints?\b`, "last error"},
	{`\bpatience\b`, "timeout"},
	{`\bentrance\b`, "handler"},
	{`\baudience\b`, "event sink"},
	{`\bmend(s|ed|ing)?\b`, "reconnect, repair"},
	{`\b(gives way|on its way|says so)\b`, "replaced, in flight; name what is reported"},
	{`\bdoubt(s|ed|ing)\b`, "unlisted member, uncertain"},
	{`\bnobody (tells|told|follows|has told)\b`, "no invalidation is published, no member subscribes"},
	{`\bfeeders?\b`, "xDS publisher"},
	{`\blinger(s|ing)?\b`, "lingering close: write it in full"},
}

// textFiles are the endings of the files that people read. Generated code takes its comments from the protos.
var textFiles = []string{".go", ".md", ".proto", ".yaml", ".yml", ".sql", ".sh", ".js", ".html"}

func TestTextIsPlainTechnicalEnglish(t *testing.T) {
	out, err := exec.Command("git", "-C", "..", "ls-files", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	var all []string
	for _, b := range banned {
		all = append(all, b.pattern)
	}
	quick := regexp.MustCompile("(?i)" + strings.Join(all, "|"))
	for name := range strings.Lines(string(out)) {
		path := strings.TrimSpace(name)
		if !slices.Contains(textFiles, filepath.Ext(path)) || strings.HasSuffix(path, ".pb.go") ||
			strings.HasSuffix(path, "words_test.go") {
			continue
		}
		text, err := os.ReadFile(filepath.Join("..", path))
		if err != nil {
			continue // deleted in the work tree
		}
		for i, line := range strings.Split(string(text), "\n") {
			if !quick.MatchString(line) {
				continue
			}
			for _, b := range banned {
				if found := regexp.MustCompile("(?i)" + b.pattern).FindString(line); found != "" && !strings.Contains(line, "lingering close") {
					t.Errorf("%s:%d: %q: write instead: %s", path, i+1, found, b.instead)
				}
			}
		}
	}
}
