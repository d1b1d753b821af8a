// Package authfiles reads the credentials of origins whose DSN has none. Each function reads its files again, so that a replaced
// file needs no restart. No error has a part of a secret.
package authfiles

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/ringside-cache/ringside/origin"
)

// maxFile limits each file in bytes: a token of a large issuer has some KiB, and a wrong path must not fill the memory.
const maxFile = 64 << 10

// Check returns what is wrong with a, without reading its files.
func Check(a origin.Auth) error {
	switch {
	case (a.Username == "") != (a.PasswordFile == ""):
		return errors.New("username and password_file belong together: set both or neither")
	case a.Username != "" && a.TokenFile != "":
		return errors.New("set either token_file, or username and password_file")
	case (a.CertFile == "") != (a.KeyFile == ""):
		return errors.New("tls: cert_file and key_file belong together: set both or neither")
	}
	return nil
}

// HasTLS reports whether a has files for TLS.
func HasTLS(a origin.Auth) bool { return a.CertFile != "" || a.KeyFile != "" || a.CAFile != "" }

// TLS returns the configuration of a connection; without files it verifies the server with the authorities of the system.
func TLS(a origin.Auth) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if a.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(a.CertFile, a.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("tls: certificate and key: %w", err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	if a.CAFile == "" {
		return cfg, nil
	}
	pem, err := os.ReadFile(a.CAFile)
	if err != nil {
		return nil, fmt.Errorf("tls: ca_file: %w", err)
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(pem) {
		return nil, errors.New("tls: ca_file contains no certificate in PEM format")
	}
	return cfg, nil
}

// Token returns the token of a.
func Token(a origin.Auth) (string, error) { return line("token_file", a.TokenFile) }

// Password returns the password of a.
func Password(a origin.Auth) (string, error) { return line("password_file", a.PasswordFile) }

// line returns the one line of a file: printable ASCII, because it becomes a header field.
func line(field, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	defer func() { _ = f.Close() }() // nothing was written
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	secret := strings.TrimRight(string(text), "\r\n")
	isPrintable := !strings.ContainsFunc(secret, func(r rune) bool { return r < ' ' || r > '~' })
	if secret == "" || len(secret) > maxFile || !isPrintable { //guard:token-file-adds-a-header
		return "", fmt.Errorf("%s: want one line of printable ASCII characters in the file, at most %d KiB", field, maxFile>>10)
	}
	return secret, nil
}
