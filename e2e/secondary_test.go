package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
)

// function is a network function with two endpoints: the sidecar in its pod, and the peer listener of another member.
type function struct {
	client            *http.Client
	primary           string // http://host:port
	secondary         string
	failed, fallbacks atomic.Int64
	reads, longest    atomic.Int64 // longest is in nanoseconds
	last              atomic.Pointer[string]
}

// read tries the second endpoint when the first one does not answer, as `backup` of a proxy does.
func (f *function) read(path string) {
	began := time.Now()
	err := f.get(f.primary + path)
	if err != nil {
		f.fallbacks.Add(1)
		err = f.get(f.secondary + path)
	}
	f.reads.Add(1)
	for took := int64(time.Since(began)); took > f.longest.Load(); {
		f.longest.Store(took)
	}
	if err != nil {
		f.failed.Add(1)
		why := err.Error()
		f.last.Store(&why)
	}
}

func (f *function) get(url string) error {
	response, err := f.client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %d %s", url, response.StatusCode, body)
	}
	return err
}

// The sidecar in the pod of a network function dies and starts again; the function reads from the peer listener of another
// member, whose certificate and whose own certificate are those of members and clients.
func TestFunctionReadsFromAnotherMemberWhileItsSidecarIsDown(t *testing.T) {
	ca := peertest.NewAuthority(t)
	c := newClusterWithTLS(t, ca, 3, rig.Sidecars)
	c.fill("key-", loadKeys)
	f := &function{
		client:  &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: functionTLS(t, ca), MaxIdleConnsPerHost: 16}},
		primary: "http://" + c.sidecars[0].HTTP, secondary: "https://" + c.sidecars[1].Peer,
	}
	t.Cleanup(f.client.CloseIdleConnections)
	var stop atomic.Bool
	var workers sync.WaitGroup
	for w := range 8 {
		workers.Go(func() {
			for i := w; !stop.Load(); i++ {
				f.read(fmt.Sprint("/v1/short-metrics/key-", i*7%loadKeys))
			}
		})
	}
	await := func(n *atomic.Int64, more int64) {
		t.Helper()
		until := n.Load() + more
		rig.Eventually(t, time.Minute, func() error {
			if got := n.Load(); got < until {
				return fmt.Errorf("%d reads; want %d", got, until)
			}
			return nil
		})
	}
	await(&f.reads, 1000)
	c.sidecars[0].Kill()
	await(&f.fallbacks, 2000) // keys of the dead member, of the second one and of the third one
	c.sidecars[0].Start()
	await(&f.reads, 1000)
	stop.Store(true)
	workers.Wait()
	if failed := f.failed.Load(); failed != 0 {
		t.Errorf("%d of %d reads failed, the last with %s", failed, f.reads.Load(), *f.last.Load())
	}
	t.Logf("0 of %d reads failed, %d of them at the second endpoint; the longest took %v",
		f.reads.Load(), f.fallbacks.Load(), time.Duration(f.longest.Load()))
	routedClientMayNotWrite(t, f)
}

// functionTLS presents the certificate of a client, and verifies the authority and not a name: the id of a member is a SPIFFE id.
func functionTLS(t *testing.T, ca *peertest.Authority) *tls.Config {
	files := envoyTLS(t, ca, peertest.AsClient("radius"))
	own, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(files.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{
		Certificates: []tls.Certificate{own}, InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
			return err
		},
	}
}

// By default the second endpoint is for reads.
func routedClientMayNotWrite(t *testing.T, f *function) {
	t.Helper()
	request, err := http.NewRequest(http.MethodDelete, f.secondary+"/v1/short-metrics/key-1", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := f.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("a write of a client without permission: %d, want 403", response.StatusCode)
	}
}
