package functions

import (
	"bytes"
	"fmt"
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

// freeradius authenticates users by PAP with the tables of Debian's schema: each user has a password and three attributes of the
// response, one of them with two values.
var freeradius = &function{
	name: "freeradius", keys: 4000, reads: []string{"radius-users"}, engines: []string{"postgres", "mariadb"},
	direct:   []string{"mods/sql", "sites/sql"},
	ringside: []string{"mods/ringside", "sites/ringside", "ringside.yaml", "postgres.sql"},
	fill:     fillRadius, start: startRadius, ask: askRadius, traffic: radclient,
	requests: []request{
		{"accept", []string{"user-7", "secret-7"}, "Access-Accept\nCisco-AVPair = \"shell:priv-lvl=1\"\n" +
			"Cisco-AVPair = \"user:number=7\"\nFramed-IP-Address = 10.0.0.7\nSession-Timeout = 3607"},
		{"wrong password", []string{"user-7", "secret-8"}, "Access-Reject"},
		{"unknown user", []string{"nobody", "secret"}, "Access-Reject"},
		{"name with special characters", []string{`o'neil /%{User-Name}@ä`, "secret"}, "Access-Accept\nReply-Message = \"100% %{User-Name}\""},
	},
	relayed: func(packet []byte) (string, bool) { return string(packet[1]), true }, // RFC 2865: the identifier
}

func fillRadius(p *place) {
	dialect := map[bool]string{true: "postgresql", false: "mysql"}[p.sql.postgres]
	p.sql.execFile("/etc/freeradius/3.0/mods-config/sql/main/" + dialect + "/schema.sql")
	var check, reply []string
	for i := range p.f.keys {
		check = append(check, fmt.Sprintf("('user-%d', 'Cleartext-Password', ':=', 'secret-%[1]d')", i))
		reply = append(reply, fmt.Sprintf("('user-%d', 'Framed-IP-Address', ':=', '10.0.%d.%d')", i, i/256, i%256),
			fmt.Sprintf("('user-%d', 'Session-Timeout', ':=', '%d')", i, 3600+i),
			fmt.Sprintf("('user-%d', 'Cisco-AVPair', '+=', 'shell:priv-lvl=1')", i),
			fmt.Sprintf("('user-%d', 'Cisco-AVPair', '+=', 'user:number=%[1]d')", i))
	}
	check = append(check, `('o''neil /%{User-Name}@ä', 'Cleartext-Password', ':=', 'secret')`)
	reply = append(reply, `('o''neil /%{User-Name}@ä', 'Reply-Message', ':=', '100% %{User-Name}')`)
	p.sql.insert("radcheck", "username, attribute, op, value", check)
	p.sql.insert("radreply", "username, attribute, op, value", reply)
	p.createViews()
}

func startRadius(t *testing.T, p *place) *rig.Server {
	t.Helper()
	kind := "sql"
	if p.local != nil {
		kind = "ringside"
	}
	for _, folder := range []string{"mods-enabled", "sites-enabled"} {
		if err := os.Mkdir(filepath.Join(p.dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	p.page("radiusd.conf")
	p.pageTo("sites/"+kind, "sites-enabled/"+kind, "port = 1812", "port = "+p.port())
	if p.local != nil {
		p.pageTo("mods/ringside", "mods-enabled/ringside", "127.0.0.1:7070", p.local.HTTP, "10.0.0.6:7072", p.secondary.Peer)
	} else {
		replace := []string{"port = 5432", "port = " + p.databasePort()}
		if !p.sql.postgres {
			replace = append(replace, `"postgresql"`, `"mysql"`, `"postgres"`, `"ringside"`)
		}
		p.pageTo("mods/sql", "mods-enabled/sql", replace...)
	}
	ready := func() error {
		_, err := askRadius(p, p.f.requests[0])
		return err
	}
	return rig.NewServer(t, rig.Program(t, "freeradius", "/usr/sbin"), p.dir, ready, "-f", "-l", "stdout", "-d", p.dir)
}

// radiusAttribute is a line of radclient -x with an attribute.
var radiusAttribute = regexp.MustCompile(`^\t([A-Z].* = .*)$`)

// askRadius returns the code of the answer and its attributes.
func askRadius(p *place, r request) (string, error) {
	out, err := radclientCommand(p.address, radiusRequest(r.input[0], r.input[1]), "-x", "-r", "1", "-t", "2")
	_, answer, received := strings.Cut(out, "Received ")
	if !received {
		return "", fmt.Errorf("no answer: %w\n%s", err, out)
	}
	code, rest, _ := strings.Cut(answer, " ")
	var attributes []string
	for line := range strings.Lines(rest) {
		if match := radiusAttribute.FindStringSubmatch(strings.TrimRight(line, "\n")); match != nil && !strings.HasPrefix(match[1], "Message-Authenticator") {
			attributes = append(attributes, match[1])
		}
	}
	slices.Sort(attributes)
	return strings.Join(append([]string{code}, attributes...), "\n"), nil
}

// radiusRequest is one request in the syntax of radclient.
func radiusRequest(user, password string) string {
	return fmt.Sprintf("User-Name = %q, User-Password = %q\n\n", user, password)
}

// radclientCommand runs radclient with requests for its standard input. Lost requests and rejected users are an error.
func radclientCommand(address, requests string, flags ...string) (out string, err error) {
	cmd := exec.Command("radclient", append(flags, "-D", "/usr/share/freeradius", address, "auth", "testing123")...)
	cmd.Stdin = strings.NewReader(requests)
	b, err := cmd.CombinedOutput()
	return string(b), err
}

// radiusTotal is a line of radclient -s.
var radiusTotal = regexp.MustCompile(`(Accepted|Rejected|Lost|Passed filter|Failed filter)\s*: (\d+)`)

func radclient(p *place, l load) (outcome, error) {
	var requests bytes.Buffer
	for _, key := range l.order() {
		requests.WriteString(radiusRequest(fmt.Sprintf("user-%d", key), fmt.Sprintf("secret-%d", key)))
	}
	flags := []string{"-q", "-s", "-r", "1", "-t", "5", "-p", "64"}
	if l.rate > 0 {
		flags = append(flags, "-n", strconv.Itoa(l.rate))
	}
	began := time.Now()
	out, err := radclientCommand(l.address, requests.String(), flags...)
	took := time.Since(began)
	totals := map[string]int{}
	for _, match := range radiusTotal.FindAllStringSubmatch(out, -1) {
		totals[match[1]], _ = strconv.Atoi(match[2]) // digits
	}
	sent := totals["Accepted"] + totals["Rejected"] + totals["Lost"]
	if sent == 0 {
		return outcome{}, fmt.Errorf("radclient has sent none of %d requests: %w\n%s", l.requests, err, out)
	}
	// radclient may end early after a request has got no answer.
	return outcome{Requests: sent, Failed: sent - totals["Accepted"], Took: took}, nil
}
