package sqldb_test

import (
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

// Each change of one of the rows of a key invalidates the key, and a row that gets another key invalidates both.
func testFeedOfManyRows(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, "CREATE TABLE list (k VARCHAR(20), prio INT, v VARCHAR(20))")
	r := d.record(t, origin.Dataset{Table: "list", Key: []string{"k"}, Value: "v", Order: []string{"prio"}, Many: true}, c)
	o, err := r.db.Dataset(r.ds)
	if err != nil {
		t.Fatal(err)
	}
	f := r.started(t)
	for _, step := range []struct {
		statement string
		changed   []string
		a         string
	}{
		{"INSERT INTO list VALUES ('a', 3, 'x')", []string{"a"}, `["x"]`},
		{"INSERT INTO list VALUES ('a', 1, 'y')", []string{"a"}, `["y","x"]`},
		{"INSERT INTO list VALUES ('a', 2, 'z'), ('b', 1, 'x')", []string{"a", "b"}, `["y","z","x"]`},
		{"UPDATE list SET v = 'w' WHERE v = 'z'", []string{"a"}, `["y","w","x"]`},
		{"UPDATE list SET prio = 9 WHERE v = 'y'", []string{"a"}, `["w","x","y"]`},
		{"UPDATE list SET k = 'b' WHERE v = 'w'", []string{"a", "b"}, `["x","y"]`},
		{"DELETE FROM list WHERE v = 'y'", []string{"a"}, `["x"]`},
		{"DELETE FROM list WHERE k = 'b'", []string{"b"}, `["x"]`},
	} {
		d.exec(t, step.statement)
		want := map[string]int64{}
		for _, key := range step.changed {
			want[key] = 0
		}
		f.want(want)
		if got := loadOne(t, o, "a"); string(got.Data) != step.a {
			t.Errorf("after %s: got %s, want %s", step.statement, got.Data, step.a)
		}
	}
}
