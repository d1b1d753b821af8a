package admin

import (
	"net/http"
	"os"
	"strings"
)

// cmdline replaces pprof.Cmdline, which would show the values of --set: they may be secrets, such as that of
// --set origins.db.dsn=….
func cmdline(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(strings.Join(withoutValues(os.Args), "\x00"))) // fails only if the client has gone
}

// withoutValues hides what follows the last = of an argument: paths and names of fields remain.
func withoutValues(args []string) []string {
	shown := make([]string, len(args))
	for i, arg := range args {
		shown[i] = arg
		name, value, found := strings.Cut(arg, "=")
		if !found {
			continue
		}
		if field, _, nested := strings.Cut(value, "="); nested && strings.HasPrefix(name, "-") { // --set=field=value
			name += "=" + field
		}
		shown[i] = name + "=***" //guard:pprof-shows-secrets
	}
	return shown
}
