package sqldb_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

// completingTriggers compute the column total after a statement has returned its row, in as many ways as the database has.
var completingTriggers = map[string]map[string][]string{
	"postgres": {
		"after row": {totalFunction,
			"CREATE TRIGGER t AFTER INSERT OR UPDATE ON r FOR EACH ROW EXECUTE FUNCTION total()"},
		"after statement": {`CREATE FUNCTION total() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF pg_trigger_depth() < 2 THEN UPDATE r SET total = a + b; END IF; RETURN NULL; END $$`,
			"CREATE TRIGGER t AFTER INSERT OR UPDATE ON r FOR EACH STATEMENT EXECUTE FUNCTION total()"},
		"deferred": {totalFunction, "CREATE CONSTRAINT TRIGGER t AFTER INSERT OR UPDATE ON r DEFERRABLE INITIALLY DEFERRED " +
			"FOR EACH ROW EXECUTE FUNCTION total()"},
		"before": {`CREATE FUNCTION total() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			NEW.total = NEW.a + NEW.b; RETURN NEW; END $$`,
			"CREATE TRIGGER t BEFORE INSERT OR UPDATE ON r FOR EACH ROW EXECUTE FUNCTION total()"},
		"of another table": {"CREATE TABLE child (n INT REFERENCES r (b) ON UPDATE CASCADE)", "INSERT INTO child VALUES (2)",
			`CREATE FUNCTION total() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				UPDATE r SET total = a + b; RETURN NULL; END $$`,
			"CREATE TRIGGER t AFTER UPDATE ON child FOR EACH ROW EXECUTE FUNCTION total()"},
		"of a partition": {"DROP TABLE r", "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, a INT, b INT, total INT) PARTITION BY LIST (k)",
			"CREATE TABLE r1 PARTITION OF r DEFAULT", "INSERT INTO r VALUES ('a', 1, 2)", totalFunction,
			"CREATE TRIGGER t AFTER INSERT OR UPDATE ON r1 FOR EACH ROW EXECUTE FUNCTION total()"},
	},
	"mysql": {
		"before": {"CREATE TRIGGER i BEFORE INSERT ON r FOR EACH ROW SET NEW.total = NEW.a + NEW.b",
			"CREATE TRIGGER u BEFORE UPDATE ON r FOR EACH ROW SET NEW.total = NEW.a + NEW.b"},
	},
	"sqlite": {
		"after": {"CREATE TRIGGER i AFTER INSERT ON r BEGIN UPDATE r SET total = a + b WHERE k = NEW.k; END",
			"CREATE TRIGGER u AFTER UPDATE OF a, b ON r BEGIN UPDATE r SET total = a + b WHERE k = NEW.k; END"},
	},
}

const totalFunction = `CREATE FUNCTION total() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	IF NEW.total IS DISTINCT FROM NEW.a + NEW.b THEN UPDATE r SET total = a + b WHERE k = NEW.k; END IF; RETURN NULL; END $$`

// What a write returns is what the next read returns, whatever the triggers of the table do.
func testWritesToATableWithTriggers(t *testing.T, d database) {
	for name, statements := range completingTriggers[d.driver] {
		t.Run(name, func(t *testing.T) {
			d := d
			if d.driver != "mysql" {
				d = d.empty(t, "completing_"+strings.ReplaceAll(name, " ", "_"))
			}
			d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, a INT, b INT UNIQUE, total INT)")
			d.exec(t, "INSERT INTO r (k, a, b) VALUES ('a', 1, 2)")
			w := d.rows(t, origin.Dataset{Table: "r", Key: []string{"k"}})
			for i, statement := range statements { // the writer does not know the triggers from its start
				if i == 0 {
					write(t, w, `{"a":0}`)
				}
				d.exec(t, statement)
			}
			for _, c := range []struct{ key, value, want string }{
				{"a", `{"a":5,"b":6}`, `{"k":"a","a":5,"b":6,"total":11}`},
				{"a", `{"a":5,"b":7,"total":0}`, `{"k":"a","a":5,"b":7,"total":12}`},
				{"new", `{"a":1,"b":1}`, `{"k":"new","a":1,"b":1,"total":2}`},
			} {
				if name == "of another table" && c.key == "new" {
					continue // it has no child
				}
				v, err := w.Write(soon(t), origin.Change{Key: c.key, Data: []byte(c.value)})
				if err != nil || string(v.Data) != c.want {
					t.Errorf("%s: got %s, %v, want %s", c.value, v.Data, err, c.want)
				}
				if read := loadOne(t, w, c.key); string(read.Data) != c.want {
					t.Errorf("%s: read %s, want %s", c.value, read.Data, c.want)
				}
			}
			if _, err := w.Write(soon(t), origin.Change{Key: "a", Delete: true}); err != nil && name != "of another table" {
				t.Errorf("deletion: %v", err)
			}
		})
	}
}

// suppressingTriggers make the database skip each change of the row s without an error.
var suppressingTriggers = map[string]map[string][]string{
	"postgres": {
		"before": {`CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF COALESCE(NEW.k, OLD.k) LIKE 's%' THEN RETURN NULL; END IF; RETURN COALESCE(NEW, OLD); END $$`,
			"CREATE TRIGGER t BEFORE INSERT OR UPDATE OR DELETE ON r FOR EACH ROW EXECUTE FUNCTION skip()"},
		"after, which restores it": {`CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF TG_OP = 'INSERT' THEN DELETE FROM r WHERE k = NEW.k; ELSE INSERT INTO r VALUES (OLD.*); END IF; RETURN NULL; END $$`,
			"CREATE TRIGGER t AFTER INSERT ON r FOR EACH ROW WHEN (NEW.k = 'snew') EXECUTE FUNCTION undo()",
			"CREATE TRIGGER d AFTER DELETE ON r FOR EACH ROW WHEN (OLD.k = 's') EXECUTE FUNCTION undo()"},
	},
	"sqlite": {
		"before": {"CREATE TRIGGER i BEFORE INSERT ON r WHEN NEW.k LIKE 's%' BEGIN SELECT RAISE(IGNORE); END",
			"CREATE TRIGGER u BEFORE UPDATE ON r WHEN NEW.k LIKE 's%' BEGIN SELECT RAISE(IGNORE); END",
			"CREATE TRIGGER d BEFORE DELETE ON r WHEN OLD.k LIKE 's%' BEGIN SELECT RAISE(IGNORE); END"},
		"after, which restores it": {
			"CREATE TRIGGER i AFTER INSERT ON r WHEN NEW.k = 'snew' BEGIN DELETE FROM r WHERE k = NEW.k; END",
			"CREATE TRIGGER d AFTER DELETE ON r WHEN OLD.k = 's' BEGIN INSERT INTO r VALUES (OLD.k, OLD.v, OLD.ver); END"},
	},
}

// A write that a trigger suppresses is no conflict: the client would try again forever.
func testWritesThatATriggerSuppresses(t *testing.T, d database) {
	for name, statements := range suppressingTriggers[d.driver] {
		t.Run(name, func(t *testing.T) {
			d := d.empty(t, "suppressing_"+name[:5])
			d.exec(t, rowsTable)
			d.exec(t, "INSERT INTO r VALUES ('s', 'x', 7), ('other', 'x', 7)")
			for _, statement := range statements {
				d.exec(t, statement)
			}
			w := d.rows(t, rowsDataset)
			changes := []origin.Change{
				{Key: "s", Delete: true}, {Key: "s", Delete: true, If: origin.Condition{Version: 7}},
				{Key: "snew", Data: []byte(`{"v":"y"}`)},
				{Key: "snew", Data: []byte(`{"v":"y"}`), If: origin.Condition{Absent: true}},
			}
			if name == "before" {
				changes = append(changes, origin.Change{Key: "s", Data: []byte(`{"v":"y"}`)},
					origin.Change{Key: "s", Data: []byte(`{"v":"y"}`), If: origin.Condition{Present: true}},
					origin.Change{Key: "s", Data: []byte(`{"v":"y"}`), If: origin.Condition{Version: 7}})
			}
			for _, c := range changes {
				_, err := w.Write(soon(t), c)
				if !errors.Is(err, origin.ErrInvalidValue) || !strings.Contains(err.Error(), "trigger") {
					t.Errorf("%+v: got %v, want an invalid value because of a trigger", c, err)
				}
			}
			for _, c := range []origin.Change{
				{Key: "s", Data: []byte(`{"v":"y"}`), If: origin.Condition{Version: 6}},
				{Key: "s", Data: []byte(`{"v":"y"}`), If: origin.Condition{Absent: true}},
				{Key: "snew", Data: []byte(`{"v":"y"}`), If: origin.Condition{Present: true}},
				{Key: "snew", Delete: true, If: origin.Condition{Present: true}},
			} {
				if _, err := w.Write(soon(t), c); !errors.Is(err, origin.ErrConflict) {
					t.Errorf("%+v: got %v, want a conflict", c, err)
				}
			}
			if _, err := w.Write(soon(t), origin.Change{Key: "other", Data: []byte(`{"v":"y"}`)}); err != nil {
				t.Error(err)
			}
			if n := d.count(t, "SELECT count(*) FROM r WHERE k = 's' AND v = 'x' AND ver = 7"); n != 1 {
				t.Error("the row has changed")
			}
		})
	}
}
