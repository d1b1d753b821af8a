package respserver_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

// client is a connection whose replies are read as they are.
type client struct {
	net.Conn
	t  testing.TB
	in *bufio.Reader
}

func dial(t testing.TB, network, address string) *client {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil { // a test that waits for nothing ends
		t.Fatal(err)
	}
	return newClient(t, c)
}

func newClient(t testing.TB, c net.Conn) *client {
	return &client{Conn: c, t: t, in: bufio.NewReader(c)}
}

// pack is a command as a client sends it.
func pack(words ...string) string {
	text := fmt.Sprintf("*%d\r\n", len(words))
	for _, w := range words {
		text += fmt.Sprintf("$%d\r\n%s\r\n", len(w), w)
	}
	return text
}

func (c *client) send(raw string) {
	c.t.Helper()
	if _, err := io.WriteString(c, raw); err != nil {
		c.t.Fatal(err)
	}
}

// reply reads one reply, and returns it in one line: strings in quotes, arrays in brackets, maps in braces, pushes after >.
func (c *client) reply() string {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	if err != nil {
		return err.Error()
	}
	text := strings.TrimSuffix(line[1:], "\r\n")
	n := 0
	_, _ = fmt.Sscan(text, &n)
	switch line[0] {
	case '$':
		if n < 0 {
			return "null"
		}
		b := make([]byte, n+2)
		if _, err := io.ReadFull(c.in, b); err != nil || string(b[n:]) != "\r\n" {
			c.t.Fatalf("%q: %v", b, err)
		}
		return fmt.Sprintf("%q", b[:n])
	case '*':
		return "[" + c.replies(n) + "]"
	case '%':
		return "{" + c.replies(2*n) + "}"
	case '>':
		return ">" + c.replies(n)
	case '_':
		return "null"
	case '+', '-', ':':
		return line[:1] + text
	}
	c.t.Fatalf("got %q", line)
	return ""
}

func (c *client) replies(n int) string {
	c.t.Helper()
	list := make([]string, n)
	for i := range list {
		list[i] = c.reply()
	}
	return strings.Join(list, " ")
}

// do sends a command and returns the reply.
func (c *client) do(words ...string) string {
	c.t.Helper()
	c.send(pack(words...))
	return c.reply()
}

// check sends a command, and fails unless the reply is the wanted one, or, if that ends with an ellipsis, begins with it.
func (c *client) check(want string, words ...string) {
	c.t.Helper()
	got := c.do(words...)
	if begin, open := strings.CutSuffix(want, "…"); got != want && !(open && strings.HasPrefix(got, begin)) {
		c.t.Errorf("%q: got %s, want %s", words, got, want)
	}
}

func TestCommands(t *testing.T) {
	s := localtest.StartWritable(t, local.Config{Redis: true})
	for _, network := range [][2]string{{"tcp", s.Redis}, {"unix", s.Unix}} {
		c := dial(t, network[0], network[1])
		prefix := "raw:" + network[0]
		for _, one := range [][]string{
			{`"slash"`, "GET", "blobs:x/y"},
			{`""`, "get", "blobs:empty"},
			{"null", "GET", "blobs:none"},
			{"null", "GET", "blobs:none"}, // from memory
			{"-INVALID a key has the form dataset:key", "GET", "plain"},
			{"-INVALID the key is empty…", "GET", "blobs:"},
			{"-NODATASET no dataset of this name is configured; similar names: blobs", "GET", "blob:a"},
			{`["slash" null "slash"]`, "MGET", "blobs:x/y", "blobs:none", "blobs:x/y"},
			{`["{\"cnf_id\":\"a\"}" "slash"]`, "MGET", "rows:a", "blobs:x/y"},
			{"-NODATASET …", "MGET", "rows:a", "b:x"},
			{":2", "EXISTS", "blobs:a", "blobs:a", "blobs:none"},
			{":5", "STRLEN", "blobs:x/y"},
			{":0", "STRLEN", "blobs:none"},
			{":-2", "TTL", "blobs:none"},
			{":3599", "TTL", "blobs:a"},
			{":3599…", "PTTL", "blobs:a"},
			{"+OK", "SET", prefix, "v"},
			{`"v"`, "GET", prefix},
			{"null", "SET", prefix, "w", "NX"},
			{"+OK", "SET", prefix, "w", "xx"},
			{"null", "SET", prefix + "2", "w", "XX"},
			{"null", "SET", prefix, "x", "IFEQ", "v"},
			{"+OK", "SET", prefix, "x", "IFEQ", "w"},
			{`"x"`, "GET", prefix},
			{"-ERR syntax error…", "SET", prefix, "x", "NX", "XX"},
			{"-ERR syntax error…", "SET", prefix, "x", "GET"},
			{"-ERR EX is not supported…", "SET", prefix, "x", "EX", "10"},
			{"-ERR PX is not supported…", "SET", prefix, "x", "px", "10"},
			{"-NOTWRITABLE the dataset is read-only…", "SET", "blobs:a", "x"},
			{"-UNKNOWNOUTCOME the write may or may not…", "SET", "spoiled:unknown", "x"},
			{"-INVALID …", "SET", "spoiled:column", "x"},
			{"-CONFLICT …", "SET", "spoiled:conflict", "x"},
			{"-INTERNAL the sidecar has a defect…", "SET", "spoiled:internal", "x"},
			{":0", "SETNX", prefix, "y"},
			{":1", "SETNX", prefix + "2", "y"},
			{"-INVALID the key is empty…", "SETNX", "raw:", "y"},
			{"+OK", "MSET", prefix, "1", prefix + "3", "3", "rows:" + network[0], `{"v":1}`},
			{`["1" "3" "{\"v\":1}"]`, "MGET", prefix, prefix + "3", "rows:" + network[0]},
			{"-ERR wrong number of arguments for 'mset' command", "MSET", prefix, "1", prefix},
			{"-INVALID rows 0 and 1 have the same key…", "MSET", prefix + "9", "1", prefix + "9", "2"},
			{"-INVALID the key is empty…", "MSET", prefix + "9", "1", "raw:", "2"},
			{"-NODATASET …", "MSET", prefix + "9", "1", "b:x", "2"},
			{"null", "GET", prefix + "9"}, // nothing was written
			{"-NOTWRITABLE the dataset is read-only…", "MSET", "blobs:a", "x"},
			{"-INVALID …", "MSET", "spoiled:ok", "1", "spoiled:column", "1", prefix + "4", "4"},
			{`"4"`, "GET", prefix + "4"}, // one that fails does not keep others from being written
			{":3", "DEL", prefix + "2", prefix + "3", prefix + "4"},
			{":1", "DEL", prefix, prefix + "2"},
			{":0", "UNLINK", prefix},
			{"null", "GET", prefix},
			{"+PONG", "PING"},
			{`"hi"`, "PING", "hi"},
			{`"hi"`, "ECHO", "hi"},
			{"+OK", "SELECT", "0"},
			{"-ERR there are no databases…", "SELECT", "1"},
			{"-ERR unknown command 'LPUSH'…", "LPUSH", "a", "b"},
			{"-ERR unknown command 'a b'…", "a\nb"},
			{"-ERR wrong number of arguments for 'get' command", "GET"},
			{"-ERR wrong number of arguments for 'get' command", "GET", "a", "b"},
			{"+OK", "CLIENT", "SETNAME", "me"},
			{`"me"`, "CLIENT", "GETNAME"},
			{"+OK", "CLIENT", "SETINFO", "LIB-NAME", "x"},
			{"-ERR a name has…", "CLIENT", "SETNAME", "a b"},
			{":…", "CLIENT", "ID"},
			{"-ERR unknown subcommand 'KILL'…", "CLIENT", "KILL", "x"},
			{"-ERR tracking needs RESP3…", "CLIENT", "TRACKING", "ON"},
			{`"# Server…`, "INFO"},
			{":25", "COMMAND", "COUNT"},
			{"[]", "COMMAND", "DOCS"},
			{`[["get" :2 [+readonly +fast] :1 :1 :1] null]`, "COMMAND", "INFO", "get", "none"},
			{"-WRONGPASS …", "AUTH", "x"},
			{"-NOPROTO …", "HELLO", "4"},
			{"-WRONGPASS …", "HELLO", "3", "AUTH", "default", "x"},
			{`["server" "redis" "version" "7.4.0" "mode" "standalone" "role" "master" "proto" :2 "id" :…`, "HELLO", "2"},
			{`{"server" "redis" "version" "7.4.0" "mode" "standalone" "role" "master" "proto" :3 "id" :…`, "HELLO", "3", "SETNAME", "x"},
			{"+RESET", "RESET"},
			{"+OK", "QUIT"},
		} {
			c.check(one[0], one[1:]...)
		}
		if got := c.reply(); got != "EOF" {
			t.Errorf("after QUIT: got %s, want the end of the connection", got)
		}
	}
	if n, _, _ := s.Stats().Redis.Duration.Snapshot(); n < 60 {
		t.Errorf("%d commands are counted, want all of them", n)
	}
}

func TestErrorsOfReads(t *testing.T) {
	s := localtest.Start(t, local.Config{RequestTimeout: 50 * time.Millisecond})
	c := dial(t, "tcp", s.Redis)
	for key, want := range map[string]string{
		"overloaded": "-OVERLOADED …", "unavailable": "-UNAVAILABLE …", "invalid": "-INVALID …", "canceled": "-UNAVAILABLE …",
		"internal": "-INTERNAL …", "wait": "-DEADLINE …", "stale": `"stale"`,
	} {
		c.check(want, "GET", "failing:"+key)
		if strings.HasPrefix(want, "-") {
			c.check(want, "MGET", "failing:stale", "failing:"+key)
		}
	}
	c.check(":0", "PTTL", "failing:stale")
	c.check("-INTERNAL …", "GET", "failing:panic")
	if got := c.reply(); got != "EOF" {
		t.Errorf("after a defect: got %s, want the end of the connection", got)
	}
}

func TestRepliesHaveTheOrderOfCommands(t *testing.T) {
	origin := origintest.New(map[string]string{"a": "A", "b": "B", "big": strings.Repeat("x", 300<<10), "mid": strings.Repeat("y", 5000)})
	s := localtest.Start(t, local.Config{}, local.Served{Dataset: localtest.NewDataset(t, "d", origin)})
	c := dial(t, "tcp", s.Redis)
	for range 2 { // from the origin, then from memory
		var raw, want []string
		for range 40 {
			raw = append(raw, pack("GET", "d:a"), pack("GET", "d:none"), pack("GET", "d:mid"), pack("GET", "d:b"), pack("GET", "x"), pack("GET", "d:big"), pack("PING"))
			want = append(want, `"A"`, "null", `"yyy`, `"B"`, "-INV", `"xxx`, "+PONG")
		}
		go c.send(strings.Join(raw, ""))
		for i, w := range want {
			if got := c.reply(); !strings.HasPrefix(got, w) {
				t.Fatalf("reply %d: got %.20s, want %s", i, got, w)
			}
		}
	}
}

// Commands that have arrived together are not loaded one after the other.
func TestArrivedMissesAreLoadedTogether(t *testing.T) {
	rows, raw := map[string]string{}, ""
	for i := range 50 {
		rows[fmt.Sprint(i)] = fmt.Sprint("v", i)
		raw += pack("GET", fmt.Sprint("d:", i))
	}
	origin := origintest.New(rows)
	s := localtest.Start(t, local.Config{}, local.Served{Dataset: localtest.NewDataset(t, "d", origin)})
	c := dial(t, "tcp", s.Redis)
	c.send(raw)
	for i := range 50 {
		if got, want := c.reply(), fmt.Sprintf("%q", fmt.Sprint("v", i)); got != want {
			t.Errorf("key %d: got %s, want %s", i, got, want)
		}
	}
	if n := origin.Queries(); n > 3 {
		t.Errorf("50 keys have taken %d queries, want them to be loaded together", n)
	}
}

func TestTransactionsHaveReads(t *testing.T) {
	c := dial(t, "tcp", localtest.StartWritable(t, local.Config{}).Redis)
	for _, one := range [][]string{
		{"+OK", "MULTI"}, {"-ERR MULTI calls…", "MULTI"}, {"+QUEUED", "GET", "blobs:x/y"}, {"+QUEUED", "PTTL", "blobs:none"}, {`["slash" :-2]`, "EXEC"},
		{"-ERR EXEC without MULTI", "EXEC"}, {"-ERR DISCARD without MULTI", "DISCARD"},
		{"+OK", "MULTI"}, {"-ERR 'set' cannot be part…", "SET", "raw:t", "x"}, {"-EXECABORT …", "EXEC"}, {"null", "GET", "raw:t"},
		{"+OK", "MULTI"}, {"-ERR unknown command…", "NONE"}, {"-EXECABORT …", "EXEC"},
		{"+OK", "MULTI"}, {"+QUEUED", "GET", "none"}, {"[-INVALID …", "EXEC"},
		{"+OK", "MULTI"}, {"+QUEUED", "GET", "blobs:a"}, {"+OK", "DISCARD"}, {"+PONG", "PING"},
	} {
		c.check(one[0], one[1:]...)
	}
}

// A page of a website can make a browser send lines to any port: no line of HTTP is a command, and nothing behind one is.
func TestLinesOfHTTPEndTheConnection(t *testing.T) {
	s := localtest.StartWritable(t, local.Config{})
	write := pack("SET", "raw:attack", "x")
	for _, raw := range []string{
		"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET / HTTP/1.1\r\n", "Host: localhost\r\n", "PUT / HTTP/1.1\r\n", "OPTIONS / HTTP/1.1\r\n",
		"DEL / HTTP/1.1\r\nHost: localhost\r\n\r\n", "{\"a\": 1}\r\n", "\x16\x03\x01\x00\xc4", "*1\r\n$4\r\nPINGxx",
	} {
		c := dial(t, "tcp", s.Redis)
		c.send(raw + write)
		last := ""
		for got := c.reply(); got != "EOF" && !strings.Contains(got, "reset"); got = c.reply() {
			if last = got; strings.Contains(got, "timeout") {
				t.Fatalf("%q: the connection stays open", raw)
			}
			if !strings.HasPrefix(got, "-") {
				t.Errorf("%q: got %s, want errors", raw, got)
			}
		}
		if last == "" && !strings.HasPrefix(raw, "\x16") {
			t.Logf("%q: no reply before the end", raw) // a reset may overtake it
		}
	}
	c := dial(t, "tcp", s.Redis)
	c.check("null", "GET", "raw:attack")
	c.send("PING\r\n  GET   blobs:x/y  \n\r\n")
	if got := c.replies(2); got != `+PONG "slash"` {
		t.Errorf("typed commands: got %s", got)
	}
	if n := s.Stats().Redis.HostRefused.Load(); n == 0 {
		t.Error("no refused line is counted")
	}
}

func TestScanReturnsCachedKeysOfPermittedDatasets(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("canary-token-0123456789\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for i := range 500 {
		rows[fmt.Sprintf("k%03d", i)] = "v"
	}
	control, err := access.New(access.Config{Tokens: map[string]string{"app": token},
		Datasets: map[string]access.Dataset{"closed": {Rules: access.Rules{Read: []string{"token:app"}}}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := localtest.Start(t, local.Config{},
		local.Served{Dataset: localtest.NewDataset(t, "closed", origintest.New(rows)), Gate: control.Gate("closed")},
		local.Served{Dataset: localtest.NewDataset(t, "open", origintest.New(rows))})
	c := dial(t, "tcp", s.Redis)
	for key := range rows {
		c.check(`"v"`, "GET", "open:"+key)
	}
	c.check("null", "GET", "open:none")
	c.check("-NOAUTH permission read on dataset closed is missing: send AUTH with a valid token", "GET", "closed:k001")
	c.check("-WRONGPASS …", "AUTH", "other", "canary-token-0123456789")
	if got := c.scanAll("COUNT", "7"); len(got) != 500 {
		t.Errorf("got %d keys, want the 500 that are cached", len(got))
	}
	if got := c.scanAll("MATCH", "open:k00[1-3]", "COUNT", "1000"); len(got) != 3 {
		t.Errorf("got %v, want three keys", got)
	}
	if got := c.scanAll("TYPE", "hash"); len(got) != 0 {
		t.Errorf("got %v, want no key of another type", got)
	}
	c.check("+OK", "AUTH", "app", "canary-token-0123456789")
	c.check(`"v"`, "GET", "closed:k001")
	dial(t, "tcp", s.Redis).check("-NOAUTH …", "GET", "closed:k001") // although it is in memory now
	if got := c.scanAll(); len(got) != 501 || !got["closed:k001"] {
		t.Errorf("with a token: got %d keys, want 501", len(got))
	}
	c.check("+RESET", "RESET")
	if got := c.scanAll(); len(got) != 500 {
		t.Errorf("without a token: got %d keys, want 500", len(got))
	}
	c.check("-ERR invalid cursor", "SCAN", "x")
}

// scanAll returns the keys of all SCANs from the first one to the end.
func (c *client) scanAll(options ...string) map[string]bool {
	c.t.Helper()
	keys, cursor := map[string]bool{}, "0"
	for range 1000 {
		got := c.do(append([]string{"SCAN", cursor}, options...)...)
		words := strings.Fields(strings.Trim(got, "[]"))
		cursor = strings.Trim(words[0], `"`)
		for _, w := range words[1:] {
			if w = strings.Trim(w, `"[]`); w != "" {
				keys[w] = true
			}
		}
		if cursor == "0" {
			return keys
		}
	}
	c.t.Fatal("SCAN does not end")
	return nil
}

func TestStopLetsCommandsEnd(t *testing.T) {
	origin := origintest.New(map[string]string{"a": "A"})
	s := localtest.Start(t, local.Config{}, local.Served{Dataset: localtest.NewDataset(t, "d", origin)})
	idle, c := dial(t, "tcp", s.Redis), dial(t, "tcp", s.Redis)
	idle.check("+PONG", "PING")
	release := origin.Block()
	c.send(pack("GET", "d:a"))
	for origin.Flying() == 0 {
		runtime.Gosched()
	}
	stopped := make(chan error)
	go func() { stopped <- s.Shutdown(t.Context()) }()
	if got := idle.reply(); got != "EOF" {
		t.Errorf("the idle connection: got %s, want its end", got)
	}
	time.Sleep(20 * time.Millisecond) // the same pass over the connections reaches the other one
	release()
	if got := c.reply(); got != `"A"` {
		t.Errorf("the running command: got %s, want its reply", got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestBytesAreReturned(t *testing.T) {
	b := budget.New(32 << 20)
	big := strings.Repeat("x", 300<<10)
	origin := origintest.New(map[string]string{"big": big, "mid": strings.Repeat("y", 3000)})
	s := localtest.Start(t, local.Config{Budget: b, ConnShare: 0.5}, local.Served{Dataset: localtest.NewWritable(t, "d", origin)})
	c := dial(t, "tcp", s.Redis)
	returned := func(after string) {
		t.Helper()
		c.check("+PONG", "PING") // the replies before it have been sent
		for _, u := range b.Stats() {
			if u.Used != 0 && u.Use != budget.Connections {
				t.Errorf("after %s: %d bytes of %s are taken, want 0", after, u.Used, u.Use)
			}
		}
	}
	c.check(`["xxx…`, "MGET", "d:big", "d:big", "d:mid")
	returned("values")
	c.send(strings.Repeat(pack("GET", "d:mid"), 30) + pack("GET", "d:new") + pack("GET", "d:big"))
	if got := c.replies(32); !strings.HasSuffix(got, `x"`) {
		t.Errorf("got %.20s, want values", got)
	}
	returned("GETs that arrived together")
	c.check("+OK", "SET", "d:big", big)
	c.check("+OK", "MULTI")
	c.check("+QUEUED", "GET", "d:mid")
	c.check("+OK", "DISCARD")
	for b.Take(budget.Responses, 64<<10) {
	}
	c.check("-OVERLOADED …", "GET", "d:big")
	c.check(`"yyy…`, "GET", "d:mid")
	taken := int64(0)
	for _, u := range b.Stats() {
		if u.Use == budget.Responses {
			taken = u.Used / (64 << 10) * (64 << 10)
			b.Return(budget.Responses, taken)
		}
	}
	for _, u := range b.Stats() {
		if u.Used != 0 && u.Use != budget.Connections {
			t.Errorf("%d bytes of %s are taken by an idle connection, want 0", u.Used, u.Use)
		}
	}
}
