package e2e

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
)

var draw = flag.Bool("draw", false, "make the faults last longer, and draw them in deploy/grafana/fleet.png")

// prometheus is a Prometheus server with the rules of deploy/prometheus that scrapes a cluster.
type prometheus struct {
	t        *testing.T
	address  string
	began    time.Time
	deadline time.Time // of all calls of wantSamples
}

func newPrometheus(t *testing.T, c *cluster) *prometheus {
	t.Helper()
	var targets []string
	for _, s := range c.sidecars {
		targets = append(targets, s.Metrics)
	}
	return &prometheus{t: t, address: rig.Prometheus(t, ruleFiles(t), targets), began: time.Now()}
}

func ruleFiles(t *testing.T) []string {
	t.Helper()
	folder, err := filepath.Abs("../deploy/prometheus")
	if err != nil {
		t.Fatal(err)
	}
	return []string{filepath.Join(folder, "rules.yml"), filepath.Join(folder, "alerts.yml")}
}

// query decodes the data of a response of Prometheus' API.
func (p *prometheus) query(path string, values url.Values, data any) error {
	response, err := http.Get("http://" + p.address + path + "?" + values.Encode())
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer := struct {
		Error string
		Data  any
	}{Data: data}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Error != "" {
		return fmt.Errorf("%s: %s", path, answer.Error)
	}
	return nil
}

// samples counts the numbers that a range query returns since the start, with steps of a second. 0/0 is not a number.
func (p *prometheus) samples(query string) (n int, err error) {
	var data struct {
		Result []struct{ Values [][2]any }
	}
	err = p.query("/api/v1/query_range", url.Values{
		"query": {query}, "step": {"1"},
		"start": {fmt.Sprint(p.began.Unix())}, "end": {fmt.Sprint(time.Now().Unix())},
	}, &data)
	for _, series := range data.Result {
		for _, value := range series.Values {
			text, _ := value[1].(string) // of a time and a value
			if number, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(number) {
				n++
			}
		}
	}
	return n, err
}

// wantSamples waits until a query returns a number, for at most a minute in all: on a busy machine, scrapes and evaluations of
// rules are late.
func (p *prometheus) wantSamples(what, query string) {
	p.t.Helper()
	if p.deadline.IsZero() {
		p.deadline = time.Now().Add(time.Minute)
	}
	for {
		n, err := p.samples(query)
		if n > 0 {
			return
		}
		if time.Now().After(p.deadline) {
			p.t.Errorf("%s returns nothing (%v):\n%s", what, err, query)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// awaitScrapes waits until all targets have been scraped three times, as a rate needs.
func (p *prometheus) awaitScrapes(targets int) {
	p.t.Helper()
	rig.Eventually(p.t, time.Minute, func() error {
		if n, err := p.samples(fmt.Sprintf("count(ringside_build_info) == %d", targets)); n < 3 {
			return fmt.Errorf("%d targets have %d scrapes: %v", targets, n, err)
		}
		return nil
	})
}

// awaitAlert waits until an alert is pending or fires.
func (p *prometheus) awaitAlert(name string) {
	p.t.Helper()
	rig.Eventually(p.t, time.Minute, func() error {
		if n, err := p.samples(fmt.Sprintf("ALERTS{alertname=%q}", name)); n == 0 {
			return fmt.Errorf("no alert %s: %v", name, err)
		}
		return nil
	})
}

type rule struct {
	Name, Type, Query, Health, LastError string
}

func (p *prometheus) rules() (all []rule) {
	p.t.Helper()
	var data struct{ Groups []struct{ Rules []rule } }
	if err := p.query("/api/v1/rules", nil, &data); err != nil {
		p.t.Fatal(err)
	}
	for _, group := range data.Groups {
		all = append(all, group.Rules...)
	}
	if len(all) == 0 {
		p.t.Fatal("no rules are loaded")
	}
	return all
}

var metricName = regexp.MustCompile(`\b(?:ringside|process|go)_[a-z_]+|\b[a-z_]+:ringside_[a-z_]+:[a-z0-9_]+`)

// wantMetrics finds misspelled names of metrics in queries that may return no data, as those of alerts.
func (p *prometheus) wantMetrics(what, query string, names []string) {
	p.t.Helper()
	for _, name := range metricName.FindAllString(query, -1) {
		if !slices.Contains(names, name) {
			p.t.Errorf("%s: there is no metric %s", what, name)
		}
	}
}

func (p *prometheus) names() (names []string) {
	p.t.Helper()
	if err := p.query("/api/v1/label/__name__/values", nil, &names); err != nil {
		p.t.Fatal(err)
	}
	return names
}

// Every query of the dashboards and rules returns data for a cluster under load in which faults have happened, and each fault
// raises its alerts.
func TestDashboardsAndRulesOnARealPrometheus(t *testing.T) {
	t.Parallel()
	c := newClusterWithTLS(t, peertest.NewAuthority(t), 3, func(t testing.TB, n int, config string) []*rig.Sidecar {
		config = strings.Replace(config, "cnf-metrics: {", "cnf-metrics: {feed: {kind: poll}, ", 1)
		config = strings.Replace(config, "short-metrics: {", "short-metrics: {writable: true, ", 1)
		applyFeeds(t, config, "cnf-metrics")
		return rig.Sidecars(t, n, config)
	})
	c.fill("key-", loadKeys)
	p := newPrometheus(t, c)
	phase := time.Second
	if *draw {
		phase = 20 * time.Second
	}
	l := c.load(4, loadKeys, "key-", 0, 1)
	p.awaitScrapes(len(c.sidecars))
	time.Sleep(phase)
	p.sidecarDies(c, phase)
	p.databaseDies(c, phase)
	p.etcdFreezes(c)
	p.garbageIsRegistered(c)
	rig.AwaitRing(t, c.sidecars)
	time.Sleep(phase)
	p.checkRules()
	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	writing.Go(func() { c.writeSlowly(ctx, t) })
	p.wantSamples("a write", "ringside_write_duration_seconds_count")
	p.checkDashboards(c)
	stop()
	writing.Wait()
	l.stop()
	if *draw {
		p.draw()
	}
}

// writeSlowly writes a row of short-metrics until ctx is done.
func (c *cluster) writeSlowly(ctx context.Context, t *testing.T) {
	for ; ctx.Err() == nil; time.Sleep(200 * time.Millisecond) {
		request, err := http.NewRequest(http.MethodPut, "http://"+c.sidecars[0].HTTP+"/v1/short-metrics/key-0", strings.NewReader(`{"value": 2}`))
		if err != nil {
			t.Error(err)
			return
		}
		response, err := c.client.Do(request)
		if err != nil {
			t.Error(err)
			return
		}
		response.Body.Close()
		if response.StatusCode/100 != 2 {
			t.Errorf("a write is answered with %s", response.Status)
			return
		}
	}
}

func (p *prometheus) sidecarDies(c *cluster, phase time.Duration) {
	c.sidecars[2].Kill()
	p.awaitAlert("RingsideSidecarDown")
	time.Sleep(phase)
	c.sidecars[2].Start()
	rig.AwaitRing(p.t, c.sidecars)
	time.Sleep(phase)
}

func (p *prometheus) databaseDies(c *cluster, phase time.Duration) {
	c.database.Kill()
	misses := c.load(1, math.MaxInt, "not-cached-", 0) // these reads fail now
	p.awaitAlert("RingsideOriginUnavailable")
	p.awaitAlert("RingsideServesStale")
	p.awaitAlert("RingsideReadErrors")
	time.Sleep(phase)
	misses.stop()
	c.database.Start()
	time.Sleep(phase)
}

func (p *prometheus) etcdFreezes(c *cluster) {
	c.etcd.Freeze()
	p.awaitAlert("RingsideDirectoryDisconnected")
	c.etcd.Thaw()
}

func (p *prometheus) garbageIsRegistered(c *cluster) {
	key := base64.StdEncoding.EncodeToString([]byte("/ringside/default/members/garbage"))
	body := fmt.Sprintf(`{"key": %q, "value": "AA=="}`, key)
	response, err := http.Post(c.etcd.Endpoint()+"/v3/kv/put", "application/json", strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	response.Body.Close()
	p.awaitAlert("RingsideInvalidRecords")
}

func (p *prometheus) checkRules() {
	names := p.names()
	for _, r := range p.rules() {
		if r.Health != "ok" {
			p.t.Errorf("rule %s: %s %s", r.Name, r.Health, r.LastError)
		}
		p.wantMetrics("rule "+r.Name, r.Query, names)
		if r.Type == "recording" {
			p.wantSamples("rule "+r.Name, r.Name)
		}
	}
}

func (p *prometheus) checkDashboards(c *cluster) {
	p.checkQueries(strings.NewReplacer("$__rate_interval", "10s",
		"$job", "ringside", "$cluster", ".*", "$namespace", ".*", "$dataset", "short-metrics", "$instance", c.sidecars[0].Metrics),
		"fleet.json", "dataset.json", "pod.json")
}

// The dashboard of the injector shows a real one.
func TestDashboardOfTheInjectorOnARealPrometheus(t *testing.T) {
	t.Parallel()
	i := startInjector(t)
	p := &prometheus{t: t, address: rig.Prometheus(t, ruleFiles(t), []string{i.metrics}), began: time.Now()}
	ctx, stop := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asking.Go(func() { i.reviewSlowly(ctx, t) })
	defer func() { stop(); asking.Wait() }()
	p.wantSamples("a scrape", "ringside_injector_reviews_total")
	p.checkQueries(strings.NewReplacer("$__rate_interval", "10s", "$cluster", ".*", "$namespace", ".*"), "injector.json")
}

// reviewSlowly sends bodies that are no reviews, which are counted like others, until ctx is done.
func (i *limitedInjector) reviewSlowly(ctx context.Context, t *testing.T) {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	for ; ctx.Err() == nil; time.Sleep(200 * time.Millisecond) {
		response, err := client.Post("https://"+i.webhook+"/inject/pod", "application/json", strings.NewReader("{}"))
		if err != nil {
			t.Error(err)
			return
		}
		response.Body.Close()
	}
}

// checkQueries checks that each query of dashboards returns data, with metrics that exist.
func (p *prometheus) checkQueries(fill *strings.Replacer, files ...string) {
	names := p.names()
	for _, d := range dashboards(p.t) {
		if !slices.Contains(files, d.file) {
			continue
		}
		for _, panel := range d.Panels {
			for _, target := range panel.Targets {
				what := fmt.Sprintf("%s, panel %q, query %s", d.file, panel.Title, target.RefID)
				p.wantMetrics(what, target.Expr, names)
				p.wantSamples(what, fill.Replace(target.Expr))
			}
		}
		for _, v := range d.Templating.List {
			if v.Type == "query" {
				p.wantSamples(d.file+", variable "+v.Name, fill.Replace(v.asQuery(p.t)))
			}
		}
	}
}

// draw draws the data of the test as Grafana would show it. It uses Debian's Python, which has the packages.
func (p *prometheus) draw() {
	cmd := exec.Command("/usr/bin/python3", "draw.py", "fleet.json", "http://"+p.address, "fleet.png", "job=ringside", "cluster=.*", "namespace=.*")
	cmd.Dir = "../deploy/grafana"
	cmd.Args = append(cmd.Args, fmt.Sprint("since=", p.began.Unix()))
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		p.t.Errorf("draw: %v", err)
	}
}

func TestRulesByPromtool(t *testing.T) {
	t.Parallel()
	tests, err := filepath.Glob("../deploy/prometheus/tests/*.yml")
	if err != nil || len(tests) == 0 {
		t.Fatalf("no tests of rules: %v", err)
	}
	rules, err := filepath.Glob("../deploy/chart/rules/*.yaml") // the files of deploy/prometheus and the injector's
	if err != nil || len(rules) < 3 {
		t.Fatalf("got the rules %v, %v; want 3 files", rules, err)
	}
	for _, args := range [][]string{append([]string{"check", "rules"}, rules...), append([]string{"test", "rules"}, tests...)} {
		if out, err := exec.Command(rig.Program(t, "promtool"), args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// The runbook has a section for each alert, and a test of promtool makes each alert fire.
func TestAlertsHaveARunbookAndATest(t *testing.T) {
	read := func(path string) string {
		b, err := os.ReadFile("../deploy/prometheus/" + path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	alerts, runbook, tests := read("alerts.yml"), read("RUNBOOK.md"), read("tests/alerts.yml")
	found := regexp.MustCompile(`(?m)alert: (\w+)$`).FindAllStringSubmatch(alerts, -1)
	if len(found) == 0 || len(found) != strings.Count(runbook, "\n## Ringside") {
		t.Errorf("%d alerts, %d sections in the runbook", len(found), strings.Count(runbook, "\n## Ringside"))
	}
	for _, match := range found {
		name := match[1]
		if !strings.Contains(runbook, "\n## "+name+"\n") || !strings.Contains(alerts, "RUNBOOK.md#"+strings.ToLower(name)+"\n") {
			t.Errorf("%s has no section in the runbook, or no link to it", name)
		}
		if !strings.Contains(tests, fmt.Sprintf(`alertname=%q,alertstate="firing"`, name)) {
			t.Errorf("no test in tests/alerts.yml makes %s fire", name)
		}
	}
}

// Each alert has the first three commands to run. They look for metrics that exist, with commands that exist.
func TestRunbookHasCommandsThatExist(t *testing.T) {
	read := func(path string) string {
		b, err := os.ReadFile("../" + path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	runbook, metrics, cli := read("deploy/prometheus/RUNBOOK.md"), read("sidecar/metrics/METRICS.md"), read("sidecar/cmd/ringside/CLI.md")
	rules := read("deploy/prometheus/rules.yml")
	names := regexp.MustCompile("(?m)^\\| `(ringside_\\w+)`").FindAllStringSubmatch(metrics, -1)
	for _, section := range strings.Split(runbook, "\n## ")[1:] {
		name, text, _ := strings.Cut(section, "\n")
		_, block, _ := strings.Cut(text, "```\n")
		block, _, _ = strings.Cut(block, "\n```")
		if commands := strings.Split(block, "\n"); strings.HasPrefix(name, "Ringside") && len(commands) != 3 {
			t.Errorf("%s: got commands %q, want the first three to run", name, commands)
		}
		for _, m := range regexp.MustCompile(`/metrics \| grep -E '([^']+)'`).FindAllStringSubmatch(block, -1) {
			pattern := regexp.MustCompile(m[1])
			if !slices.ContainsFunc(names, func(n []string) bool { return pattern.MatchString(n[1]) || pattern.MatchString(n[1]+"_count") }) {
				t.Errorf("%s: no metric matches %s", name, m[1])
			}
		}
		for _, m := range regexp.MustCompile(`(?m)(?:^|-- )(ringside [a-z]+)`).FindAllStringSubmatch(block, -1) {
			if !strings.Contains(cli, "\n## "+m[1]+"\n") {
				t.Errorf("%s: there is no command %s", name, m[1])
			}
		}
		for _, m := range regexp.MustCompile(`[\w:]*ringside_[\w:]+`).FindAllString(text, -1) {
			base := regexp.MustCompile(`_(bucket|count|sum)$`).ReplaceAllString(m, "")
			if m != "ringside_changes" /* a table */ && !strings.Contains(metrics, "`"+m+"`") && !strings.Contains(metrics, "`"+base+"`") && !strings.Contains(rules, "record: "+m+"\n") {
				t.Errorf("%s: there is no metric or rule %s", name, m)
			}
		}
	}
}
