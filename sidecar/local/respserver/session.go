package respserver

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/ringside-cache/ringside/sidecar/internal/resp"
)

const (
	// redisVersion is the version of Redis whose replies to the commands of this package clients may expect.
	redisVersion = "7.4.0"
	// maxClientName bounds the names that a client gives to its connection and to its library.
	maxClientName = 64
)

func (c *conn) ping(a arguments) {
	switch a.Len() {
	case 1:
		c.simple("PONG")
	case 2:
		c.value(a.Arg(1))
	default:
		c.err("wrong number of arguments for 'ping' command")
	}
}

// hello handles HELLO [2 | 3 [AUTH user token] [SETNAME name]]. It changes everything or nothing. The server has the name of Redis:
// redis-py caches with no other.
func (c *conn) hello(a arguments) {
	version, authorization, name := c.version, c.authorization, c.name
	if a.Len() > 1 {
		switch a.View(1) {
		case "2":
			version = resp.RESP2
		case "3":
			version = resp.RESP3
		default:
			c.failWith("NOPROTO", "unsupported protocol version")
			return
		}
	}
	for i := 2; i < a.Len(); {
		option := strings.ToUpper(short(a.View(i)))
		switch {
		case option == "AUTH" && i+2 < a.Len():
			var ok bool
			if authorization, ok = c.token(a.View(i+1), a.View(i+2)); !ok {
				c.wrongToken()
				return
			}
			i += 3
		case option == "SETNAME" && i+1 < a.Len():
			if !isClientName(a.View(i + 1)) {
				c.wrongName()
				return
			}
			name = strings.Clone(a.View(i + 1))
			i += 2
		default:
			c.err("syntax error in HELLO")
			return
		}
	}
	c.version, c.authorization, c.name = version, authorization, name
	if version == resp.RESP2 {
		c.untrack()
	}
	c.pairs(7)
	for _, pair := range [][2]string{{"server", "redis"}, {"version", redisVersion}, {"mode", "standalone"}, {"role", "master"}} {
		c.text(pair[0])
		c.text(pair[1])
	}
	c.text("proto")
	c.integer(int64(c.version))
	c.text("id")
	c.integer(c.id)
	c.text("modules")
	c.array(0)
}

// auth handles AUTH [user] token.
func (c *conn) auth(a arguments) {
	user, token := "", a.View(a.Len()-1)
	switch a.Len() {
	case 2:
	case 3:
		user = a.View(1)
	default:
		c.err("syntax error in AUTH")
		return
	}
	authorization, ok := c.token(user, token)
	if !ok {
		c.wrongToken()
		return
	}
	c.authorization = authorization
	c.simple("OK")
}

// token returns a valid token as an Authorization header. A user other than default is the name of the token.
func (c *conn) token(user, token string) (authorization string, ok bool) {
	authorization = "Bearer " + token
	for _, d := range c.server.backend.Datasets.All() {
		if name, valid := d.Gate.Token(authorization); valid { // all of them know the same tokens
			return authorization, user == "" || user == "default" || user == name
		}
	}
	return "", false
}

func (c *conn) wrongToken() {
	c.failWith("WRONGPASS", "invalid token; the user is default or the name of the token")
}

func (c *conn) selectDatabase(a arguments) {
	if a.View(1) == "0" { // what each client has without it
		c.simple("OK")
		return
	}
	c.err("there are no databases with numbers: a key has the form dataset:key")
}

// info handles INFO: what clients and operators of Redis look for, as far as it has a meaning.
func (c *conn) info(arguments) {
	var text strings.Builder
	fmt.Fprintf(&text, "# Server\r\nredis_version:%s\r\nserver_name:ringside\r\nredis_mode:standalone\r\nprocess_id:%d\r\n",
		redisVersion, os.Getpid())
	fmt.Fprintf(&text, "# Clients\r\nconnected_clients:%d\r\nmaxclients:%d\r\n", c.server.stats.Conns.Open.Load(), c.server.config.MaxConns)
	text.WriteString("# Persistence\r\nloading:0\r\n# Replication\r\nrole:master\r\nconnected_slaves:0\r\n# Cluster\r\ncluster_enabled:0\r\n")
	c.text(text.String())
}

// client handles CLIENT.
func (c *conn) client(a arguments) {
	switch sub := subcommand(a); {
	case sub == "ID" && a.Len() == 2:
		c.integer(c.id)
	case sub == "GETNAME" && a.Len() == 2:
		c.getName()
	case sub == "SETNAME" && a.Len() == 3:
		if !isClientName(a.View(2)) {
			c.wrongName()
			return
		}
		c.name = strings.Clone(a.View(2))
		c.simple("OK")
	case sub == "SETINFO" && a.Len() == 4:
		if !isClientName(a.View(3)) {
			c.wrongName()
			return
		}
		c.simple("OK")
	case sub == "INFO" && a.Len() == 2:
		c.text("id=" + strconv.FormatInt(c.id, 10) + " name=" + c.name + " resp=" + strconv.Itoa(int(c.version)) + "\n")
	case sub == "NO-EVICT" && a.Len() == 3, sub == "NO-TOUCH" && a.Len() == 3:
		c.simple("OK")
	case sub == "TRACKING" && a.Len() > 2:
		c.setTracking(a)
	case sub == "CACHING" && a.Len() == 3:
		c.setCaching(a)
	case sub == "GETREDIR" && a.Len() == 2:
		c.getRedirection()
	default:
		c.unknownSubcommand(a)
	}
}

func (c *conn) getName() {
	if c.name == "" {
		c.null()
		return
	}
	c.text(c.name)
}

// isClientName reports whether a client may use a name: printable ASCII without spaces, as in Redis.
func isClientName(name string) bool {
	for i := range len(name) {
		if name[i] < '!' || name[i] > '~' {
			return false
		}
	}
	return len(name) <= maxClientName
}

func (c *conn) wrongName() {
	c.err("a name has at most 64 characters, without spaces, newlines or special characters")
}

func (c *conn) quitNow(arguments) {
	c.simple("OK")
	c.quit = true
}

func (c *conn) reset(arguments) {
	c.untrack()
	c.discard()
	c.version, c.authorization, c.name = resp.RESP2, "", ""
	c.simple("RESET")
}
