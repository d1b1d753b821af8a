//go:build !linux

package saved

// Uptime returns 0: nothing is saved on this system.
func Uptime() int64 { return 0 }
