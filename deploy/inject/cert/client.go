package cert

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
)

// RequireClients makes config accept only clients with a certificate of a CA in file, for one of names if there are any. The
// file is read at each handshake, so that a renewed CA is used at once.
func RequireClients(config *tls.Config, file string, names []string) error {
	if _, err := readCAs(file); err != nil {
		return err
	}
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		pool, err := readCAs(file)
		if err != nil {
			return nil, err
		}
		required := config.Clone()
		required.GetConfigForClient = nil
		required.ClientCAs, required.ClientAuth = pool, tls.RequireAndVerifyClientCert //guard:any-client-is-accepted
		required.SessionTicketsDisabled = true                                         // the API server keeps its connections
		required.VerifyConnection = func(state tls.ConnectionState) error { return checkName(state, names) }
		return required, nil
	}
	return nil
}

func readCAs(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the CA of clients: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read the CA of clients: %s has no certificate in PEM", file)
	}
	return pool, nil
}

var errClientName = errors.New("the certificate of the client is valid, but not for one of the allowed names")

// checkName accepts a certificate whose common name or one of whose DNS names is allowed.
func checkName(state tls.ConnectionState, names []string) error {
	if len(names) == 0 {
		return nil
	}
	leaf := state.PeerCertificates[0] // RequireAndVerifyClientCert has verified it
	for _, name := range append(slices.Clone(leaf.DNSNames), leaf.Subject.CommonName) {
		if slices.Contains(names, name) {
			return nil
		}
	}
	return errClientName
}
