package rig

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Server is a program that a test starts with a configuration of its own, such as a network function.
type Server struct{ *process }

// NewServer starts a program of an installed package in the folder dir, where its log is, and waits until ready returns nil. The
// program must stay in the foreground. It ends with the test.
func NewServer(t testing.TB, path, dir string, ready func() error, args ...string) *Server {
	t.Helper()
	s := &Server{&process{
		t: t, name: filepath.Base(path), path: path, args: args, dir: dir, quit: syscall.SIGTERM,
		ready: func(int) error { return ready() },
	}}
	t.Cleanup(s.Kill)
	s.Start()
	return s
}

// Log returns the log of the server so far.
func (s *Server) Log() string {
	b, err := os.ReadFile(s.logPath())
	if err != nil {
		s.t.Fatalf("rig: %v", err)
	}
	return string(b)
}

// CopyPage copies a file of the repository and replaces texts. Each text must be in the file, so that a page and the test that
// runs it cannot differ unnoticed.
func CopyPage(t testing.TB, page, to string, replace ...string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(repository(t), page))
	if err != nil {
		t.Fatalf("rig: %v", err)
	}
	text := string(b)
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			t.Fatalf("rig: %s does not have %q", page, replace[i])
		}
	}
	if err := os.WriteFile(to, []byte(strings.NewReplacer(replace...).Replace(text)), 0o600); err != nil {
		t.Fatalf("rig: %v", err)
	}
}
