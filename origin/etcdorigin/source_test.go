package etcdorigin

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
)

// cluster is an etcd with a client of its own.
type cluster struct {
	*rig.EtcdServer
	*clientv3.Client
}

func start(t *testing.T, flags ...string) cluster {
	t.Helper()
	e := rig.Etcd(t, flags...)
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{e.Endpoint()}, MaxCallSendMsgSize: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return cluster{e, c}
}

// put writes keys and values.
func (c cluster) put(t *testing.T, keysAndValues ...string) {
	t.Helper()
	for i := 0; i < len(keysAndValues); i += 2 {
		_, err := c.Put(soon(t), keysAndValues[i], keysAndValues[i+1])
		check(t, err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// open returns an origin at these endpoints.
func open(t *testing.T, auth origin.Auth, endpoints ...string) *source {
	t.Helper()
	s, err := Driver().Open(origin.SourceConfig{Name: "etcd", DSN: strings.Join(endpoints, ","), Auth: auth})
	check(t, err)
	t.Cleanup(func() { check(t, s.Close()) })
	return s.(*source)
}

// things returns the dataset with the prefix /things/.
func things(t *testing.T, s *source) *dataset {
	t.Helper()
	d, err := s.dataset(origin.Dataset{Name: "things", Prefix: "/things/"})
	check(t, err)
	return d
}

func load(t *testing.T, o origin.Origin, keys ...string) []origin.Result {
	t.Helper()
	results, err := o.Load(soon(t), keys)
	check(t, err)
	return results
}

// ones makes all versions 1, which those of etcd are not.
type ones struct{ origin.Origin }

func (o ones) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	results, err := o.Origin.Load(ctx, keys)
	for i := range results {
		results[i].Value.Version = min(results[i].Value.Version, 1)
	}
	return results, err
}

func TestConformance(t *testing.T) {
	t.Parallel()
	e, n := start(t), 0
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer silent.Close()
	origintest.Conformance(t, origintest.Subject{
		New: func(t *testing.T, rows map[string]string) origin.Origin {
			n++
			prefix := fmt.Sprintf("/conformance/%d/", n)
			for some := range slices.Chunk(slices.Collect(maps.Keys(rows)), 100) {
				var ops []clientv3.Op
				for _, key := range some {
					ops = append(ops, clientv3.OpPut(prefix+key, rows[key]))
				}
				_, err := e.Txn(soon(t)).Then(ops...).Commit()
				check(t, err)
			}
			o, err := open(t, origin.Auth{}, e.Endpoint()).Dataset(origin.Dataset{Name: "rows", Prefix: prefix})
			check(t, err)
			return ones{o}
		},
		Stuck: func(t *testing.T) origin.Origin {
			return things(t, open(t, origin.Auth{}, "http://"+silent.Addr().String()))
		},
	})
}

func TestKeysDoNotLeaveThePrefix(t *testing.T) {
	t.Parallel()
	e := start(t)
	keys := []string{"..", "../other/secret", "/", "//", "a/../b", " ", "%2F", "*", "\ufeff", strings.Repeat("k", maxKeyBytes)}
	e.put(t, "/other/secret", "1", "/things", "2", "/things0", "3", "/thingz", "4", "/things/", "the empty key", "/things/\xff", "bytes",
		"/things/nul\x00", "NUL", "/things/"+strings.Repeat("k", maxKeyBytes+1), "long")
	d := things(t, open(t, origin.Auth{}, e.Endpoint()))
	for i, r := range load(t, d, keys...) {
		if !errors.Is(r.Err, origin.ErrNotFound) {
			t.Errorf("%q: got %q, %v; want not found", keys[i], r.Value.Data, r.Err)
		}
	}
	for _, key := range []string{"", "\xff", "nul\x00", strings.Repeat("k", maxKeyBytes+1)} {
		if r := load(t, d, key)[0]; !errors.Is(r.Err, origin.ErrInvalidKey) {
			t.Errorf("%q: got %q, %v; want an invalid key", key, r.Value.Data, r.Err)
		}
	}
	for _, key := range keys {
		e.put(t, "/things/"+key, "value of "+key)
	}
	for i, r := range load(t, d, keys...) {
		if string(r.Value.Data) != "value of "+keys[i] {
			t.Errorf("%q: got %q, %v", keys[i], r.Value.Data, r.Err)
		}
	}
	if got := list(t, d, ""); !slices.Equal(got, slices.Sorted(slices.Values(keys))) {
		t.Errorf("listed: got %q, want %q", got, keys)
	}
	if got := list(t, d, ".."); !slices.Equal(got, []string{"..", "../other/secret"}) {
		t.Errorf("listed with the prefix ..: got %q", got)
	}
}

// list returns the keys of a prefix, sorted.
func list(t *testing.T, d *dataset, prefix string) (keys []string) {
	t.Helper()
	check(t, d.ListKeys(soon(t), prefix, func(key string) bool {
		keys = append(keys, key)
		return true
	}))
	slices.Sort(keys)
	return keys
}

func TestPrefixes(t *testing.T) {
	t.Parallel()
	s := open(t, origin.Auth{}, "http://127.0.0.1:1")
	for prefix, want := range map[string]string{
		"/routes/": "", "routes:": "", "/": "", "/öl-": "", "": "is missing", "/routes": "want a separator", "/routes/9": "want a separator",
		"/ö": "want a separator", "/a\x00/": "without control characters", "/\xff/": "UTF-8", strings.Repeat("/", maxPrefix+1): "at most 1024 bytes",
	} {
		_, err := s.Dataset(origin.Dataset{Prefix: prefix})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %v, want %q", prefix, err, want)
		}
	}
	if _, err := s.KeyLister(origin.Dataset{Prefix: "/a/"}, "SELECT 1"); err == nil {
		t.Error("a query lists keys")
	}
}

func TestDSN(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[string]string{
		"http://a:1": "", "http://a, http://[::1]:2/": "", "https://a:1,https://b:2": "",
		"": "no list of members", "a:1": "no list of members", "ftp://a": "no list of members", "http://a:1,": "no list of members",
		"http://u:canary@a:1": "has a user", "http://a/canary": "has a path", "http://a?canary": "has a path",
		"https://a,http://b":                         "a mix of http:// and https://",
		strings.Repeat("http://a,", 16) + "http://a": "has 17 members",
	} {
		_, err := Driver().Open(origin.SourceConfig{DSN: dsn})
		switch {
		case want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: got %v, want %q", dsn, err, want)
		case err != nil && strings.Contains(err.Error(), "canary"):
			t.Errorf("the error has a part of the DSN: %v", err)
		}
	}
	for want, a := range map[string]origin.Auth{
		"takes no token": {TokenFile: "/f"}, "belong together": {Username: "u"}, "want https": {CAFile: "/f"},
	} {
		if _, err := Driver().Open(origin.SourceConfig{DSN: "http://a", Auth: a}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", a, err, want)
		}
	}
	clear := Driver().(origin.ClearTextDriver)
	isLocal := func(host string) bool { return host == "localhost" }
	for dsn, want := range map[string]string{"http://localhost,http://b": "use https", "http://localhost": "", "https://b": "", "x": ""} {
		if got := clear.ClearText(dsn, isLocal); got != want {
			t.Errorf("%s: got %q, want %q", dsn, got, want)
		}
	}
}

func TestVersionsGrow(t *testing.T) {
	t.Parallel()
	e := start(t)
	d := things(t, open(t, origin.Auth{}, e.Endpoint()))
	var last int64
	for _, value := range []string{"1", "2", "", "2"} {
		e.put(t, "/things/a", value)
		r := load(t, d, "a")[0]
		if string(r.Value.Data) != value || r.Value.Data == nil || r.Value.Version <= last || r.Err != nil {
			t.Errorf("got %q at version %d, %v; want %q at a version above %d", r.Value.Data, r.Value.Version, r.Err, value, last)
		}
		last = r.Value.Version
		if value == "" {
			_, err := e.Delete(soon(t), "/things/a")
			check(t, err)
			if r := load(t, d, "a")[0]; !errors.Is(r.Err, origin.ErrNotFound) {
				t.Errorf("deleted: got %q, %v", r.Value.Data, r.Err)
			}
		}
	}
}

// The server permits fewer operations than a batch has keys, and values that do not fit into one response.
func TestLargeValues(t *testing.T) {
	t.Parallel()
	e := start(t, "--max-txn-ops", "16", "--max-request-bytes", fmt.Sprint(8<<20))
	sizes := map[string]int{"one more": 1<<20 + 1, "a message": 5 << 20, "the limit": 1 << 20}
	for i := range 20 {
		sizes[fmt.Sprint("large-", i)] = 300 << 10
	}
	for key, size := range sizes {
		e.put(t, "/things/"+key, strings.Repeat("x", size))
	}
	keys := slices.Collect(maps.Keys(sizes))
	for i, r := range load(t, things(t, open(t, origin.Auth{}, e.Endpoint())), keys...) {
		want := sizes[keys[i]]
		if want > 1<<20 {
			if origin.CauseOf(r.Err) != origin.TooLarge {
				t.Errorf("%s: got %d bytes, %v; want too-large", keys[i], len(r.Value.Data), r.Err)
			}
		} else if len(r.Value.Data) != want || r.Err != nil {
			t.Errorf("%s: got %d bytes, %v; want %d", keys[i], len(r.Value.Data), r.Err, want)
		}
	}
}

func TestListOfManyKeys(t *testing.T) {
	t.Parallel()
	e := start(t)
	d := things(t, open(t, origin.Auth{}, e.Endpoint()))
	var want []string
	for some := range 11 {
		var ops []clientv3.Op
		for i := range 100 {
			key := fmt.Sprintf("key-%04d", 100*some+i)
			want = append(want, key)
			ops = append(ops, clientv3.OpPut("/things/"+key, ""))
		}
		_, err := e.Txn(soon(t)).Then(ops...).Commit()
		check(t, err)
	}
	for i := range 6 { // keys that no application can request, and that do not fit into one response
		e.put(t, fmt.Sprint("/things/long-", i, strings.Repeat("k", 1<<20)), "")
	}
	if got := list(t, d, ""); !slices.Equal(got, want) {
		t.Errorf("got %d keys, want %d", len(got), len(want))
	}
	n := 0
	check(t, d.ListKeys(soon(t), "", func(string) bool { n++; return n < 3 }))
	if n != 3 {
		t.Errorf("got %d keys, want that the list ends at the third", n)
	}
}

func TestLoadsTryTheNextMemberThatIsUp(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.put(t, "/things/a", "1")
	endpoints := append(slices.Repeat([]string{"http://127.0.0.1:1"}, maxEndpoints-1), e.Endpoint())
	s := open(t, origin.Auth{}, endpoints...)
	if r := load(t, things(t, s), "a")[0]; string(r.Value.Data) != "1" {
		t.Errorf("got %q, %v", r.Value.Data, r.Err)
	}
	e.Kill()
	if _, err := things(t, s).Load(soon(t), []string{"a"}); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no member is up: got %v, want an error of the connection", err)
	}
	e.Start()
	if r := load(t, things(t, s), "a")[0]; string(r.Value.Data) != "1" {
		t.Errorf("after the restart: got %q, %v", r.Value.Data, r.Err)
	}
}

func TestLoadsLeaveAMemberThatHangs(t *testing.T) {
	t.Parallel()
	both := []cluster{start(t), start(t)}
	for i, e := range both {
		e.put(t, "/things/a", fmt.Sprint(i))
	}
	d := things(t, open(t, origin.Auth{}, both[0].Endpoint(), both[1].Endpoint()))
	used := 0
	if string(load(t, d, "a")[0].Value.Data) == "1" {
		used = 1
	}
	both[used].Freeze()
	defer both[used].Thaw()
	for range 60 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		results, err := d.Load(ctx, []string{"a"})
		cancel()
		if err == nil && string(results[0].Value.Data) == fmt.Sprint(1-used) {
			return
		}
	}
	t.Error("all loads went to the member that hangs")
}

// secure enables authentication: root may do everything, reader may read /things/. Both have the password "secret-canary".
func (c cluster) secure(t *testing.T) (passwordFile string) {
	t.Helper()
	const password = "secret-canary"
	for _, user := range []string{"root", "reader"} {
		_, err := c.UserAdd(soon(t), user, password)
		check(t, err)
		if user != "root" { // etcd has its role
			_, err = c.RoleAdd(soon(t), user)
			check(t, err)
		}
		_, err = c.UserGrantRole(soon(t), user, user)
		check(t, err)
	}
	_, err := c.RoleGrantPermission(soon(t), "reader", "/things/", clientv3.GetPrefixRangeEnd("/things/"), clientv3.PermissionType(clientv3.PermRead))
	check(t, err)
	_, err = c.AuthEnable(soon(t))
	check(t, err)
	passwordFile = filepath.Join(t.TempDir(), "password")
	check(t, os.WriteFile(passwordFile, []byte(password+"\n"), 0o600))
	return passwordFile
}

func TestTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := origin.Auth{
		CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), CAFile: filepath.Join(dir, "ca.pem"),
	}
	newCertificate(t, a)
	e := rig.Etcd(t, "--cert-file", a.CertFile, "--key-file", a.KeyFile, "--trusted-ca-file", a.CAFile, "--client-cert-auth")
	if r := load(t, things(t, open(t, a, e.Endpoint())), "a")[0]; !errors.Is(r.Err, origin.ErrNotFound) {
		t.Errorf("got %q, %v; want not found", r.Value.Data, r.Err)
	}
	check(t, open(t, a, e.Endpoint()).CheckFeed(soon(t), origin.Dataset{Prefix: "/things/"}, origin.FeedConfig{Kind: origin.FeedWatch}))
	for what, a := range map[string]origin.Auth{"without a client certificate": {CAFile: a.CAFile}, "of an unknown authority": {}} {
		_, err := things(t, open(t, a, e.Endpoint())).Load(soon(t), []string{"a"})
		if err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: got %v, want an error of TLS", what, err)
		}
	}
}

// newCertificate writes a certificate that is its own authority, for a server and a client.
func newCertificate(t *testing.T, a origin.Auth) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	check(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	check(t, err)
	for path, block := range map[string]*pem.Block{
		a.CertFile: {Type: "CERTIFICATE", Bytes: cert}, a.CAFile: {Type: "CERTIFICATE", Bytes: cert}, a.KeyFile: {Type: "PRIVATE KEY", Bytes: der},
	} {
		check(t, os.WriteFile(path, pem.EncodeToMemory(block), 0o600))
	}
}

func TestRights(t *testing.T) {
	t.Parallel()
	e := start(t, "--bcrypt-cost", "4")
	e.put(t, "/things/a", "1", "/secrets/a", "2")
	a := origin.Auth{Username: "reader", PasswordFile: e.secure(t)}
	s := open(t, a, e.Endpoint())
	if r := load(t, things(t, s), "a")[0]; string(r.Value.Data) != "1" {
		t.Errorf("got %q, %v", r.Value.Data, r.Err)
	}
	watch := origin.FeedConfig{Kind: origin.FeedWatch}
	permitted, secrets := origin.Dataset{Name: "things", Prefix: "/things/"}, origin.Dataset{Name: "secrets", Prefix: "/secrets/"}
	check(t, s.CheckFeed(soon(t), permitted, watch))
	if err := s.Check(soon(t), secrets); !isDenied(err) || !strings.Contains(err.Error(), "grant-permission") {
		t.Errorf("Check: got %v", err)
	}
	if err := s.CheckFeed(soon(t), secrets, watch); !errors.Is(err, origin.ErrFeedUnavailable) {
		t.Errorf("CheckFeed: got %v", err)
	}
	d, err := s.dataset(secrets)
	check(t, err)
	if _, err := d.Load(soon(t), []string{"a", "b"}); !isDenied(err) {
		t.Errorf("Load: got %v", err)
	}
	if r := load(t, things(t, s), "a")[0]; string(r.Value.Data) != "1" {
		t.Errorf("after the rejections: got %q, %v", r.Value.Data, r.Err)
	}

	check(t, os.WriteFile(a.PasswordFile, []byte("wrong-canary"), 0o600))
	wrong := things(t, open(t, a, e.Endpoint()))
	_, err = wrong.Load(soon(t), []string{"a"})
	if err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("wrong password: got %v", err)
	}
	check(t, os.WriteFile(a.PasswordFile, []byte("secret-canary"), 0o600))
	if r := load(t, wrong, "a")[0]; string(r.Value.Data) != "1" { // the file is read again
		t.Errorf("with the new password: got %q, %v", r.Value.Data, r.Err)
	}
}
