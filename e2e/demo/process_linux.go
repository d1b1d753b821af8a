package main

import "syscall"

// childAttributes make the kernel kill the child when this process exits for any reason.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
