package sqldb_test

import (
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// testExpires reads the end of a row from columns of each type, shown or not, also after a write.
func testExpires(t *testing.T, d database) {
	timestamp := map[string]string{"postgres": "TIMESTAMPTZ", "mysql": "DATETIME(6)", "sqlite": "TIMESTAMP"}[d.driver]
	d.exec(t, "CREATE TABLE ending (k VARCHAR(20) PRIMARY KEY, v VARCHAR(9), at_time "+timestamp+", seconds BIGINT, fraction DECIMAL(20,3), word VARCHAR(9))")
	d.exec(t, "INSERT INTO ending VALUES ('ends', 'v', '2031-02-03 04:05:06.500000', 1927857906, 1927857906.500, 'soon')")
	d.exec(t, "INSERT INTO ending VALUES ('stays', 'v', NULL, NULL, NULL, NULL)")
	at := time.Date(2031, 2, 3, 4, 5, 6, 500e6, time.UTC)
	for column, want := range map[string]time.Time{"at_time": at, "fraction": at, "seconds": at.Truncate(time.Second), "word": {}} {
		for _, ds := range []origin.Dataset{
			{Value: "v"}, {Columns: []string{"v"}}, {},
		} {
			ds.Table, ds.Key, ds.Expires = "ending", []string{"k"}, column
			results, err := d.dataset(t, ds).Load(soon(t), []string{"ends", "stays"})
			if err != nil {
				t.Fatal(err)
			}
			if r := results[0]; want.IsZero() && origin.CauseOf(r.Err) != origin.InvalidExpiry ||
				!want.IsZero() && (r.Err != nil || !r.Value.Expires.Equal(want)) {
				t.Errorf("%s: got %v, %v; want %v", column, r.Value.Expires, r.Err, want)
			}
			if r := results[1]; r.Err != nil || !r.Value.Expires.IsZero() {
				t.Errorf("%s is NULL: got %v, %v; want no end", column, r.Value.Expires, r.Err)
			}
			if string(results[1].Value.Data) == "" || len(ds.Columns) > 0 && string(results[1].Value.Data) != `{"v":"v"}` {
				t.Errorf("%s: the value is %s", column, results[1].Value.Data)
			}
		}
	}
	w := d.rows(t, origin.Dataset{Table: "ending", Key: []string{"k"}, Expires: "seconds"})
	v, err := w.Write(soon(t), origin.Change{Key: "new", Data: []byte(`{"v":"w","seconds":1927857906}`)})
	if err != nil || v.Expires.Unix() != 1927857906 {
		t.Errorf("after a write: got %v, %v", v.Expires, err)
	}
}
