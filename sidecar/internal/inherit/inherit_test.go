package inherit

import (
	"slices"
	"testing"
)

func environ(variables ...string) func(string) string {
	return func(name string) string {
		for _, v := range variables {
			if len(v) > len(name) && v[:len(name)+1] == name+"=" {
				return v[len(name)+1:]
			}
		}
		return ""
	}
}

func TestNamesOfPassedSockets(t *testing.T) {
	names := []string{"http", "http", "grpc"}
	for _, pid := range []int{7, 8} { // systemd writes the id of the child, supervise its own
		got, err := passed(environ(Environ(7, names)...), pid, 15-pid)
		if err != nil || !slices.Equal(got, names) {
			t.Errorf("got %v, %v; want %v", got, err, names)
		}
	}
	if got, err := passed(environ(Environ(6, names)...), 7, 8); err != nil || got != nil {
		t.Errorf("variables of another process: got %v, %v; want none", got, err)
	}
	for _, v := range [][]string{
		{"LISTEN_PID=7", "LISTEN_FDS=x"}, {"LISTEN_PID=7", "LISTEN_FDS=-1"}, {"LISTEN_PID=7", "LISTEN_FDS=65"},
		{"LISTEN_PID=7", "LISTEN_FDS=2", "LISTEN_FDNAMES=http"},
	} {
		if got, err := passed(environ(v...), 7, 8); err == nil {
			t.Errorf("%v: got %v, want an error", v, got)
		}
	}
}

func FuzzPassed(f *testing.F) {
	f.Add("2", "http:grpc")
	f.Fuzz(func(t *testing.T, count, names string) {
		got, err := passed(environ("LISTEN_PID=7", "LISTEN_FDS="+count, "LISTEN_FDNAMES="+names), 7, 8)
		if len(got) > maxSockets || err != nil && got != nil {
			t.Errorf("got %d names, %v", len(got), err)
		}
	})
}
