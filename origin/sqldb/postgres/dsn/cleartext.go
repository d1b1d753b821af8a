package dsn

import (
	"crypto/tls"
	"strings"

	"github.com/jackc/pgx/v5"
)

// ClearText implements origin.ClearTextDriver. With sslmode disable, allow and prefer, which is the default of libpq, a server,
// or another host in its place, gets the connection without TLS.
func ClearText(dsn string, isLocal func(host string) bool) string {
	config, err := pgx.ParseConfig(dsn)
	if checkURI(dsn) != nil || err != nil || config.Password == "" {
		return ""
	}
	plain := func(host string, t *tls.Config) bool {
		return t == nil && !strings.HasPrefix(host, "/") && !isLocal(host)
	}
	unencrypted := plain(config.Host, config.TLSConfig)
	for _, f := range config.Fallbacks {
		unencrypted = unencrypted || plain(f.Host, f.TLSConfig)
	}
	if !unencrypted {
		return ""
	}
	return "sslmode allows connections without TLS: use sslmode=verify-full"
}
