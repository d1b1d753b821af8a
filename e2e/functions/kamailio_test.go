package functions

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// kamailio registers users by digest authentication and redirects calls to aliases, with the tables of Debian's schema. One request
// of the load is a call of register-and-invite.xml: a registration and a redirected INVITE, which are two reads.
var kamailio = &function{
	name: "kamailio", keys: 4000, reads: []string{"sip-users", "sip-aliases"}, engines: []string{"postgres", "mariadb"},
	direct:   []string{"sql.cfg"},
	ringside: []string{"ringside.cfg", "ringside.yaml"},
	fill:     fillSIP, start: startKamailio, ask: askSIP, traffic: sipp,
	requests: []request{
		{"registration", []string{"REGISTER", "sip:example.org", "user-7", "secret-7"}, "200 OK"},
		{"wrong password", []string{"REGISTER", "sip:example.org", "user-7", "secret-8"}, "401 Unauthorized"},
		{"unknown user", []string{"REGISTER", "sip:example.org", "nobody", "secret-7"}, "401 Unauthorized"},
		{"user of another domain", []string{"REGISTER", "sip:example.net", "user-7", "secret-7"}, "401 Unauthorized"},
		{"call", []string{"INVITE", "sip:1007@example.org", "user-7", ""},
			"302 Moved Temporarily <sip:user-7@pbx-0.example.org>"},
		{"unknown alias", []string{"INVITE", "sip:999@example.org", "user-7", ""}, "404 Not Found"},
	},
	relayed: sipTransaction,
}

func fillSIP(p *place) {
	folder := map[bool]string{true: "postgres", false: "mysql"}[p.sql.postgres]
	for _, part := range []string{"standard", "auth_db", "alias_db"} {
		p.sql.execFile("/usr/share/kamailio/" + folder + "/" + part + "-create.sql")
	}
	var users, aliases []string
	for i := range p.f.keys {
		user := fmt.Sprintf("user-%d", i)
		users = append(users, fmt.Sprintf("('%s', 'example.org', '%s')", user, md5Hex(user, "example.org", fmt.Sprintf("secret-%d", i))))
		aliases = append(aliases, fmt.Sprintf("('%d', 'example.org', '%s', 'pbx-%d.example.org')", 1000+i, user, i%7))
	}
	p.sql.insert("subscriber", "username, domain, ha1", users)
	p.sql.insert("dbaliases", "alias_username, alias_domain, username, domain", aliases)
}

func md5Hex(parts ...string) string {
	sum := md5.Sum([]byte(strings.Join(parts, ":")))
	return hex.EncodeToString(sum[:])
}

func startKamailio(t *testing.T, p *place) *rig.Server {
	t.Helper()
	replace := []string{"127.0.0.1:5060", p.address}
	if p.local != nil {
		p.page("ringside.cfg", "127.0.0.1:7070", p.local.HTTP, "10.0.0.6:7072", p.secondary.Peer)
	} else {
		replace = append(replace, `include_file "ringside.cfg"`, `include_file "sql.cfg"`)
		database := []string{"127.0.0.1:5432", "127.0.0.1:" + p.databasePort()}
		if !p.sql.postgres {
			database = append(database, "db_postgres", "db_mysql", "postgres://", "mysql://", "/postgres\"", "/ringside\"")
		}
		p.page("sql.cfg", database...)
	}
	file := p.page("kamailio.cfg", replace...)
	ready := func() error {
		_, err := askSIP(p, p.f.requests[0])
		return err
	}
	return rig.NewServer(t, rig.Program(t, "kamailio", "/usr/sbin"), p.dir, ready,
		"-f", file, "-DD", "-E", "-Y", p.dir, "-m", "64", "-M", "8")
}

// sipTransaction returns the Call-ID and the CSeq of a message, and whether it is a final response.
func sipTransaction(packet []byte) (id string, final bool) {
	first, header, err := parseSIP(packet)
	if err != nil {
		return "", false
	}
	return header.Get("Call-ID") + " " + header.Get("CSeq"), strings.HasPrefix(first, "SIP/2.0 ") && !strings.HasPrefix(first, "SIP/2.0 1")
}

// parseSIP returns the first line and the header of a message.
func parseSIP(packet []byte) (first string, header textproto.MIMEHeader, err error) {
	r := textproto.NewReader(bufio.NewReader(bytes.NewReader(packet)))
	if first, err = r.ReadLine(); err == nil {
		header, err = r.ReadMIMEHeader()
	}
	return first, header, err
}

// askSIP sends a request, answers a challenge (RFC 2617 without qop), and returns the final response: its status and contacts.
func askSIP(p *place, r request) (string, error) {
	conn, err := net.Dial("udp", p.address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	method, uri, user, password := r.input[0], r.input[1], r.input[2], r.input[3]
	domain := uri[strings.LastIndexAny(uri, ":@")+1:]
	send := func(sequence int, authorization string) (status string, header textproto.MIMEHeader, err error) {
		message := fmt.Sprintf("%s %s SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bK%d%d\r\nFrom: <sip:%s@%s>;tag=1\r\nTo: <sip:%[6]s@%[7]s>\r\n"+
			"Call-ID: %[4]d\r\nCSeq: %[5]d %[1]s\r\nContact: <sip:%[6]s@%[3]s>\r\nMax-Forwards: 70\r\n%[8]sContent-Length: 0\r\n\r\n",
			method, uri, conn.LocalAddr(), time.Now().UnixNano(), sequence, user, domain, authorization)
		_ = conn.SetDeadline(time.Now().Add(3 * time.Second)) // fails on a closed connection only
		if _, err := conn.Write([]byte(message)); err != nil {
			return "", nil, err
		}
		buffer := make([]byte, 64<<10)
		n, err := conn.Read(buffer)
		if err != nil {
			return "", nil, err
		}
		first, header, err := parseSIP(buffer[:n])
		return strings.TrimPrefix(first, "SIP/2.0 "), header, err
	}
	status, header, err := send(1, "")
	if err != nil {
		return "", err
	}
	if nonce := regexp.MustCompile(`nonce="([^"]*)"`).FindStringSubmatch(header.Get("WWW-Authenticate")); nonce != nil {
		response := md5Hex(md5Hex(user, domain, password), nonce[1], md5Hex(method, uri))
		status, header, err = send(2, fmt.Sprintf("Authorization: Digest username=%q, realm=%q, nonce=%q, uri=%q, response=%q, algorithm=MD5\r\n",
			user, domain, nonce[1], uri, response))
		if err != nil {
			return "", err
		}
	}
	if contact := header.Get("Contact"); strings.HasPrefix(status, "3") {
		status += " " + contact
	}
	return status, nil
}

func sipp(p *place, l load) (outcome, error) {
	dir, err := os.MkdirTemp(p.t.TempDir(), "")
	if err != nil {
		return outcome{}, err
	}
	users, statistics := filepath.Join(dir, "users.csv"), filepath.Join(dir, "statistics.csv")
	lines := []string{"SEQUENTIAL"}
	for _, i := range l.order() {
		lines = append(lines, fmt.Sprintf("%d;%d;[authentication username=user-%[1]d password=secret-%[1]d]", i, 1000+i))
	}
	if err := os.WriteFile(users, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return outcome{}, err
	}
	scenario, err := filepath.Abs("register-and-invite.xml")
	if err != nil {
		return outcome{}, err
	}
	rate := l.rate
	if rate == 0 {
		rate = 5000
	}
	cmd := exec.Command("sipp", l.address, "-sf", scenario, "-inf", users, "-i", "127.0.0.1", "-p", strconv.Itoa(rig.FreePort(p.t)),
		"-m", strconv.Itoa(l.requests), "-r", strconv.Itoa(rate), "-l", "64", "-recv_timeout", "5000", "-nostdin",
		"-trace_stat", "-stf", statistics, "-fd", "3600")
	cmd.Dir = dir
	began := time.Now()
	out, err := cmd.CombinedOutput() // fails if a call has failed
	took := time.Since(began)
	totals, statErr := lastStatistics(statistics)
	if statErr != nil {
		return outcome{}, fmt.Errorf("sipp: %w, %w\n%.2000s", err, statErr, out)
	}
	if n := totals["SuccessfulCall(C)"] + totals["FailedCall(C)"]; n != l.requests {
		return outcome{}, fmt.Errorf("sipp reports %d of %d calls: %w\n%.2000s", n, l.requests, err, out)
	}
	return outcome{Requests: l.requests, Failed: totals["FailedCall(C)"], Took: took}, nil
}

// lastStatistics returns the numbers of the last line of a file of sipp -trace_stat.
func lastStatistics(path string) (map[string]int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	names, values := strings.Split(lines[0], ";"), strings.Split(lines[len(lines)-1], ";")
	if len(lines) < 2 || len(values) < len(names)-1 {
		return nil, fmt.Errorf("%s has no statistics", path)
	}
	totals := map[string]int{}
	for i, value := range values {
		if n, err := strconv.Atoi(value); err == nil && i < len(names) {
			totals[names[i]] = n
		}
	}
	return totals, nil
}
