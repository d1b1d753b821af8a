package dsn

import (
	"strings"
	"testing"
)

// A part of the password that is taken for the host is in DNS queries, in errors and in logs.
func TestPartOfThePasswordIsNoHost(t *testing.T) {
	for _, dsn := range []string{
		"postgres://u:p@" + canary + "/w@db.example/d", "postgres://u:p@" + canary + "@db.example/d", "postgresql://u:p@" + canary + "?w@db.example/d",
		"postgres://u:p@" + canary + "#w@db.example/d", "postgres://u:5/" + canary + "@db.example/d", "postgres://u:p@ss/" + canary + "@db/d?sslmode=disable",
		"postgres://u:pw@db.example/d?" + canary + "@x=1",
	} {
		_, _, err := Parse(dsn, nil)
		if err == nil || strings.Contains(err.Error(), canary) || !strings.Contains(err.Error(), "percent-encode") {
			t.Errorf("%s: got error %v, want one that says how to write the password", dsn, err)
		}
	}
	for _, dsn := range []string{
		"postgres://u:p%40s%2Fs%3F@db.example/d", "postgres://u:p@db/d?application_name=a%40b", "postgres://u:p@h1:1,h2:2/d?sslmode=disable",
		"postgres://u:p@db/d?user=a@b", "host=db user=u password='p@s/s'", "postgres://db/d", "postgres://u:p@[2001:db8::1]:5432/d",
	} {
		if _, _, err := Parse(dsn, nil); err != nil {
			t.Errorf("%s: %v", dsn, err)
		}
	}
}

func FuzzPasswordInURI(f *testing.F) {
	for _, seed := range []string{"p", "p@s", "p/s@", "p?@", "#@", "%40", ":@", ",", "]@[", "?=@", "?x=@"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, password string) {
		config, _, err := Parse("postgres://u:"+password+"@db.example:5432/d?sslmode=disable", nil)
		if err == nil && (config.Host != "db.example" || config.Database != "d" || len(config.Fallbacks) != 0) {
			t.Errorf("password %q: got host %q, database %q", password, config.Host, config.Database)
		}
	})
}
