package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
)

// shortLife is how long the certificates of the rotation test are valid: connections must be replaced during the test.
const shortLife = 20 * time.Second

// rotation replaces the certificates of members while these are called. Each member has its folder behind a symbolic link, as
// in a volume of Kubernetes.
type rotation struct {
	t       *testing.T
	dir     string
	members []string
	trusted []*peertest.Authority
	issuer  *peertest.Authority
	folders int

	written map[string]peertest.Identity // :: member → the identity in its files
	calls   int
	failed  []string
	used    int // rotations after which a new connection had the new certificate
}

func newRotation(t *testing.T, members ...string) *rotation {
	t.Helper()
	r := &rotation{t: t, dir: t.TempDir(), members: members, issuer: peertest.NewAuthority(t), written: map[string]peertest.Identity{}}
	r.trusted = []*peertest.Authority{r.issuer}
	r.issue()
	for _, id := range members {
		r.replace(id)
	}
	return r
}

func (r *rotation) bundle() (pem []byte) {
	for _, ca := range r.trusted {
		pem = append(pem, ca.PEM()...)
	}
	return pem
}

// issue prepares a new identity for each member.
func (r *rotation) issue() {
	for _, id := range r.members {
		r.written[id] = r.identity(peertest.AsMember(id))
	}
}

func (r *rotation) identity(as func(*x509.Certificate)) peertest.Identity {
	return r.issuer.Issue(r.t, func(c *x509.Certificate) {
		as(c)
		c.NotAfter = time.Now().Add(shortLife)
	})
}

// replace replaces all files of a member at once: by a new folder, to which its link is moved.
func (r *rotation) replace(id string) {
	r.folders++
	folder := fmt.Sprintf("%s-%d", id, r.folders)
	if err := os.Mkdir(filepath.Join(r.dir, folder), 0o700); err != nil {
		r.t.Fatal(err)
	}
	filesIn(filepath.Join(r.dir, folder)).Write(r.t, r.written[id], r.bundle())
	link := filepath.Join(r.dir, "new")
	if err := os.Symlink(folder, link); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(link, filepath.Join(r.dir, id)); err != nil {
		r.t.Fatal(err)
	}
}

// overwrite replaces the files of a member one by one; between, some are old, and one is cut off.
func (r *rotation) overwrite(id string, between func()) {
	f := filesIn(filepath.Join(r.dir, id))
	if err := os.WriteFile(f.CertFile, r.written[id].Cert[:100], 0o600); err != nil {
		r.t.Fatal(err)
	}
	between()
	if err := os.WriteFile(f.CertFile, r.written[id].Cert, 0o600); err != nil {
		r.t.Fatal(err)
	}
	between()
	f.Write(r.t, r.written[id], r.bundle())
}

// run is one rotation; each fifth is one of the authority.
func (r *rotation) run(i int, call func()) {
	newCA := i%5 == 4
	if newCA {
		r.trusted = append(r.trusted, peertest.NewAuthority(r.t))
		for _, id := range r.members {
			r.replace(id) // first, everybody trusts both
		}
		call()
		r.issuer = r.trusted[1]
	}
	r.issue()
	for _, id := range r.members {
		if i%2 == 0 {
			r.replace(id)
		} else {
			r.overwrite(id, call)
		}
		call()
	}
	if newCA {
		r.trusted = r.trusted[1:]
		for _, id := range r.members {
			r.replace(id)
		}
		call()
	}
}

// call calls each member on new connections, as a client and as a member, and reports whether all have their new certificates.
func (r *rotation) call(sidecars []*rig.Sidecar) (renewed bool) {
	client := peertest.BadIdentity{Certificates: []tls.Certificate{r.identity(peertest.AsClient("c")).Parse(r.t)}}
	pool := peer.NewPool(peer.Config{
		Self: "caller", Credentials: peertest.NewCredentials(r.t, r.identity(peertest.AsMember("caller")), r.bundle()),
	})
	defer pool.Close()
	members := make([]ring.Member, len(sidecars))
	for i, s := range sidecars {
		members[i] = ring.Member{ID: s.ID, Addr: s.Peer}
	}
	all, err := ring.New(members, ring.Size{})
	if err != nil {
		r.t.Fatal(err)
	}
	pool.SetRing(all, nil)
	renewed = true
	for i, s := range sidecars {
		config := client.Config()
		var serial string
		config.VerifyConnection = func(state tls.ConnectionState) error {
			serial = state.PeerCertificates[0].SerialNumber.String()
			return nil
		}
		r.count(s.ID+" as a client", overHTTPS(s.Peer, config, func(p *http.Protocols) { p.SetHTTP2(true) }))
		r.count(s.ID+" as a member", pool.Ping(r.t.Context(), members[i]))
		renewed = renewed && serial == r.written[s.ID].Parse(r.t).Leaf.SerialNumber.String()
	}
	return renewed
}

func (r *rotation) count(what string, err error) {
	r.calls++
	if err != nil {
		r.failed = append(r.failed, fmt.Sprint(what, ": ", err))
	}
}

func TestPromiseE2RotationsFailNoCall(t *testing.T) {
	t.Parallel()
	const rotations = 100
	r := newRotation(t, "sidecar-1", "sidecar-2", "sidecar-3")
	c := newClusterWithTLSIn(t, r.dir, len(r.members), rig.Sidecars)
	c.fill("key-", 100)
	l := c.load(2, 100, "key-", 0, 1, 2)
	for i := range rotations {
		r.run(i, func() { r.call(c.sidecars) })
		if r.call(c.sidecars) {
			r.used++
		}
	}
	l.stop()
	unreachable := 0.0
	for _, s := range c.sidecars {
		unreachable += s.Metric("ringside_peer_unreachable_total")
		if got := s.Metric("ringside_peer_tls_last_reload_failed"); got != 0 {
			t.Errorf("%s: the last files were not used", s.ID)
		}
	}
	if r.used != rotations {
		t.Errorf("new connections had the new certificates after %d of %d rotations", r.used, rotations)
	}
	failed := len(r.failed) + int(l.failed.Load()) + int(unreachable)
	report(t, promise{
		number: "E2", n: rotations, held: failed == 0,
		done: fmt.Sprintf("%d rotations of the certificates of 3 sidecars, %d of them to a new CA, with files replaced at once, one by one, and half-written", rotations, rotations/5),
		figure: fmt.Sprintf("%d of %d calls on new connections and %d of %d reads failed; %v peer fetches found no member%s%s",
			len(r.failed), r.calls, l.failed.Load(), l.reads.Load(), unreachable, first(r.failed), l.failure()),
	})
}
