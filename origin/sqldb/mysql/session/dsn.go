package session

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	_ "time/tzdata" // the parameter loc names a zone, also in an image without zoneinfo

	mysqldriver "github.com/go-sql-driver/mysql"
)

var errBadDSN = errors.New("this is not a DSN of MySQL; give one such as user:password@tcp(host:3306)/database?tls=true")

// errPasswordInDSN: the driver takes the last slash for the beginning of the database.
var errPasswordInDSN = errors.New("the host or the database of the DSN has an @ or a parenthesis, which may be a part of the " +
	"password: end the DSN with /database, or with / alone")

// parseDSN returns the configuration of connections. It overrides the parameters that change what the driver returns.
func parseDSN(dsn string) (*mysqldriver.Config, error) {
	config, err := mysqldriver.ParseDSN(dsn)
	if err != nil {
		return nil, explainDSN(dsn)
	}
	if dsn == "" || config.Net != "tcp" && config.Net != "unix" { // Net would be part of a password
		return nil, errBadDSN
	}
	if strings.ContainsAny(config.DBName, "@()") || config.Net == "tcp" && strings.ContainsAny(config.Addr, "@/") { //guard:part-of-mysql-password-is-a-host
		return nil, errPasswordInDSN
	}
	if config.MaxAllowedPacket == mysqldriver.NewConfig().MaxAllowedPacket {
		config.MaxAllowedPacket = 0 // the server's, so that a value beyond it does not end the connection
	}
	config.ParseTime = false         // receive times as the database prints them
	config.InterpolateParams = false // keys are never part of a statement
	config.MultiStatements = false
	config.AllowAllFiles = false
	config.ColumnsWithAlias = false          // it changes the names of columns
	config.RejectReadOnly = false            // it hides that a query writes
	config.Logger = &mysqldriver.NopLogger{} // its messages are returned as errors too
	//guard:unchanged-row-not-matched
	config.ClientFoundRows = true // an UPDATE that changes nothing has still matched its row
	return config, nil
}

// hints say which values a parameter of the driver has, if there are few.
var hints = map[string]string{
	"tls": "use true, skip-verify, preferred or false; for a private certificate authority, use true, and set the environment variable " +
		"SSL_CERT_FILE to the file with its certificate",
	"loc": "it is not the name of a time zone, such as UTC or Europe%2FBerlin",
}

// explainDSN finds the parameter that the driver rejects. It quotes nothing of the DSN: the driver's own error may contain
// the password.
func explainDSN(dsn string) error {
	_, query, _ := strings.Cut(dsn[strings.LastIndexByte(dsn, '/')+1:], "?")
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if _, err := mysqldriver.ParseDSN("tcp(host:1)/?" + pair); err == nil || !slices.Contains(parameters, name) {
			continue
		}
		if _, err := url.QueryUnescape(value); err != nil {
			return fmt.Errorf("the parameter %s of the DSN is not percent-encoded correctly", name)
		}
		if hint := hints[name]; hint != "" {
			return fmt.Errorf("the parameter %s of the DSN is wrong: %s", name, hint)
		}
		return fmt.Errorf("the parameter %s of the DSN has an invalid value", name)
	}
	return errBadDSN
}

// parameters are those of the driver (its dsn.go); all others are variables of the server.
var parameters = []string{"allowAllFiles", "allowCleartextPasswords", "allowFallbackToPlaintext", "allowNativePasswords",
	"allowOldPasswords", "checkConnLiveness", "clientFoundRows", "charset", "collation", "columnsWithAlias", "compress",
	"interpolateParams", "loc", "multiStatements", "parseTime", "timeTruncate", "readTimeout", "rejectReadOnly", "serverPubKey",
	"strict", "timeout", "tls", "writeTimeout", "maxAllowedPacket", "connectionAttributes"}
