// Package inherit passes listening sockets from a process to its child, as systemd does (sd_listen_fds(3)): the child gets them
// as open files from number 3 on, and their names in the environment. They stay open while the child is replaced, so that
// connections wait for the next one.
package inherit

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
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

// Environ returns the variables for a child that gets sockets as its first additional files. The child of a Go program cannot
// know its own id before it runs: LISTEN_PID is that of the parent.
func Environ(parent int, names []string) []string {
	return []string{
		"LISTEN_PID=" + strconv.Itoa(parent), "LISTEN_FDS=" + strconv.Itoa(len(names)), "LISTEN_FDNAMES=" + strings.Join(names, ":"),
	}
}

// Sockets returns the sockets that the parent of this process has passed; none if the variables are those of another process.
func Sockets(getenv func(string) string, pid, parent int) ([]Socket, error) {
	names, err := passed(getenv, pid, parent)
	if err != nil {
		return nil, fmt.Errorf("sockets of the parent process: %w", err)
	}
	sockets := make([]Socket, 0, len(names))
	for i, name := range names {
		f := os.NewFile(uintptr(firstFile+i), name)
		ln, err := net.FileListener(f)
		_ = f.Close() // the listener has a copy
		if err != nil {
			return nil, fmt.Errorf("socket %d of the parent process, %s: %w", i, name, err)
		}
		sockets = append(sockets, Socket{name, ln})
	}
	return sockets, nil
}

// passed returns the names of the passed files.
func passed(getenv func(string) string, pid, parent int) ([]string, error) {
	count, to := getenv("LISTEN_FDS"), getenv("LISTEN_PID")
	if count == "" || to != strconv.Itoa(pid) && to != strconv.Itoa(parent) {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > maxSockets {
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
