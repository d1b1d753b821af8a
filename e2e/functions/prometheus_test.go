package functions

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// prometheus gets the targets of its jobs, each of which has a list. A request is a refresh of the list of a job.
var prometheus = &function{
	name: "prometheus", keys: 200 + reserved, reads: []string{"scrape-targets"}, engines: []string{"postgres"},
	ringside: []string{"prometheus.yml", "ringside.yaml", "postgres.sql"}, direct: []string{"prometheus.yml", "postgres.sql", lookupService},
	fill: fillTargets, ask: askTargets, traffic: refresh,
	start: func(t *testing.T, p *place) *rig.Server {
		t.Helper()
		local, secondary := p.lookups(targetLookup)
		p.page("prometheus.yml", "127.0.0.1:7070", local, "10.0.0.6:7072", secondary)
		return nil // askTargets and refresh start it, with the jobs that they need
	},
	requests: []request{
		{"job with targets", []string{"job-7"}, "127.1.0.7:9100 site-1\n127.2.0.7:9100 site-1"},
		{"job without targets", []string{"nothing"}, ""},
		{"labels with special characters", []string{"special"}, `127.1.0.1:9100 Zürich "Nord" \ 1`},
	},
}

var targetLookup = lookup{
	path: "/v1/scrape-targets/", query: "SELECT list FROM target_lists WHERE job = $1",
	contentType: "application/json", absent: http.StatusOK, absentBody: "[]",
}

func fillTargets(p *place) {
	p.sql.exec("CREATE TABLE scrape_targets (job varchar(64), address varchar(64), site varchar(64), PRIMARY KEY (job, address))")
	rows := []string{`('special', '127.1.0.1:9100', 'Zürich "Nord" \ 1')`}
	for i := range p.f.keys {
		for _, network := range []int{1, 2} {
			rows = append(rows, fmt.Sprintf("('job-%d', '127.%d.%d.%d:9100', 'site-%d')", i, network, i/256, i%256, i%3))
		}
	}
	p.sql.insert("scrape_targets", "job, address, site", rows)
	p.createViews()
}

// promConfig writes a configuration that has the job of the page once for each of the given jobs. It scrapes nothing.
func promConfig(p *place, jobs []string, every time.Duration) (path string, err error) {
	page, err := os.ReadFile(filepath.Join(p.dir, "prometheus.yml"))
	if err != nil {
		return "", err
	}
	head, job, found := strings.Cut(string(page), "scrape_configs:\n")
	if !found {
		return "", fmt.Errorf("prometheus.yml does not have scrape_configs")
	}
	var b strings.Builder
	b.WriteString(head + "global: {scrape_interval: 1h}\nscrape_configs:\n")
	interval := fmt.Sprintf("%dms", every.Milliseconds())
	for _, name := range jobs {
		b.WriteString(strings.NewReplacer("edge", name, "30s", interval).Replace(job))
	}
	path = filepath.Join(p.dir, "jobs.yml")
	return path, os.WriteFile(path, []byte(b.String()), 0o600)
}

// askTargets returns the targets that Prometheus discovers for a job, with their sites.
func askTargets(p *place, r request) (string, error) {
	config, err := promConfig(p, r.input, time.Minute)
	if err != nil {
		return "", err
	}
	out, err := exec.Command("promtool", "check", "service-discovery", "--timeout=10s", config, r.input[0]).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("promtool: %w\n%s", err, out)
	}
	var found []struct {
		DiscoveredLabels map[string]string `json:"discoveredLabels"`
	}
	if err := json.Unmarshal(out, &found); err != nil {
		return "", fmt.Errorf("promtool: %w\n%s", err, out)
	}
	var lines []string
	for _, target := range found {
		lines = append(lines, target.DiscoveredLabels["__address__"]+" "+target.DiscoveredLabels["site"])
	}
	// Both URLs of the job have each target. Prometheus drops duplicates when it begins to scrape.
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(lines))), "\n"), nil
}

// refresh starts a Prometheus and lets it get the list of each job until there were as many refreshes as wanted.
func refresh(p *place, l load) (outcome, error) {
	var jobs []string
	l.keys = min(l.keys, 100)
	l.requests = min(l.requests, 20*l.keys)
	for _, key := range l.order()[:min(l.keys, l.requests)] {
		jobs = append(jobs, fmt.Sprintf("job-%d", key))
	}
	const every = 2 * time.Second // also the time limit of a refresh, so that shorter ones fail on a busy machine
	config, err := promConfig(p, jobs, every)
	if err != nil {
		return outcome{}, err
	}
	dir, err := os.MkdirTemp(p.dir, "run-")
	if err != nil {
		return outcome{}, err
	}
	run := &promRun{address: fmt.Sprintf("127.0.0.1:%d", rig.FreePort(p.t)), log: filepath.Join(dir, "log")}
	return run.measure(p, l, dir, config)
}

// promRun is a Prometheus that runs for one load.
type promRun struct{ address, log string }

func (r *promRun) measure(p *place, l load, dir, config string) (outcome, error) {
	log, err := os.Create(r.log)
	if err != nil {
		return outcome{}, err
	}
	defer log.Close()
	cmd := exec.Command("prometheus", "--config.file="+config, "--storage.tsdb.path="+dir, "--web.listen-address="+r.address)
	cmd.Stdout, cmd.Stderr = log, log
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return outcome{}, err
	}
	defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
	const urls = 2 // of each job
	for limit := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		m, err := r.metrics()
		refreshes := int(m["_count"])
		if err == nil && refreshes >= urls*l.requests {
			excused, err := r.excused(p)
			failures := min(int(m["failures"]), refreshes) // failures are read later than refreshes
			return outcome{
				Requests: refreshes - excused, Failed: max(0, failures-excused), Took: time.Since(began),
				P50: seconds(m[`quantile="0.5"`]), P99: seconds(m[`quantile="0.99"`]),
			}, err
		}
		if time.Now().After(limit) {
			return outcome{}, fmt.Errorf("prometheus has refreshed %d of %d lists within two minutes: %w", refreshes, urls*l.requests, err)
		}
	}
}

// sdMetric is a metric of Prometheus about its refreshes by HTTP.
var sdMetric = regexp.MustCompile(`^prometheus_sd_refresh_(failures|duration_seconds)(_count|_total)?\{mechanism="http",?([^}]*)\} (.*)$`)

// metrics returns the number of refreshes as _count, that of failed ones as failures, and the quantiles of their duration.
func (r *promRun) metrics() (map[string]float64, error) {
	response, err := http.Get("http://" + r.address + "/metrics")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	m := map[string]float64{}
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if match := sdMetric.FindStringSubmatch(lines.Text()); match != nil {
			name := match[2] + match[3]
			if match[1] == "failures" {
				name = match[1]
			}
			if m[name], err = strconv.ParseFloat(match[4], 64); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

func seconds(s float64) time.Duration {
	if math.IsNaN(s) { // no refresh in the last ten minutes
		return 0
	}
	return time.Duration(s * float64(time.Second))
}

// excused returns the number of refreshes that failed because the local sidecar does not run. The other URL of the job has the same
// targets.
func (r *promRun) excused(p *place) (n int, err error) {
	if p.local == nil || p.local.Running() {
		return 0, nil
	}
	log, err := os.ReadFile(r.log)
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "Unable to refresh target groups") && strings.Contains(line, "http://"+p.local.HTTP+"/") {
			n++
		}
	}
	return n, err
}
