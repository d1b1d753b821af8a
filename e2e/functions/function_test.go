package functions

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// function is a network function whose configuration is in the folder deploy/functions/<name>.
type function struct {
	name  string
	keys  int      // rows that the traffic reads, such as users or names
	reads []string // datasets with these rows
	// alone reports that the function cannot use another member while the sidecar in its pod is down.
	alone bool
	// Files of the folder that only one of the two configurations needs: their lines are the set-up lines of the results.
	direct, ringside []string
	engines          []string                                    // of rig.Engines; the short form runs the first
	fill             func(p *place)                              // creates the tables and their rows
	start            func(t *testing.T, p *place) *rig.Server    // starts the function, with its SQL module if p.local is nil
	requests         []request                                   // one of each kind
	ask              func(p *place, r request) (string, error)   // sends one request and returns what matters of the answer
	traffic          func(p *place, l load) (outcome, error)     // runs the traffic program of the function
	relayed          func(packet []byte) (id string, final bool) // for functions of UDP: see relay
	spare            int                                         // keys of the reserved ones that have been used
}

// reserved is the number of the last keys, which no load reads: each is used once to see whether a function has recovered.
const reserved = 100

// request is a kind of request with the answer that both configurations must give.
type request struct {
	name  string
	input []string
	want  string
}

// load is what the traffic program sends: requests for the keys from first to first+keys-1, each answered with success.
type load struct {
	address     string // of the function, or of a relay in front of it
	first, keys int
	requests    int
	rate        int // requests per second; 0: as many as the function answers
	seed        uint64
}

// order returns the keys of the requests: each key once in a random order, and from the beginning.
func (l load) order() []int {
	order := rand.New(rand.NewPCG(l.seed, 0)).Perm(l.keys)
	keys := make([]int, l.requests)
	for i := range keys {
		keys[i] = l.first + order[i%l.keys]
	}
	return keys
}

// outcome is the result of a load. A request has failed if it got no answer or another one than expected.
type outcome struct {
	Requests int           `json:"requests"`
	Failed   int           `json:"failed"`
	Took     time.Duration `json:"took"`
	P50      time.Duration `json:"p50,omitempty"` // 0: the traffic program does not measure it
	P99      time.Duration `json:"p99,omitempty"`
	report   string        // of the traffic program, for the message of a failure
}

// place is where a function runs.
type place struct {
	t        *testing.T
	f        *function
	engine   rig.Engine
	database *rig.Database
	sql      *statements
	// The member in the pod of the function, and another member that the function uses if that does not answer. nil: the
	// function has its own SQL module.
	local, secondary *rig.Sidecar
	dir              string // for files of the function
	address          string // of the function: host:port
}

// page copies a file of the function's folder to p.dir and replaces texts, which must be in the file.
func (p *place) page(name string, replace ...string) (path string) {
	p.t.Helper()
	return p.pageTo(name, name, replace...)
}

// pageTo is page with another name, below p.dir.
func (p *place) pageTo(name, to string, replace ...string) (path string) {
	p.t.Helper()
	path = filepath.Join(p.dir, to)
	rig.CopyPage(p.t, filepath.Join("deploy", "functions", p.f.name, name), path, replace...)
	return path
}

// createViews runs the file of the function's folder that is named after the database: postgres.sql or mariadb.sql.
func (p *place) createViews() {
	p.t.Helper()
	p.sql.execFile(filepath.Join("..", "..", "deploy", "functions", p.f.name, p.engine.Name+".sql"))
}

// databasePort returns the port of the database.
func (p *place) databasePort() string {
	p.t.Helper()
	match := regexp.MustCompile(`127\.0\.0\.1:(\d+)`).FindStringSubmatch(p.database.DSN)
	if match == nil {
		p.t.Fatalf("%s has no port", p.database.DSN)
	}
	return match[1]
}

// port returns the port of the function.
func (p *place) port() string { return portOf(p.address) }

func portOf(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// lines counts the lines of files of the function's folder, without empty ones and comments.
func (f *function) lines(t *testing.T, files []string) (n int) {
	t.Helper()
	for _, name := range files {
		b, err := os.ReadFile(filepath.Join("..", "..", "deploy", "functions", f.name, name))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			line = strings.TrimSpace(line)
			if line != "" && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "--") {
				n++
			}
		}
	}
	return n
}
