// Package dsn reads connection strings of PostgreSQL. It says what is wrong with one without quoting any secret of it.
package dsn

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

var errBadDSN = errors.New("this is not a DSN of PostgreSQL; give one such as " +
	"postgres://user:password@host:5432/database?sslmode=verify-full " +
	"(percent-encode special characters of the password)")

var errPasswordInURI = errors.New("the DSN has an @, a / or a ? in a place where it may be a part of the password, the rest of " +
	"which would be taken for a host, a database or a parameter: percent-encode special characters of the password " +
	"(@ as %40, / as %2F, ? as %3F, # as %23)")

var parameterName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.%-]*$`)

// checkURI rejects a URI of which a part of the password may be taken for something else: that part would be in DNS queries,
// errors and logs. pgx takes the last @ before the first slash for the end of the password, libpq the first one.
func checkURI(dsn string) error {
	uri, ok := cutScheme(dsn)
	if !ok {
		return nil
	}
	before, query, _ := strings.Cut(uri, "?")
	authority := before
	if i := strings.IndexAny(before, "/#"); i >= 0 {
		authority = before[:i]
	}
	if strings.Count(authority, "@") > 1 || strings.Contains(before[len(authority):], "@") || strings.Contains(uri, "#") { //guard:part-of-password-is-a-host
		return errPasswordInURI
	}
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		hasUser := strings.Contains(authority, "@") || name == "user" || name == "password"
		if pair != "" && !parameterName.MatchString(name) || strings.Contains(value, "?") || strings.Contains(value, "@") && !hasUser {
			return errPasswordInURI
		}
	}
	return nil
}

func cutScheme(dsn string) (uri string, ok bool) {
	uri, ok = strings.CutPrefix(dsn, "postgresql://")
	if !ok {
		uri, ok = strings.CutPrefix(dsn, "postgres://")
	}
	return uri, ok
}

// Parameter is a parameter of the server and its value.
type Parameter struct{ Name, Value string }

// Parse returns the configuration of connections, and the parameters of the server in the DSN, which each transaction must
// set. Those of the names in own, which Ringside sets itself, are left out.
func Parse(dsn string, own []string) (config *pgx.ConnConfig, ofDSN []Parameter, err error) {
	if err := checkURI(dsn); err != nil {
		return nil, nil, err
	}
	config, err = pgx.ParseConfig(dsn)
	if dsn == "" {
		return nil, nil, errBadDSN
	}
	if err != nil {
		return nil, nil, explainDSN(dsn)
	}
	parameters, err := serverParameters(config.RuntimeParams, own)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		ofDSN = append(ofDSN, Parameter{name, parameters[name]})
	}
	// Poolers know these two. Startup parameters of other names make PgBouncer close the connection, or are dropped.
	config.RuntimeParams = map[string]string{
		"application_name": cmp.Or(config.RuntimeParams["application_name"], "ringside"),
		"client_encoding":  "UTF8",
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // prepares nothing
	return config, ofDSN, nil
}

// perTransaction are set by Ringside for each kind of transaction, or once, whatever the DSN says about them.
var perTransaction = []string{"transaction_read_only", "default_transaction_read_only", "statement_timeout",
	"idle_in_transaction_session_timeout", "application_name"}

// libpqOnly are parameters of libpq that pgx does not have, and would send to the server.
var libpqOnly = []string{"fallback_application_name", "gssdelegation", "gssencmode", "gsslib", "hostaddr", "keepalives",
	"keepalives_count", "keepalives_idle", "keepalives_interval", "load_balance_hosts", "replication", "requirepeer", "requiressl",
	"scram_client_key", "scram_server_key", "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcompression", "sslcrl",
	"sslcrldir", "sslkeylogfile", "tcp_user_timeout"}

// serverParameters returns the parameters that remain for the server.
func serverParameters(all map[string]string, own []string) (map[string]string, error) {
	rest, err := parseOptions(all["options"])
	if err != nil {
		return nil, err
	}
	for name, value := range all {
		if slices.Contains(libpqOnly, name) {
			return nil, fmt.Errorf("the DSN has the parameter %s, which is not supported: leave it out", name)
		}
		if name != "options" {
			rest[name] = value
		}
	}
	maps.DeleteFunc(rest, func(name, _ string) bool {
		same := func(s string) bool { return strings.EqualFold(s, name) }
		return slices.ContainsFunc(perTransaction, same) || slices.ContainsFunc(own, same) //guard:dsn-changes-the-format
	})
	return rest, nil
}

var errOptions = errors.New(`options: only "-c name=value" and "--name=value" are supported, a space in a value as "\ "`)

// parseOptions reads the command line of a server process (PostgreSQL, 34.1.2, options).
func parseOptions(options string) (map[string]string, error) {
	parameters := map[string]string{}
	words := splitOptions(options)
	for i := 0; i < len(words); i++ {
		word, ok := strings.CutPrefix(words[i], "--")
		if !ok {
			if word, ok = strings.CutPrefix(words[i], "-c"); !ok {
				return nil, errOptions
			}
			if i++; word == "" && i < len(words) {
				word = words[i]
			} else {
				i--
			}
		}
		name, value, ok := strings.Cut(word, "=")
		if !ok || name == "" {
			return nil, errOptions
		}
		parameters[strings.ReplaceAll(name, "-", "_")] = value
	}
	return parameters, nil
}

// splitOptions splits at spaces that no backslash precedes (src/backend/utils/init/postinit.c, pg_split_opts).
func splitOptions(options string) (words []string) {
	var word strings.Builder
	inWord, escaped := false, false
	end := func() {
		if inWord {
			words = append(words, word.String())
		}
		word.Reset()
		inWord = false
	}
	for i := range len(options) {
		switch c := options[i]; {
		case !escaped && c == '\\':
			escaped, inWord = true, true
		case !escaped && strings.IndexByte(" \t\n\v\f\r", c) >= 0:
			end()
		default:
			escaped, inWord = false, true
			word.WriteByte(c)
		}
	}
	end()
	return words
}

// explainDSN returns what is wrong with a DSN that pgx rejects. It quotes no part of the DSN but the paths of files: pgx's own
// error may contain the password.
func explainDSN(dsn string) error {
	parameters, ok := parametersOf(dsn)
	if !ok {
		return errBadDSN
	}
	if err := checkChoices(parameters); err != nil {
		return err
	}
	return cmp.Or(checkTLSFiles(parameters), errBadDSN)
}

// parametersOf returns the parameters of a DSN, with the defaults of the environment.
func parametersOf(dsn string) (parameters map[string]string, ok bool) {
	parameters = map[string]string{}
	for _, name := range []string{"sslmode", "sslrootcert", "sslcert", "sslkey", "target_session_attrs"} {
		parameters[name] = os.Getenv("PG" + strings.ToUpper(strings.ReplaceAll(name, "_", "")))
	}
	uri, ok := cutScheme(dsn)
	if !ok {
		return parameters, parseKeywords(dsn, parameters)
	}
	return parameters, parseURI(uri, parameters)
}

// parseURI reads what follows the scheme (PostgreSQL, 34.1.1.2). Like libpq, it takes an @ before the first slash for the end
// of the password.
func parseURI(uri string, parameters map[string]string) (ok bool) {
	if i := strings.IndexAny(uri, "@/"); i >= 0 && uri[i] == '@' {
		_, password, _ := strings.Cut(uri[:i], ":")
		parameters["password"], _ = url.PathUnescape(password) // an invalid one is not in any path
		uri = uri[i+1:]
	}
	_, query, _ := strings.Cut(uri, "?")
	for pair := range strings.SplitSeq(query, "&") {
		name, value, found := strings.Cut(pair, "=")
		if !found {
			continue // pgx rejects it, unless it is the empty end
		}
		name, err := url.PathUnescape(name)
		if err != nil {
			return false
		}
		if parameters[name], err = url.PathUnescape(value); err != nil {
			return false
		}
	}
	return true
}

// parseKeywords reads the form name = 'value' (PostgreSQL, 34.1.1.1).
func parseKeywords(dsn string, parameters map[string]string) (ok bool) {
	const space = " \t\n\r\v\f"
	for rest := strings.Trim(dsn, space); rest != ""; rest = strings.TrimLeft(rest, space) {
		name, after, ok := strings.Cut(rest, "=")
		if name = strings.Trim(name, space); !ok || name == "" {
			return false
		}
		after = strings.TrimLeft(after, space)
		quoted := strings.HasPrefix(after, "'")
		var value strings.Builder
		i := 0
		if quoted {
			i++
		}
		for ; i < len(after); i++ {
			c := after[i]
			if quoted && c == '\'' || !quoted && strings.IndexByte(space, c) >= 0 {
				break
			}
			if c == '\\' {
				if i++; i == len(after) {
					break
				}
			}
			value.WriteByte(after[i])
		}
		if quoted {
			i++ // the closing quote
		}
		if i > len(after) {
			return false // not closed
		}
		parameters[name], rest = value.String(), after[i:]
	}
	return true
}

// choices are the values of parameters that have few.
var choices = map[string][]string{
	"sslmode":              {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"},
	"target_session_attrs": {"any", "read-write", "read-only", "primary", "standby", "prefer-standby"},
}

func checkChoices(parameters map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(choices)) {
		if v, ok := parameters[name]; ok && v != "" && !slices.Contains(choices[name], v) {
			return fmt.Errorf("%s of the DSN must be one of %s", name, strings.Join(choices[name], ", "))
		}
	}
	return nil
}

// checkTLSFiles reads the files of certificates as pgx does.
func checkTLSFiles(parameters map[string]string) error {
	root, cert, key := parameters["sslrootcert"], parameters["sslcert"], parameters["sslkey"]
	if root != "" && root != "system" {
		b, err := readFile(parameters, "sslrootcert")
		if err != nil {
			return err
		}
		if !x509.NewCertPool().AppendCertsFromPEM(b) {
			return fileError(parameters, "sslrootcert", "it contains no certificate in PEM format")
		}
	}
	switch {
	case cert == "" && key == "":
		return nil
	case cert == "" || key == "":
		return errors.New("sslcert and sslkey of the DSN belong together: give both, or none")
	}
	return checkKeyPair(parameters)
}

func checkKeyPair(parameters map[string]string) error {
	key, err := readFile(parameters, "sslkey")
	if err != nil {
		return err
	}
	cert, err := readFile(parameters, "sslcert")
	if err != nil {
		return err
	}
	if block, _ := pem.Decode(cert); block == nil || block.Type != "CERTIFICATE" {
		return fileError(parameters, "sslcert", "it does not begin with a certificate in PEM format")
	}
	block, _ := pem.Decode(key)
	switch {
	case block == nil || !strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return fileError(parameters, "sslkey", "it does not begin with a private key in PEM format")
	case block.Headers["DEK-Info"] != "" || block.Type == "ENCRYPTED PRIVATE KEY":
		return fileError(parameters, "sslkey", "the key is encrypted, and sslpassword is missing or does not decrypt it")
	}
	if _, err := tls.X509KeyPair(cert, key); err != nil {
		return fileError(parameters, "sslkey", "it is not the key of the certificate sslcert, or cannot be read ("+err.Error()+")")
	}
	return nil
}

func readFile(parameters map[string]string, name string) ([]byte, error) {
	b, err := os.ReadFile(parameters[name])
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		err = fileError(parameters, name, path.Err.Error())
	}
	return b, err
}

// fileError omits a path with the password in it: the DSN may lack a quote.
func fileError(parameters map[string]string, name, reason string) error {
	path := " " + parameters[name]
	if password := parameters["password"]; password != "" && strings.Contains(path, password) { //guard:password-printed-as-path
		path = ""
	}
	return fmt.Errorf("%s of the DSN: file%s: %s", name, path, reason)
}

// ReadsOnly returns why a DSN cannot be that of a writable dataset; nil if it can.
func ReadsOnly(dsn string) error {
	parameters, _ := parametersOf(dsn)
	switch attrs := parameters["target_session_attrs"]; attrs {
	case "standby", "prefer-standby", "read-only": //guard:write-pool-on-a-standby
		return fmt.Errorf("target_session_attrs=%s of the DSN looks for a server that accepts no writes: use primary or "+
			"read-write for an origin with writable datasets", attrs)
	}
	return nil
}
