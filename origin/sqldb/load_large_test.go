package sqldb_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

// heap returns the bytes that are in use after a collection.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// The rows of one statement have 64 MiB. The databases are tested one after the other, because the memory is that of the process.
func TestLargeLoadHoldsFewOfItsRows(t *testing.T) {
	const rows, size, most = 64, 1<<20 - 100, 32 << 20
	test := func(t *testing.T, d database) {
		before := heap()
		d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, v "+
			map[string]string{"postgres": "TEXT", "mysql": "LONGTEXT", "sqlite": "TEXT"}[d.driver]+")")
		mark := map[bool]string{true: "($1, $2)", false: "(?, ?)"}[d.driver == "postgres"]
		var keys []string
		for i := range rows {
			keys = append(keys, fmt.Sprintf("key-%02d", i))
			d.exec(t, "INSERT INTO r VALUES "+mark, keys[i], strings.Repeat("x", size))
		}
		o := d.rows(t, origin.Dataset{Table: "r", Key: []string{"k"}, Value: "v"})
		read, peak := 0, uint64(0)
		err := origin.LoadEach(soon(t), o.Origin, append(keys, "none"), func(i int, r origin.Result) {
			if len(r.Value.Data) == size {
				read++
			}
			if i%16 == 15 {
				peak = max(peak, heap())
			}
		})
		if err != nil || read != rows {
			t.Errorf("read %d values, %v; want %d", read, err, rows)
		}
		if peak > before+most {
			t.Errorf("%d bytes were in use while %d were read; want at most %d", peak-before, rows*size, most)
		}
	}
	for name, start := range starts {
		t.Run(name, func(t *testing.T) { test(t, start(t)) })
	}
}
