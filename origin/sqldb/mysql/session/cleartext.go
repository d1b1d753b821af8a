package session

import "net"

// ClearText implements origin.ClearTextDriver. With tls=preferred a server, or another host in its place, gets the connection
// without TLS.
func ClearText(dsn string, isLocal func(host string) bool) string {
	config, err := parseDSN(dsn)
	if err != nil || config.Passwd == "" || config.Net == "unix" {
		return ""
	}
	host, _, err := net.SplitHostPort(config.Addr)
	if err == nil && isLocal(host) || config.TLS != nil && !config.AllowFallbackToPlaintext {
		return ""
	}
	return "tls allows connections without TLS: use tls=true"
}
