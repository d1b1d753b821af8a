package etcd

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ringside-cache/ringside/e2e/rig"
)

func TestOpenRejectsInvalidConfigurations(t *testing.T) {
	ok := []string{"http://127.0.0.1:2379"}
	for want, cfg := range map[string]Config{
		"":                            {Endpoints: ok},
		"no endpoints":                {},
		"want http://host:port":       {Endpoints: []string{"127.0.0.1:2379"}},
		"mix of http:// and https://": {Endpoints: []string{ok[0], "https://127.0.0.1:2379"}},
		"want https://":               {Endpoints: ok, TLS: TLSFiles{CAFile: "/ca.pem"}},
		"set both or neither":         {Endpoints: ok, Username: "u"},
		"certificate and key":         {Endpoints: []string{"https://e:1"}, TLS: TLSFiles{CertFile: "/c.pem"}},
		"no such file":                {Endpoints: []string{"https://e:1"}, TLS: TLSFiles{CAFile: "/nowhere/ca.pem"}},
		"contains no certificate":     {Endpoints: []string{"https://e:1"}, TLS: TLSFiles{CAFile: os.DevNull}},
		"lease ttl":                   {Endpoints: ok, LeaseTTL: time.Millisecond},
		"prefix":                      {Endpoints: ok, Prefix: "/a b"},
		"legacy prefix \"a b\"":       {Endpoints: ok, LegacyPrefix: "a b"},
		"overlaps the prefix \"/ringside/default\"": {Endpoints: ok, LegacyPrefix: "/ringside/default/members"},
		"overlaps the prefix \"/a/b\"":              {Endpoints: ok, Prefix: "/a/b/", LegacyPrefix: "/a/"},
	} {
		cfg.Prefix, cfg.LeaseTTL = cmp.Or(cfg.Prefix, "/ringside/default"), cmp.Or(cfg.LeaseTTL, time.Second)
		_, err := Open(cfg)
		switch {
		case want == "" && err != nil:
			t.Errorf("%+v: %v", cfg, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%+v: got %v, want an error with %q", cfg, err, want)
		}
	}
}

// The certificates change while a member is registered; the old ones become invalid.
func TestCertificatesAreReloaded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := TLSFiles{
		CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"),
		CAFile: filepath.Join(dir, "ca.pem"),
	}
	newCertificate(t, files)
	e := rig.Etcd(t, "--cert-file", files.CertFile, "--key-file", files.KeyFile, "--trusted-ca-file", files.CAFile,
		"--client-cert-auth")
	d := open(t, e.Endpoint(), nil)
	d.cfg.TLS = files
	register(t, d, member("a", 1))
	seen := resolve(t, d)
	seen.waitFor(t, "a", member("a", 1))
	e.Kill()
	newCertificate(t, files)
	e.Start()
	waitRegistered(t, d, 2)
	waitFor(t, "another list", func() bool { return d.Stats().Lists > 1 && d.Stats().Connected })
}

func TestPasswordIsReloaded(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t, "--bcrypt-cost", "4")
	c := client(t, e)
	setUp := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	_, err := c.UserAdd(t.Context(), "root", "first-canary")
	setUp("add user", err)
	_, err = c.UserGrantRole(t.Context(), "root", "root")
	setUp("grant role", err)
	_, err = c.AuthEnable(t.Context())
	setUp("enable authentication", err)

	d := open(t, e.Endpoint(), nil)
	d.cfg.Username, d.cfg.PasswordFile = "root", filepath.Join(t.TempDir(), "password")
	var said []string
	d.cfg.OnEvent = func(what string, err error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if err != nil {
			said = append(said, what+err.Error())
		}
	}
	setUp("password", os.WriteFile(d.cfg.PasswordFile, []byte("wrong-canary\n"), 0o600))
	register(t, d, member("a", 1))
	waitFor(t, "the rejection", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return len(said) > 0 })
	setUp("password", os.WriteFile(d.cfg.PasswordFile, []byte("first-canary\n"), 0o600))
	waitRegistered(t, d, 1)

	admin, err := clientv3.New(clientv3.Config{
		Endpoints: []string{e.Endpoint()}, Username: "root", Password: "first-canary",
	})
	setUp("connect", err)
	defer admin.Close()
	_, err = admin.UserChangePassword(t.Context(), "root", "second-canary")
	setUp("change password", err)
	setUp("password", os.WriteFile(d.cfg.PasswordFile, []byte("second-canary\n"), 0o600))
	e.Kill()
	e.Start()
	waitRegistered(t, d, 2)
	d.mu.Lock()
	defer d.mu.Unlock()
	if all := strings.Join(said, " "); strings.Contains(all, "canary") {
		t.Errorf("an error contains the password: %s", all)
	}
}

// A tenant needs the keys below its prefix, as deploy/INSTALL.md grants them, and its user reaches no other.
func TestTenantHasItsPrefixOnly(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t, "--bcrypt-cost", "4")
	c, ctx := client(t, e), t.Context()
	rights := clientv3.PermissionType(clientv3.PermReadWrite)
	for _, step := range []func() error{
		func() error { _, err := c.Put(ctx, "/ringside/other/a", "secret"); return err },
		func() error { _, err := c.UserAdd(ctx, "root", "root"); return err },
		func() error { _, err := c.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := c.RoleAdd(ctx, "tenant"); return err },
		func() error {
			_, err := c.RoleGrantPermission(ctx, "tenant", "/ringside/default/", clientv3.GetPrefixRangeEnd("/ringside/default/"), rights)
			return err
		},
		func() error { _, err := c.UserAdd(ctx, "tenant", "password"); return err },
		func() error { _, err := c.UserGrantRole(ctx, "tenant", "tenant"); return err },
		func() error { _, err := c.AuthEnable(ctx); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	d := open(t, e.Endpoint(), nil)
	d.cfg.Username, d.cfg.PasswordFile = "tenant", filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(d.cfg.PasswordFile, []byte("password"), 0o600); err != nil {
		t.Fatal(err)
	}
	register(t, d, member("a", 1))
	seen := resolve(t, d)
	seen.waitFor(t, "itself", member("a", 1))

	own, err := clientv3.New(clientv3.Config{Endpoints: []string{e.Endpoint()}, Username: "tenant", Password: "password"})
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if got, err := own.Get(ctx, "/ringside/other/a"); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("reading another tenant's key: got %v, %v, want permission denied", got, err)
	}
}

// The error of an endpoint is not only a timeout.
func TestErrorsNameTheEndpointAndTheCause(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	_, port, _ := strings.Cut(strings.TrimPrefix(e.Endpoint(), "http://"), ":")
	for endpoint, want := range map[string]string{
		"http://127.0.0.1:1":                  "connection refused",
		"https://127.0.0.1:" + port:           "authentication handshake failed",
		"http://no-such-host.invalid:" + port: "lookup no-such-host.invalid",
	} {
		for _, loop := range []string{"list", "grant a lease"} {
			d := open(t, endpoint, nil)
			reported := make(chan string, 100)
			d.cfg.OnEvent = func(_ string, err error) { reported <- err.Error() }
			if loop == "list" {
				resolve(t, d)
			} else {
				register(t, d, member("a", 1))
			}
			if got := <-reported; !strings.HasPrefix(got, endpoint+": "+loop) || !strings.Contains(got, want) {
				t.Errorf("got %q, want %q in it", got, want)
			}
		}
	}
}

func TestCheckNeedsOneWorkingEndpoint(t *testing.T) {
	t.Parallel()
	d := open(t, rig.Etcd(t).Endpoint(), nil)
	d.cfg.Endpoints = append([]string{"http://127.0.0.1:1"}, d.cfg.Endpoints...)
	if err := d.Check(t.Context()); err != nil {
		t.Errorf("one of two endpoints works: got error %v", err)
	}
	d.cfg.Endpoints[1] = "http://127.0.0.1:2"
	err := d.Check(t.Context())
	for _, endpoint := range d.cfg.Endpoints {
		if err == nil || !strings.Contains(err.Error(), endpoint+": list /ringside/default/members/") {
			t.Errorf("no endpoint works: got error %v", err)
		}
	}
}

func TestEachReasonOfAnOutageIsReportedOnce(t *testing.T) {
	reported, r := 0, reasons{}
	for i := range 100 {
		for _, err := range []error{errStalled, errNotDeregistered, fmt.Errorf("from port %d", i)} {
			if r.add(err) {
				reported++
			}
		}
	}
	if reported != maxReasons || !r[errStalled.Error()] || !r[errNotDeregistered.Error()] {
		t.Errorf("got %d reported reasons: %v", reported, r)
	}
}

func TestCloseWithoutAConnectionIsImmediate(t *testing.T) {
	d, err := Open(Config{Endpoints: []string{"http://127.0.0.1:1"}, Prefix: "/ringside/default", LeaseTTL: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	d.cfg.OnEvent = func(what string, err error) { t.Errorf("%s: %v", what, err) }
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Register(ctx, member("a", 1)); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// newCertificate writes a new authority and a certificate for 127.0.0.1, valid for servers and clients.
func newCertificate(t *testing.T, files TLSFiles) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, files.CertFile, "CERTIFICATE", cert)
	writePEM(t, files.CAFile, "CERTIFICATE", cert)
	writePEM(t, files.KeyFile, "PRIVATE KEY", der)
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}
