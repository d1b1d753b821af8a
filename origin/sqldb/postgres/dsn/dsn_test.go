package dsn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const canary = "c4n4ry"

// writePair writes a certificate and its key.
func writePair(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(suffix, kind string, b []byte) string {
		path := filepath.Join(dir, name+suffix)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write(".crt", "CERTIFICATE", der), write(".key", "PRIVATE KEY", keyDER)
}

// The error of a DSN says which parameter is wrong and why, and does not contain the password.
func TestErrorsOfADSN(t *testing.T) {
	dir := t.TempDir()
	cert, key := writePair(t, dir, "a")
	_, otherKey := writePair(t, dir, "b")
	text := filepath.Join(dir, "text.pem")
	encrypted := filepath.Join(dir, "encrypted.key")
	for path, content := range map[string]string{
		text:      "no PEM",
		encrypted: "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	missing := filepath.Join(dir, "missing.pem")
	for _, c := range []struct {
		parameters []string
		want       string // of the error; empty: the DSN is right
	}{
		{[]string{"sslmode=verify-full", "sslrootcert=" + cert}, ""},
		{[]string{"sslmode=verify-full", "sslrootcert=" + cert, "sslcert=" + cert, "sslkey=" + key}, ""},
		{[]string{"sslrootcert=" + missing}, "sslrootcert of the DSN: file " + missing + ": no such file or directory"},
		{[]string{"sslrootcert=" + dir}, "sslrootcert of the DSN: file " + dir + ": is a directory"},
		{[]string{"sslrootcert=" + text}, "sslrootcert of the DSN: file " + text + ": it contains no certificate in PEM format"},
		{[]string{"sslrootcert=" + key}, "sslrootcert of the DSN: file " + key + ": it contains no certificate"},
		{[]string{"sslcert=" + cert}, "sslcert and sslkey of the DSN belong together"},
		{[]string{"sslkey=" + key}, "sslcert and sslkey of the DSN belong together"},
		{[]string{"sslcert=" + missing, "sslkey=" + key}, "sslcert of the DSN: file " + missing + ": no such file"},
		{[]string{"sslcert=" + cert, "sslkey=" + missing}, "sslkey of the DSN: file " + missing + ": no such file"},
		{[]string{"sslcert=" + text, "sslkey=" + key}, "sslcert of the DSN: file " + text + ": it does not begin with a certificate"},
		{[]string{"sslcert=" + cert, "sslkey=" + text}, "sslkey of the DSN: file " + text + ": it does not begin with a private key"},
		{[]string{"sslcert=" + cert, "sslkey=" + encrypted}, "sslkey of the DSN: file " + encrypted + ": the key is encrypted"},
		{[]string{"sslcert=" + cert, "sslkey=" + otherKey}, "sslkey of the DSN: file " + otherKey + ": it is not the key of the certificate"},
		{[]string{"sslmode=verify"}, "sslmode of the DSN must be one of disable, allow, prefer, require, verify-ca, verify-full"},
		{[]string{"target_session_attrs=readwrite"}, "target_session_attrs of the DSN must be one of any, read-write, "},
		{[]string{"sslcrl=x"}, "the DSN has the parameter sslcrl, which is not supported"},
		{[]string{"load_balance_hosts=random"}, "the DSN has the parameter load_balance_hosts, which is not supported"},
		{[]string{"options=-x"}, "options: only"},
		{[]string{"connect_timeout=" + canary}, errBadDSN.Error()},
	} {
		for form, dsn := range map[string]string{
			"URI":      "postgres://user:p%40" + canary + "@127.0.0.1:1/db?" + strings.Join(c.parameters, "&"),
			"keywords": "host=127.0.0.1 port=1 password='p@" + canary + " \\' ' user=user " + strings.Join(c.parameters, " "),
		} {
			_, _, err := Parse(dsn, nil)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %v: got %v, want %q", form, c.parameters, err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), canary) {
				t.Errorf("%s %v: the password is in %v", form, c.parameters, err)
			}
		}
	}
}

func TestOptionsOfADSN(t *testing.T) {
	for options, want := range map[string]map[string]string{
		"":                                    {},
		"-c a=b":                              {"a": "b"},
		"-ca=b":                               {"a": "b"},
		"--a-b=c":                             {"a_b": "c"},
		`-c a=b\ c  --d=e\\f`:                 {"a": "b c", "d": `e\f`},
		"-c search_path=a,b -c statement=1=2": {"search_path": "a,b", "statement": "1=2"},
		"-c":                                  nil,
		"-c a":                                nil,
		"-e":                                  nil,
		"a=b":                                 nil,
	} {
		got, err := parseOptions(options)
		if (err == nil) != (want != nil) {
			t.Errorf("%q: got %v, %v", options, got, err)
		}
		for name, value := range want {
			if got[name] != value || len(got) != len(want) {
				t.Errorf("%q: got %v, want %v", options, got, want)
			}
		}
	}
}

// FuzzParametersOfADSN compares with pgx.
func FuzzParametersOfADSN(f *testing.F) {
	for _, seed := range []string{
		"postgres://u:p@h:1/d?search_path=a&x=b%20c", "postgresql:///?a.b=%2526", "host=h x='a\\'b' y = z\\ w", "host=h x=", "x='", "x",
		"postgres://?=0&", "postgres://u:p?x=y@h/d?x=z", "host=h\tx=\\", "postgres://h?x=y",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, dsn string) {
		config, err := pgx.ParseConfig(dsn)
		if err != nil {
			_ = explainDSN(dsn) // must not panic
			return
		}
		got, ok := parametersOf(dsn)
		if !ok {
			t.Fatalf("%q was not read", dsn)
		}
		for name, want := range config.RuntimeParams {
			if strings.TrimSpace(got[name]) != strings.TrimSpace(want) {
				t.Errorf("%q: %q is %q, want %q", dsn, name, got[name], want)
			}
		}
	})
}
