package rig_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
)

func TestEtcdKeepsItsKeysUntilItIsWiped(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	timeout := time.Minute
	ask := func(path, body string) (status string) {
		client := http.Client{Timeout: timeout}
		resp, err := client.Post(e.Endpoint()+path, "application/json", strings.NewReader(body))
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		answer := make([]byte, 4<<10)
		n, _ := resp.Body.Read(answer)
		return string(answer[:n])
	}
	holdsKey := func() bool { return strings.Contains(ask("/v3/kv/range", `{"key":"aw=="}`), `"count":"1"`) }

	ask("/v3/kv/put", `{"key":"aw==","value":"dg=="}`)
	e.Compact()
	e.Stop()
	e.Start()
	if !holdsKey() {
		t.Error("the key is gone after a restart")
	}
	e.Freeze()
	timeout = time.Second
	if holdsKey() {
		t.Error("a frozen server answers")
	}
	timeout = time.Minute
	e.Thaw()
	e.Wipe()
	e.Start()
	if holdsKey() {
		t.Error("the key survived a wipe")
	}
}
