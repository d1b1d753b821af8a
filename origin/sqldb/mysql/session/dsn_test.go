package session

import (
	"strings"
	"testing"
)

// A part of the password that is taken for the host or the database is in DNS queries, in errors and in logs.
func TestPartOfThePasswordIsNoHost(t *testing.T) {
	const canary = "c4n4ry"
	for _, dsn := range []string{
		"u:p@tcp/" + canary + "@tcp(db.example:3306)", "u:p@tcp(" + canary + "@x:1)/d", "u:p@" + canary + "/d", "u:p@tcp(db:1)/" + canary + "@x",
		"u:p/" + canary + "@tcp(db.example:3306)",
	} {
		if _, err := parseDSN(dsn); err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: got error %v, want one without the password", dsn, err)
		}
	}
	for _, dsn := range []string{"u:p@s/s?@tcp(db.example:3306)/d", "u:p@tcp(db.example)/", "u:p@unix(/run/m.sock)/d", "u:p@tcp([2001:db8::1]:3306)/d"} {
		config, err := parseDSN(dsn)
		if err != nil || strings.Contains(config.Addr, "s/s") {
			t.Errorf("%s: got %+v, error %v", dsn, config, err)
		}
	}
}

func FuzzPasswordInDSN(f *testing.F) {
	for _, seed := range []string{"p", "p@s", "p/s@", "p?@", "@tcp(", "@tcp/", ")/", ":"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, password string) {
		config, err := parseDSN("u:" + password + "@tcp(db.example:3306)/d")
		if err == nil && (config.Addr != "db.example:3306" || config.DBName != "d") {
			t.Errorf("password %q: got address %q, database %q", password, config.Addr, config.DBName)
		}
	})
}
