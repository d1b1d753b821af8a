package sqldb_test

import (
	"testing"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb"
)

func (d database) writer(t testing.TB, ds sqldb.Dataset) (origin.Writer, origin.Origin) {
	t.Helper()
	ds.Name = "rows"
	db := d.open(t)
	w, err := db.Writer(ds)
	if err != nil {
		t.Fatal(err)
	}
	o, err := db.Dataset(ds)
	if err != nil {
		t.Fatal(err)
	}
	return w, o
}

func TestWhatALoadGivesAWriteTakes(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d database) {
		d.exec(t, "CREATE TABLE shared ("+shared[d.driver].columns+")")
		d.exec(t, "INSERT INTO shared VALUES ("+shared[d.driver].values+")")
		w, o := d.writer(t, sqldb.Dataset{Table: "shared", Key: "k", Version: "ver"})
		before := loadOne(t, o, "k")
		for _, cond := range []origin.Condition{{}, {Present: true}, {Version: 9}} {
			v, err := w.Write(soon(t), origin.Change{Key: "k", Data: before.Data, If: cond})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d %s", v.Version, v.Data)
		}
		v, err := w.Write(soon(t), origin.Change{Key: "k", Delete: true})
		t.Log(v, err)
		v, err = w.Write(soon(t), origin.Change{Key: "k", Data: before.Data, If: origin.Condition{Absent: true}})
		t.Logf("%d %s %v", v.Version, v.Data, err)
		v, err = w.Write(soon(t), origin.Change{Key: "k", Data: before.Data, If: origin.Condition{Absent: true}})
		t.Logf("%v", err)
		v, err = w.Write(soon(t), origin.Change{Key: "k", Data: []byte(`{"small":70000}`)})
		t.Logf("%v", err)
		v, err = w.Write(soon(t), origin.Change{Key: "k", Data: []byte(`{"small":70}`)})
		t.Logf("%d %s %v", v.Version, v.Data, err)
		v, err = w.Write(soon(t), origin.Change{Key: "k2", Data: []byte(`{"small":70}`)})
		t.Logf("%d %s %v", v.Version, v.Data, err)
	})
}
