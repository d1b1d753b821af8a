package telemetry

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/deploy/schema"
)

func everyRow() []Row {
	last, now := full(), full()
	last.at, now.at = noon.Add(-time.Second), noon
	return (&sheet{at: noon}).fill(last, now, 5, func(int32) string { return "NAME" })
}

func TestReadmeListsEveryRow(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range everyRow() {
		line := regexp.MustCompile("(?m)^.*`" + regexp.QuoteMeta(row.Type) + "`.*$").FindString(string(readme))
		if !strings.Contains(line, row.Unit) {
			t.Errorf("%s (%s): its line of README.md does not say %s: %q", row.ID, row.Type, row.Unit, line)
		}
		if row.Lasting && !strings.Contains(line, "`"+row.ID+"`") {
			t.Errorf("README.md does not say that %s is %s", row.ID, row.Type)
		}
	}
}

func TestSeedHasTheHostRows(t *testing.T) {
	seed, err := schema.Files.ReadFile("seed.sql")
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(` AS \w+`).ReplaceAllString(string(seed), "")
	rows := 0
	for _, row := range everyRow() {
		if !row.Lasting {
			continue
		}
		rows++
		if want := "'" + row.ID + "', '" + row.Type + "', '" + row.Unit + "'"; !strings.Contains(text, want) {
			t.Errorf("seed.sql has no %s", want)
		}
	}
	if n := strings.Count(text, "'CNF-"); n != rows {
		t.Errorf("seed.sql has %d rows, the host %d", n, rows)
	}
}
