package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// build builds the three programs of the demo in a folder of the test.
func build(t *testing.T) (bin string) {
	t.Helper()
	bin = t.TempDir()
	for dir, name := range map[string]string{
		".":                      "ringside-demo",
		"../../deploy/collector": collectorBinary,
		"../../":                 sidecarBinary,
	} {
		target := "."
		if name == sidecarBinary {
			target = "./sidecar/cmd/ringside"
		}
		cmd := exec.Command("go", "build", "-o", filepath.Join(bin, name), target)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, out)
		}
	}
	return bin
}

// demo is a running ringside-demo.
type demo struct {
	*exec.Cmd
	bin, state string
	lines      *bufio.Reader
	output     bytes.Buffer // the part of lines that was read
}

func startDemo(t *testing.T, bin string, flags ...string) *demo {
	t.Helper()
	d := &demo{bin: bin, state: t.TempDir()}
	d.Cmd = exec.Command(filepath.Join(d.bin, "ringside-demo"), flags...)
	d.Env = append(os.Environ(), "TMPDIR="+d.state)
	d.Stderr = os.Stderr
	out, err := d.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	d.lines = bufio.NewReader(io.TeeReader(out, &d.output))
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Process.Kill() })
	return d
}

// await reads lines up to the first that matches, and returns the first group of the match.
func (d *demo) await(t *testing.T, pattern string) string {
	t.Helper()
	expression := regexp.MustCompile(pattern)
	for {
		line, err := d.lines.ReadString('\n')
		if found := expression.FindStringSubmatch(line); found != nil {
			return found[1]
		}
		if err != nil {
			t.Fatalf("no line matches %s: %v\n%s", pattern, err, &d.output)
		}
	}
}

// left returns the processes whose program is in the demo's folder.
func (d *demo) left(t *testing.T) (found []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err == nil && strings.HasPrefix(string(line), d.bin) {
			found = append(found, file+": "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

func (d *demo) kill(t *testing.T, pid string) {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("needs whole processes: make test runs it")
	}
	bin := build(t)
	t.Run("all sidecars answer while one is killed", func(t *testing.T) { testKillSidecar(t, bin) })
	t.Run("an interrupt stops everything", func(t *testing.T) { testInterrupt(t, bin) })
	t.Run("the processes of a killed demo are killed", func(t *testing.T) { testKilled(t, bin) })
}

func testKillSidecar(t *testing.T, bin string) {
	d := startDemo(t, bin, "--for", "6s", "--revive", "1s")
	d.kill(t, d.await(t, `kill -9 (\d+)`))
	d.await(t, `(sidecar-2) .* exited`)
	d.await(t, `(sidecar-2) runs again`)
	for _, id := range []string{"sidecar-1", "sidecar-2", "sidecar-3"} {
		if d.await(t, id+`: (\d+) reads answered, 0 failed,`) == "0" {
			t.Errorf("%s: no reads answered", id)
		}
	}
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
	if left := d.left(t); len(left) > 0 {
		t.Errorf("still running: %s", left)
	}
	if files, err := os.ReadDir(d.state); err != nil || len(files) > 0 {
		t.Errorf("files left: %v %v", files, err)
	}
}

func testInterrupt(t *testing.T, bin string) {
	d := startDemo(t, bin)
	d.await(t, `kill -9 (\d+)`)
	if err := d.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	d.await(t, `(sidecar-3): \d+ reads answered`)
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
	if left := d.left(t); len(left) > 0 {
		t.Errorf("still running: %s", left)
	}
}

func testKilled(t *testing.T, bin string) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux kills the children of a process that was killed")
	}
	d := startDemo(t, bin)
	d.await(t, `kill -9 (\d+)`)
	if err := d.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = d.Wait() // it was killed
	for deadline := time.Now().Add(10 * time.Second); len(d.left(t)) > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("still running: %s", d.left(t))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestErrorNamesTheMissingProgram(t *testing.T) {
	dir := t.TempDir()
	err := run(t.Context(), []string{"--bin", dir}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, sidecarBinary)) ||
		!strings.Contains(err.Error(), "make demo") {
		t.Errorf("error %v", err)
	}
}

func TestInvalidFlagsAreRejected(t *testing.T) {
	for _, args := range [][]string{{"--rate", "0"}, {"--for", "-1s"}, {"--revive", "-1s"}, {"more"}, {"--nope"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

func TestPortInUseIsReplaced(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	base := taken.Addr().(*net.TCPAddr).Port
	var out strings.Builder
	p, err := choosePorts(&out, "sidecar-1", base)
	if err != nil {
		t.Fatal(err)
	}
	if p.http == base || !strings.Contains(out.String(), "Port "+strconv.Itoa(base)+" is in use") {
		t.Errorf("ports %+v, output %q", p, &out)
	}
}

func TestRestartedSidecarHasNoNegativeRates(t *testing.T) {
	before, now := figures{uptime: int64(time.Minute), reads: 1000}, figures{uptime: int64(2 * time.Second), reads: 30}
	if got := now.since(before).reads; got != 15 {
		t.Errorf("%v reads/s, want 15", got)
	}
}

// A sidecar that does not respond delays a round of samples, and the next round follows immediately.
func TestRatesUseTheClockOfTheSidecar(t *testing.T) {
	before, now := figures{uptime: int64(time.Minute), reads: 1000}, figures{uptime: int64(65 * time.Second), reads: 2000}
	if got := now.since(before).reads; got != 200 {
		t.Errorf("%v reads/s, want 200", got)
	}
	if got := now.since(now).reads; got != 0 {
		t.Errorf("%v reads/s between equal samples, want 0", got)
	}
}

func TestTableIsDrawnOverThePreviousOne(t *testing.T) {
	var out bytes.Buffer
	draw := newTable(&out)
	rows := []row{{id: "sidecar-1", alive: true, rate: figures{reads: 10, queries: 1}}, {id: "sidecar-2"}}
	if err := errors.Join(draw(rows, []string{"a note"}), draw(rows, nil)); err != nil {
		t.Fatal(err)
	}
	first, second, found := strings.Cut(out.String(), "\x1b[5A\x1b[J") // heading, two rows, total, note
	if !found || first != second || !strings.Contains(first, "0.100") || !strings.Contains(first, "no response") {
		t.Errorf("drawn: %q", out.String())
	}
}
