// Package inherit passes listening sockets from a process to its child, as systemd does (sd_listen_fds(3)): the child gets them
// as open files from number 3 on, and their names in the environment. They stay open while the child is replaced, so that
// connections wait for the next one. A supervisor also passes the files by which it and the next child are reached.
package inherit

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// firstFile is the number of the first passed file.
const firstFile = 3

// maxSockets is far more than a sidecar has.
const maxSockets = 64

// Socket is a listening socket and the name of its listener: http for listen.http.
type Socket struct {
	Name string
	net.Listener
}

// The names of the files of a supervisor, which are not listening sockets.
const (
	// Control is a socket: its lines are the protocol of package supervise.
	Control = "control"
	// Previous is where the child reads what the previous one has saved, and Next where it saves what the next one reads.
	Previous, Next = "previous", "next"
)

// Passed is what the parent of a process has passed to it.
type Passed struct {
	Sockets []Socket
	// Control, Previous and Next are nil unless the parent is a supervisor.
	Control, Previous, Next *os.File
}

// Environ returns the variables for a child that gets sockets as its first additional files. The child of a Go program cannot
// know its own id before it runs: LISTEN_PID is that of the parent.
func Environ(parent int, names []string) []string {
	return []string{
		"LISTEN_PID=" + strconv.Itoa(parent), "LISTEN_FDS=" + strconv.Itoa(len(names)), "LISTEN_FDNAMES=" + strings.Join(names, ":"),
	}
}

// Open returns what the parent of this process has passed; nothing if the variables are those of another process.
func Open(getenv func(string) string, pid, parent int) (p Passed, err error) {
	names, err := passed(getenv, pid, parent)
	if err != nil {
		return p, fmt.Errorf("sockets of the parent process: %w", err)
	}
	for i, name := range names {
		if err := p.add(name, firstFile+i); err != nil {
			return p, fmt.Errorf("file %d of the parent process, %s: %w", i, name, err)
		}
	}
	return p, nil
}

func (p *Passed) add(name string, number int) error {
	syscall.CloseOnExec(number)
	for file, to := range map[string]**os.File{Control: &p.Control, Previous: &p.Previous, Next: &p.Next} {
		if name == file {
			err := syscall.SetNonblock(number, true) // its reads and writes can be interrupted
			*to = os.NewFile(uintptr(number), name)
			return err
		}
	}
	f := os.NewFile(uintptr(number), name)
	ln, err := net.FileListener(f)
	_ = f.Close() // the listener has a copy
	p.Sockets = append(p.Sockets, Socket{name, ln})
	return err
}

// passed returns the names of the passed files.
func passed(getenv func(string) string, pid, parent int) ([]string, error) {
	count, to := getenv("LISTEN_FDS"), getenv("LISTEN_PID")
	if count == "" || to != strconv.Itoa(pid) && to != strconv.Itoa(parent) { //guard:files-of-another-process-are-sockets
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > maxSockets { //guard:number-of-passed-files-is-trusted
		return nil, fmt.Errorf("LISTEN_FDS is %q; want a number up to %d", count, maxSockets)
	}
	if n == 0 {
		return nil, nil
	}
	names := strings.Split(getenv("LISTEN_FDNAMES"), ":")
	if len(names) != n {
		return nil, errors.New("LISTEN_FDNAMES needs one name per socket: http, grpc, unix, peer, metrics, xds or admin")
	}
	return names, nil
}

// The lines that a supervisor and its child send each other on Control; see the DESIGN.md of package supervise.
const (
	// Prepared: all is built, and the process waits for the end of the previous one. Ready: it serves.
	Prepared, Ready = "prepared", "ready"
	// Failed comes before the reason why the process ends.
	Failed = "failed "
	// Replace asks the child to stop, and to save its entries for the next one.
	Replace = "replace"
)
