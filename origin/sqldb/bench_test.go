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
