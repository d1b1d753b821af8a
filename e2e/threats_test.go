package e2e

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// The threat model names tests that exist, and stays short.
func TestThreatModelNamesTests(t *testing.T) {
	text, err := os.ReadFile("../deploy/THREATS.md")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n > 150 {
		t.Errorf("deploy/THREATS.md has %d lines, want at most 150", n)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Z0-9]\\w+)`").FindAllStringSubmatch(string(text), -1)
	if len(named) < 20 {
		t.Fatalf("invalid run: deploy/THREATS.md names %d tests", len(named))
	}
	out, err := exec.Command("git", "grep", "--no-index", "--exclude-standard", "-hoE", `^func (Test|Fuzz)\w+`, "--", "../*_test.go").Output()
	if err != nil {
		t.Fatalf("list the tests: %v", err)
	}
	exists := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		exists[strings.TrimPrefix(strings.TrimSpace(line), "func ")] = true
	}
	for _, match := range named {
		if !exists[match[1]] {
			t.Errorf("deploy/THREATS.md names %s, which does not exist", match[1])
		}
	}
}
