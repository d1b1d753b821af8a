package sqldb_test

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// listRow is a row of the table list.
type listRow struct {
	key    string
	prio   int // 0 is NULL
	name   string
	amount int // hundredths
	raw    string
}

func (r listRow) prioText() string {
	if r.prio == 0 {
		return "null"
	}
	return strconv.Itoa(r.prio)
}

func (r listRow) decimal() string { return fmt.Sprintf("%d.%02d", r.amount/100, r.amount%100) }

// names has texts that collations order in other ways than their bytes.
var names = []string{"a", "A", "b", "B", "é", "e", "É", "", " ", "a ", "ab", "Z", "z", "10", "9", "ß", "ss", "😀"}

func randomRows(random *rand.Rand) (rows []listRow) {
	for _, key := range []string{"a", "A", "b", "é", "e"} {
		for range random.IntN(12) {
			rows = append(rows, listRow{key, random.IntN(13), names[random.IntN(len(names))], random.IntN(2000), names[random.IntN(len(names))]})
		}
	}
	return rows
}

func (d database) fillList(t *testing.T, rows []listRow) {
	d.exec(t, "DROP TABLE IF EXISTS list")
	raw := map[string]string{"postgres": "bytea", "mysql": "BLOB", "sqlite": "BLOB"}[d.driver]
	d.exec(t, "CREATE TABLE list (k VARCHAR(20), prio INT, name VARCHAR(20), amount DECIMAL(12,2), raw "+raw+")")
	for _, r := range rows {
		bytes := fmt.Sprintf("x'%x'", r.raw)
		if d.driver == "postgres" {
			bytes = fmt.Sprintf(`'\x%x'`, r.raw)
		}
		d.exec(t, fmt.Sprintf("INSERT INTO list VALUES ('%s', %s, '%s', %s, %s)", r.key, r.prioText(), r.name, r.decimal(), bytes))
	}
}

// listForm is a dataset of the table, and what it makes of a row.
type listForm struct {
	name    string
	dataset origin.Dataset
	compare func(a, b listRow) int
	json    func(r listRow) string
}

func wholeRow(r listRow) string {
	return fmt.Sprintf(`{"prio":%s,"name":%q,"amount":%s}`, r.prioText(), r.name, r.decimal())
}

func (d database) listForms() []listForm {
	columns := []string{"prio", "name", "amount"}
	prio := func(a, b listRow) int { return cmp.Compare(a.prio, b.prio) } // NULL is 0, and first
	name := func(a, b listRow) int { return strings.Compare(a.name, b.name) }
	amount := func(a, b listRow) int { return cmp.Compare(a.amount, b.amount) }
	raw := func(a, b listRow) int { return strings.Compare(a.raw, b.raw) }
	by := func(all ...func(a, b listRow) int) func(a, b listRow) int {
		return func(a, b listRow) (n int) {
			for _, one := range all {
				n = cmp.Or(n, one(a, b))
			}
			return n
		}
	}
	down := func(c func(a, b listRow) int) func(a, b listRow) int {
		return func(a, b listRow) int { return c(b, a) }
	}
	batch := "SELECT k, prio, name, amount FROM list WHERE k IN (?)"
	query := "SELECT prio, name, amount FROM list WHERE k = ?"
	if d.driver == "postgres" {
		batch, query = "SELECT k, prio, name, amount FROM list WHERE k = ANY($1)", "SELECT prio, name, amount FROM list WHERE k = $1"
	}
	table := func(ds origin.Dataset) origin.Dataset {
		ds.Table, ds.Key, ds.Many = "list", []string{"k"}, true
		return ds
	}
	return []listForm{
		{"table", table(origin.Dataset{Columns: columns}), by(prio, name, amount), wholeRow},
		{"order", table(origin.Dataset{Columns: columns, Order: []string{"-amount", "name"}}), by(down(amount), name, prio), wholeRow},
		{"nulls last", table(origin.Dataset{Columns: columns, Order: []string{"-prio"}}), by(down(prio), name, amount), wholeRow},
		{"hidden order", table(origin.Dataset{Columns: columns, Order: []string{"raw"}}), by(raw, prio, name, amount), wholeRow},
		{"value", table(origin.Dataset{Value: "name", Order: []string{"prio", "-raw"}}), by(prio, down(raw), name),
			func(r listRow) string { return strconv.Quote(r.name) }},
		{"value that may be null", table(origin.Dataset{Value: "prio"}), prio, listRow.prioText},
		{"query", origin.Dataset{Query: query, Batch: batch, Many: true, Order: []string{"-name"}}, by(down(name), prio, amount), wholeRow},
	}
}

// The rows of a key have the same order and the same bytes, whatever the collation, the plan and the order of insertion.
func testManyRows(t *testing.T, d database) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for round := range 3 {
		rows := randomRows(random)
		d.fillList(t, rows)
		for _, f := range d.listForms() {
			o := d.dataset(t, f.dataset)
			results, err := o.Load(soon(t), []string{"a", "A", "b", "é", "e", "none"})
			if err != nil {
				t.Fatal(err)
			}
			for i, key := range []string{"a", "A", "b", "é", "e", "none"} {
				checkList(t, fmt.Sprint(round, " ", f.name, " ", key), results[i], f, rows, key)
			}
			if one, err := o.Load(soon(t), []string{"b"}); err != nil {
				t.Fatal(err)
			} else {
				checkList(t, f.name+" alone", one[0], f, rows, "b")
			}
		}
	}
}

func checkList(t *testing.T, what string, got origin.Result, f listForm, rows []listRow, key string) {
	t.Helper()
	mine := slices.DeleteFunc(slices.Clone(rows), func(r listRow) bool { return r.key != key })
	if len(mine) == 0 {
		if !errors.Is(got.Err, origin.ErrNotFound) {
			t.Errorf("%s: got %q, %v; want not found", what, got.Value.Data, got.Err)
		}
		return
	}
	slices.SortStableFunc(mine, f.compare)
	texts := make([]string, len(mine))
	for i, r := range mine {
		texts[i] = f.json(r)
	}
	if want := "[" + strings.Join(texts, ",") + "]"; string(got.Value.Data) != want || got.Err != nil || got.Value.Content != origin.ContentJSON {
		t.Errorf("%s: got %v\n%s, %v\nwant %s", what, got.Value.Content, got.Value.Data, got.Err, want)
	}
}

// A key with too many rows, or too large ones, is an error of this key alone; keys that are too large together are all read.
func testManyRowsAreLimited(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE list (k VARCHAR(20), v VARCHAR(200))")
	const keys = 40
	var values, requested []string
	for i := range keys {
		for j := range 5 {
			values = append(values, fmt.Sprintf("('k%d', '%d%s')", i, j, strings.Repeat("x", 150)))
		}
		requested = append(requested, fmt.Sprint("k", i))
	}
	for range 6 {
		values = append(values, "('many', '')")
	}
	for range 5 {
		values = append(values, "('large', '"+strings.Repeat("x", 200)+"')")
	}
	d.exec(t, "INSERT INTO list VALUES "+strings.Join(values, ", "))
	db, err := openDB(d.driver, origin.SourceConfig{Name: "db", DSN: d.dsn, MaxValueBytes: 900})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	o, err := db.Dataset(origin.Dataset{Name: "rows", Table: "list", Key: []string{"k"}, Value: "v", Many: true, MaxRows: 5})
	if err != nil {
		t.Fatal(err)
	}
	results, err := o.Load(soon(t), append(requested, "many", "large"))
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results[:keys] {
		if r.Err != nil || strings.Count(string(r.Value.Data), "x\"") != 5 {
			t.Errorf("%s: got %q, %v; want 5 rows", requested[i], r.Value.Data, r.Err)
		}
	}
	for i, want := range []string{"more than 5 rows", "more than 900 bytes"} {
		if r := results[keys+i]; r.Err == nil || errors.Is(r.Err, origin.ErrNotFound) || !strings.Contains(r.Err.Error(), want) {
			t.Errorf("got %v, want an error with %q", r.Err, want)
		}
	}
}

func testCheckOfManyRows(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE list (k VARCHAR(20), prio INT, ver INT)")
	db := d.open(t)
	for want, ds := range map[string]origin.Dataset{
		"":                                 {Many: true, Order: []string{"-prio"}},
		`order: there is no column "size"`: {Many: true, Order: []string{"prio", "-size"}},
		"version does not fit":             {Many: true, Version: "ver"},
		"belong to rows: many":             {Order: []string{"prio"}},
	} {
		ds.Name, ds.Table, ds.Key = "rows", "list", []string{"k"}
		if err := db.Check(soon(t), ds); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%+v: got %v, want %q", ds, err, want)
		}
	}
	ds := origin.Dataset{Name: "rows", Table: "list", Key: []string{"k"}, Many: true}
	if _, err := db.Writer(ds); err == nil || !strings.Contains(err.Error(), "rows: many cannot be written") {
		t.Errorf("writer: got %v", err)
	}
}
