package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/inherit"
)

// folderVariable is set in the children of a test: they are this program again. The file mode in the folder says how a child
// behaves; it appends to the file events what happens to it.
const folderVariable = "SUPERVISE_TEST_FOLDER"

func TestMain(m *testing.M) {
	if folder := os.Getenv(folderVariable); folder != "" {
		os.Exit(runChild(folder))
	}
	os.Exit(m.Run())
}

// runChild speaks the protocol as a sidecar does.
func runChild(folder string) int {
	p, err := inherit.Open(os.Getenv, os.Getpid(), os.Getppid())
	mode, modeErr := os.ReadFile(filepath.Join(folder, "mode"))
	if err != nil || modeErr != nil || len(p.Sockets) == 0 {
		return 3
	}
	note := func(format string, args ...any) {
		f, err := os.OpenFile(filepath.Join(folder, "events"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			fmt.Fprintf(f, format+"\n", args...)
			f.Close()
		}
	}
	say := func(line string) { io.WriteString(p.Control, line+"\n") }
	switch string(mode) {
	case "fails":
		say(inherit.Failed + `"the disk is full"`)
		return 1
	case "hangs":
		note("hanging %d", os.Getpid())
		select {}
	}
	say(inherit.Prepared)
	entries, _ := io.ReadAll(p.Previous)
	note("serving %d after %q", os.Getpid(), entries)
	if string(mode) == "slow" {
		for os.Remove(filepath.Join(folder, "go on")) != nil {
			time.Sleep(time.Millisecond)
		}
	}
	say(inherit.Ready)
	if string(mode) == "slow" {
		note("ready %d", os.Getpid())
	}
	line := make([]byte, 100)
	n, _ := p.Control.Read(line)
	if string(line[:n]) == inherit.Replace+"\n" {
		fmt.Fprintf(p.Next, "entries of %d", os.Getpid())
	}
	return 0
}

// supervised is a running supervisor.
type supervised struct {
	t       *testing.T
	folder  string
	signals chan os.Signal
	logs    *observer.ObservedLogs
	cancel  context.CancelFunc
	ended   chan error
}

func start(t *testing.T, change func(*Config)) *supervised {
	t.Helper()
	return startIn(t, "serves", change)
}

// startIn starts the first child in a mode.
func startIn(t *testing.T, mode string, change func(*Config)) *supervised {
	t.Helper()
	core, logs := observer.New(zap.InfoLevel)
	s := &supervised{t: t, folder: t.TempDir(), signals: make(chan os.Signal, 1), logs: logs, ended: make(chan error, 1)}
	t.Setenv(folderVariable, s.folder)
	s.mode(mode)
	var c config.Config
	c.Listen = config.Listen{HTTP: "127.0.0.1:0", GRPC: "off", Unix: "off", Peer: "off", Metrics: "off", XDS: "off", Admin: "off"}
	all := Config{
		Load: func() (config.Config, error) { return c, nil }, Command: []string{os.Args[0]}, Signals: s.signals, Log: zap.New(core),
	}
	if change != nil {
		change(&all)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go func() { s.ended <- Run(ctx, all) }()
	t.Cleanup(s.end)
	s.awaitEvents(1)
	return s
}

func (s *supervised) end() {
	s.cancel()
	if err := <-s.ended; err != nil && !strings.Contains(err.Error(), "exit code -1") { // a child of these tests ends with SIGTERM
		s.t.Errorf("the supervisor ended with %v", err)
	}
}

func (s *supervised) mode(mode string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.folder, "mode"), []byte(mode), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *supervised) events() []string {
	text, _ := os.ReadFile(filepath.Join(s.folder, "events")) // there is none at first
	return strings.Fields(strings.ReplaceAll(strings.TrimSpace(string(text)), " ", "_"))
}

// awaitEvents waits until there are n events, and returns them.
func (s *supervised) awaitEvents(n int) []string {
	s.t.Helper()
	s.await(func() bool { return len(s.events()) >= n })
	return s.events()
}

func (s *supervised) await(condition func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(outcomeTimeout); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("after a while: events %v, log %v", s.events(), s.logs.All())
		}
	}
}

// outcomeTimeout is far more than a child of these tests takes.
const outcomeTimeout = 20 * time.Second

func (s *supervised) restart() error {
	ctx, cancel := context.WithTimeout(s.t.Context(), outcomeTimeout)
	defer cancel()
	return Restart(ctx, os.Getpid())
}

// pid returns the process id in an event.
func pid(event string) int {
	n, _ := strconv.Atoi(strings.Split(event, "_")[1])
	return n
}

func TestNextChildGetsTheEntries(t *testing.T) {
	s := start(t, nil)
	for i := 1; i < 4; i++ {
		if err := s.restart(); err != nil {
			t.Fatal(err)
		}
		events := s.awaitEvents(i + 1)
		if want := fmt.Sprintf(`after_"entries_of_%d"`, pid(events[i-1])); !strings.HasSuffix(events[i], want) {
			t.Errorf("restart %d: got %s, want %s", i, events[i], want)
		}
	}
}

func TestChildThatFailsReplacesNothing(t *testing.T) {
	var wrong atomic.Bool
	s := start(t, func(c *Config) {
		load := c.Load
		c.Load = func() (config.Config, error) {
			if wrong.Load() {
				return config.Config{}, errors.New("line 3 is wrong")
			}
			return load()
		}
	})
	for mode, reason := range map[string]string{"fails": "the disk is full", "missing": "line 3 is wrong"} {
		s.mode(mode)
		wrong.Store(mode == "missing")
		s.wantRefusal(reason)
	}
	wrong.Store(false)
	s.mode("serves")
	if err := s.restart(); err != nil {
		t.Errorf("after that: %v", err)
	}
}

// A child that hangs is ended, so that later requests are not refused because of it.
func TestChildThatHangsReplacesNothing(t *testing.T) {
	s := start(t, func(c *Config) { c.prepareTimeout = time.Millisecond })
	s.mode("hangs")
	for range 2 {
		s.wantRefusal("killed")
	}
}

// A process may become ready while the one that is to replace it is prepared: that answers no restart.
func TestChildThatIsReadyLateAnswersNoRestart(t *testing.T) {
	s := startIn(t, "slow", nil)
	s.mode("hangs")
	outcome := make(chan error, 1)
	go func() { outcome <- s.restart() }()
	s.awaitEvents(2)
	s.goOn()
	if err := syscall.Kill(pid(s.awaitEvents(3)[1]), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-outcome; err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("got %v; want that the next process was killed", err)
	}
}

// A process that never becomes ready can be replaced.
func TestLaterRestartEndsAnEarlierOne(t *testing.T) {
	s := start(t, nil)
	s.mode("slow")
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- s.restart() }()
	s.awaitEvents(2)
	s.mode("serves")
	go func() {
		err := s.restart()
		for err != nil && strings.Contains(err.Error(), "already") { // until the supervisor sees that the first child has ended
			err = s.restart()
		}
		second <- err
	}()
	if err := <-first; err == nil || !strings.Contains(err.Error(), "another restart began") {
		t.Errorf("the first restart: got %v", err)
	}
	s.goOn()
	if err := <-second; err != nil {
		t.Errorf("the second restart: %v", err)
	}
}

// goOn lets a slow child become ready.
func (s *supervised) goOn() {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.folder, "go on"), nil, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// wantRefusal wants that a restart fails for a reason, and that the first child serves on.
func (s *supervised) wantRefusal(reason string) {
	s.t.Helper()
	err := s.restart()
	if err == nil || !strings.Contains(err.Error(), "the old process keeps serving") || !strings.Contains(err.Error(), reason) {
		s.t.Errorf("got %v; want that the old process keeps serving, and %q", err, reason)
	}
	if err := syscall.Kill(pid(s.events()[0]), 0); err != nil {
		s.t.Errorf("the old process: %v", err)
	}
}

func TestOneChildIsPreparedAtATime(t *testing.T) {
	s := start(t, nil)
	s.mode("hangs")
	s.signals <- syscall.SIGUSR2
	s.awaitEvents(2)
	if err := s.restart(); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("a restart while another one is under way: got %v", err)
	}
	s.mode("serves")
	if err := syscall.Kill(pid(s.events()[0]), syscall.SIGKILL); err != nil { // the one that hangs takes over: it was to be next
		t.Fatal(err)
	}
	s.await(func() bool { return s.logs.FilterMessageSnippet("the sidecar has ended").Len() == 1 })
}

func TestChildThatCrashesIsStartedAgain(t *testing.T) {
	s := start(t, nil)
	for i := range 3 {
		if err := syscall.Kill(pid(s.awaitEvents(i + 1)[i]), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	for i, event := range s.awaitEvents(4) {
		if !strings.HasSuffix(event, `after_""`) {
			t.Errorf("child %d: got %s; want one without entries", i, event)
		}
	}
	if err := s.restart(); err != nil {
		t.Errorf("after the crashes: %v", err)
	}
}

// With a socket in blocking mode, the end of an Accept in the child before has to wait for the next connection.
func TestSocketsStayInNonBlockingMode(t *testing.T) {
	sockets, err := bind(t.Context(), config.Config{Listen: config.Listen{HTTP: "127.0.0.1:0", GRPC: "off", Unix: "off", Peer: "off", Metrics: "off", XDS: "off", Admin: "off"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closeHeld(sockets)
	t.Setenv(folderVariable, "")
	s := &supervisor{Config: Config{Command: []string{"true"}}}
	c, err := s.start(sockets, nil)
	if err != nil {
		t.Fatal(err)
	}
	<-c.ended
	c.close()
	raw, err := sockets[0].sockets[0].Listener.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		if flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_GETFL, 0); errno != 0 || flags&syscall.O_NONBLOCK == 0 {
			t.Errorf("the flags of the socket are %#o, %v; want O_NONBLOCK", flags, errno)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestOnlyTheUserAndRootMayRestart(t *testing.T) {
	for peer, want := range map[uint32]bool{0: true, 1000: true, 1001: false} {
		if got := mayRestart(peer, 1000); got != want {
			t.Errorf("uid %d: got %t, want %t", peer, got, want)
		}
	}
}
