package proc

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestProcessIsNotThatOfAnotherOneWithItsPid(t *testing.T) {
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	process := Of(cmd.Process.Pid)
	if !process.Runs() {
		t.Error("a running process does not run")
	}
	if running, _ := Children(os.Getpid()); len(running) != 1 || running[0] != cmd.Process.Pid {
		t.Errorf("got the children %v, want %d", running, cmd.Process.Pid)
	}
	earlier := process
	earlier.started = "1"
	if earlier.Runs() {
		t.Error("a process that has exited runs, because another one has its pid")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for killed := time.Now(); ; time.Sleep(time.Millisecond) {
		if _, zombies := Children(os.Getpid()); len(zombies) == 1 {
			break
		}
		if time.Since(killed) > time.Minute {
			t.Fatal("the killed process still runs after a minute")
		}
	}
	if process.Runs() {
		t.Error("a process that has exited runs, because its parent has not waited for it")
	}
	_ = cmd.Wait() // it was killed
	if process.Runs() || Of(cmd.Process.Pid).Runs() {
		t.Error("a process that has exited runs")
	}
}

func TestCPUTimeGrowsWithWork(t *testing.T) {
	before := CPUTime(t, os.Getpid())
	for CPUTime(t, os.Getpid()) == before { // reading /proc is work
	}
	if got := CPUTime(t, 1<<22+1); got != 0 { // above the greatest pid
		t.Errorf("got %v for no process, want 0", got)
	}
}
