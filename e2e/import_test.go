package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// grafana answers like the HTTP API of Grafana, as far as import.sh uses it.
type grafana struct {
	mu         sync.Mutex
	dashboards map[string]bool // :: uid → overwritten
	sources    []string
}

func (g *grafana) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var body struct {
		Overwrite bool
		Dashboard struct {
			ID  *int
			UID string
		}
		URL string
	}
	user, password, _ := r.BasicAuth()
	switch err := json.NewDecoder(r.Body).Decode(&body); {
	case r.Header.Get("Authorization") != "Bearer s3cret" && user+password != "adminadmin":
		http.Error(w, `{"message":"Unauthorized"}`, http.StatusUnauthorized)
	case err != nil:
		http.Error(w, fmt.Sprintf(`{"message":%q}`, err), http.StatusBadRequest)
	case r.URL.Path == "/grafana/api/datasources" && len(g.sources) > 0:
		http.Error(w, `{"message":"data source with the same name already exists"}`, http.StatusConflict)
	case r.URL.Path == "/grafana/api/datasources":
		g.sources = append(g.sources, body.URL)
	case r.URL.Path == "/grafana/api/dashboards/db" && body.Dashboard.ID == nil:
		_, known := g.dashboards[body.Dashboard.UID]
		if known && !body.Overwrite {
			http.Error(w, `{"message":"exists"}`, http.StatusPreconditionFailed)
		}
		g.dashboards[body.Dashboard.UID] = known
	default:
		http.NotFound(w, r)
	}
}

func TestDashboardsAreImportedIntoARunningGrafana(t *testing.T) {
	g := &grafana{dashboards: map[string]bool{}}
	server := httptest.NewServer(g)
	defer server.Close()
	importing := func(variables ...string) (string, error) {
		cmd := exec.Command("../deploy/grafana/import.sh", server.URL+"/grafana/", "http://prometheus:9090")
		cmd.Env = append(cmd.Environ(), variables...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for range 2 { // the second time updates them
		out, err := importing("GRAFANA_TOKEN=s3cret")
		if err != nil || strings.Count(out, server.URL+"/grafana/d/ringside-") != 4 {
			t.Fatalf("import.sh: %v\n%s", err, out)
		}
	}
	if len(g.dashboards) != 4 || !g.dashboards["ringside-injector"] || len(g.sources) != 1 || g.sources[0] != "http://prometheus:9090" {
		t.Errorf("got %+v", g)
	}
	if out, err := importing(); err != nil {
		t.Errorf("as admin: %v\n%s", err, out)
	}
	if out, err := importing("GRAFANA_TOKEN=wrong"); err == nil || !strings.Contains(out, "401") || strings.Contains(out, "wrong") {
		t.Errorf("with a wrong token: %v\n%s", err, out)
	}
}
