package admin

import (
	"slices"
	"strings"
	"testing"
)

func TestCommandLineIsShownWithoutSecrets(t *testing.T) {
	args := []string{"ringside", "run", "-c", "a.yaml", "--set", "origins.db.dsn=postgres://u:c4n4ry@h/d?x=c4n4ry", "--set=origins.db.dsn=u:c4n4ry@tcp(h)/"}
	want := []string{"ringside", "run", "-c", "a.yaml", "--set", "origins.db.dsn=***", "--set=origins.db.dsn=***"}
	if got := withoutValues(args); !slices.Equal(got, want) || strings.Contains(strings.Join(got, " "), "c4n4ry") {
		t.Errorf("got %q, want %q", got, want)
	}
}
