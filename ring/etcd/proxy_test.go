package etcd

import (
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

// The environment's proxy is read once per process: the test runs itself in another one.
func TestEtcdIsCalledWithoutTheProxyOfTheEnvironment(t *testing.T) {
	if os.Getenv("RINGSIDE_TEST_PROXY") != "" {
		d := open(t, "http://etcd.invalid:2379", nil)
		if err := d.Check(t.Context()); err == nil {
			t.Error("a host that does not exist answered")
		}
		return
	}
	proxy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	called := make(chan struct{}, 100)
	go func() {
		for {
			conn, err := proxy.Accept()
			if err != nil {
				return
			}
			called <- struct{}{}
			_ = conn.Close()
		}
	}()
	test := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout="+time.Minute.String())
	url := "http://" + proxy.Addr().String()
	test.Env = append(os.Environ(), "RINGSIDE_TEST_PROXY=1", "HTTPS_PROXY="+url, "HTTP_PROXY="+url, "ALL_PROXY="+url, "NO_PROXY=")
	if out, err := test.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	select {
	case <-called:
		t.Error("the proxy was called; want that etcd is")
	default:
	}
}
