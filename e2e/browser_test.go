package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// The console in a real Chromium: history at its opening, the path of a key, hostile text, both themes, a phone, the keyboard alone,
// the rules of WCAG 2.2 AA, and a killed member.
func TestConsoleInChromium(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	installLanguages(t)
	c.fill("key-", 100)
	ctx, stop := context.WithCancel(t.Context())
	var reading sync.WaitGroup
	reading.Go(func() { c.readSlowly(ctx) })
	defer func() { stop(); reading.Wait() }()
	rig.Eventually(t, time.Minute, func() error { return hasHistory(c.sidecars[0], 4) })
	c.console(t, "whole")
	c.sidecars[1].Kill()
	c.console(t, "killed")
}

// readSlowly reads a little, through members that are not killed, until ctx is done: the browser needs the machine.
func (c *cluster) readSlowly(ctx context.Context) {
	for i := 0; ctx.Err() == nil; i++ {
		_, _, _ = c.get(i%2*2, "cnf-metrics", fmt.Sprint("key-", i%100)) // the console shows failures
		time.Sleep(20 * time.Millisecond)
	}
}

// hasHistory returns an error while a sidecar has fewer than n intervals with hits.
func hasHistory(s *rig.Sidecar, n int) error {
	var h struct {
		Series []struct {
			Scope  string
			Counts map[string][]int64
		}
	}
	response, err := http.Get("http://" + s.Admin + "/api/history")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&h); err != nil {
		return err
	}
	known := 0
	for _, series := range h.Series {
		for _, hits := range series.Counts["hit"] {
			if series.Scope == "all" && hits > 0 {
				known++
			}
		}
	}
	if known < n {
		return fmt.Errorf("%d intervals have hits, want %d", known, n)
	}
	return nil
}

func (c *cluster) console(t *testing.T, phase string) {
	t.Helper()
	packages, err := filepath.Abs("../.bin/browser")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("node", "browser/console.mjs", packages, "http://"+c.sidecars[0].Admin+"/", phase).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "checks, 0 failed") {
		t.Errorf("%s: %v\n%s", phase, err, out)
	}
	t.Logf("%s: %s", phase, out)
}
