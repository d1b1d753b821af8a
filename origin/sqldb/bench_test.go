package sqldb_test

import (
	"fmt"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

// BenchmarkLoad reads rows of a table with the columns of a CNF metric.
func BenchmarkLoad(b *testing.B) {
	for name, start := range starts {
		d := start(b)
		d.exec(b, "CREATE TABLE m (id VARCHAR(20) PRIMARY KEY, "+
			"at TIMESTAMP, kind VARCHAR(20), v DOUBLE PRECISION, ver BIGINT)")
		for i := range 100 {
			d.exec(b, fmt.Sprintf("INSERT INTO m VALUES ('CNF-%d', '2024-02-29 12:34:56', 'cpu', 0.42, 1)", i))
		}
		o := d.dataset(b, origin.Dataset{Table: "m", Key: []string{"id"}, Version: "ver"})
		for _, n := range []int{1, 100} {
			keys := make([]string, n)
			for i := range keys {
				keys[i] = fmt.Sprint("CNF-", i)
			}
			b.Run(fmt.Sprintf("%s/keys=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := o.Load(soon(b), keys); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkWrite writes rows of a table with the columns of a CNF metric, one at a time.
func BenchmarkWrite(b *testing.B) {
	for name, start := range starts {
		d := start(b)
		d.exec(b, "CREATE TABLE m (id VARCHAR(20) PRIMARY KEY, "+
			"at TIMESTAMP, kind VARCHAR(20), v DOUBLE PRECISION, ver BIGINT)")
		w := d.rows(b, origin.Dataset{Table: "m", Key: []string{"id"}, Version: "ver"})
		whole := origin.Change{Key: "a", Data: []byte(`{"at":"2024-02-29T12:34:56Z","kind":"cpu","v":0.42}`)}
		part := origin.Change{Key: "a", Data: []byte(`{"v":0.42}`)}
		for name, changes := range map[string][]origin.Change{
			name + "/whole": {whole}, name + "/part": {part}, name + "/create+delete": {whole, {Key: "a", Delete: true}},
		} {
			b.Run(name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					for _, c := range changes {
						if _, err := w.Write(soon(b), c); err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		}
	}
}

// BenchmarkWriteMany writes batches of rows with the columns of a CNF metric, each time other values of the same keys: in one batch, by one
// write after the other, and by an INSERT … ON CONFLICT (ON DUPLICATE KEY) for each row that a client of the database would send.
func BenchmarkWriteMany(b *testing.B) {
	for name, start := range starts {
		d := start(b)
		d.exec(b, "CREATE TABLE m (id VARCHAR(20) PRIMARY KEY, "+
			"at TIMESTAMP, kind VARCHAR(20), v DOUBLE PRECISION, ver BIGINT)")
		w := d.rows(b, origin.Dataset{Table: "m", Key: []string{"id"}, Version: "ver"})
		upsert := "INSERT INTO m VALUES (%s, '2024-02-29 12:34:56', 'cpu', %s, 1) ON CONFLICT (id) DO UPDATE SET v = excluded.v, ver = m.ver + 1"
		if d.driver == "mysql" {
			upsert = "INSERT INTO m VALUES (%s, '2024-02-29 12:34:56', 'cpu', %s, 1) ON DUPLICATE KEY UPDATE v = VALUES(v), ver = ver + 1"
		}
		upsert = d.placeholders(fmt.Sprintf(upsert, "?", "?"))
		for _, n := range []int{10, 100, 1000} {
			round := 0
			changes := func() []origin.Change {
				round++
				cs := make([]origin.Change, n)
				for i := range cs {
					cs[i] = origin.Change{Key: fmt.Sprint("CNF-", i),
						Data: fmt.Appendf(nil, `{"at":"2024-02-29T12:34:56Z","kind":"cpu","v":%d.5}`, round)}
				}
				return cs
			}
			run := func(how string, write func([]origin.Change)) {
				b.Run(fmt.Sprintf("%s/rows=%d/%s", name, n, how), func(b *testing.B) {
					for b.Loop() {
						write(changes())
					}
					b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "rows/s")
				})
			}
			run("batch", func(cs []origin.Change) {
				for _, r := range w.WriteMany(soon(b), cs) {
					if r.Err != nil {
						b.Fatal(r.Err)
					}
				}
			})
			run("alone", func(cs []origin.Change) {
				for _, c := range cs {
					if _, err := w.Write(soon(b), c); err != nil {
						b.Fatal(err)
					}
				}
			})
			run("insert", func(cs []origin.Change) {
				for _, c := range cs {
					d.exec(b, upsert, c.Key, round)
				}
			})
		}
	}
}
