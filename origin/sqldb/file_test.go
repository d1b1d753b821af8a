package sqldb_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb"
)

// sqliteFile makes a database file in a folder, with the table r and the rows k, v = who, and returns its path. A connection
// that is open to it is closed.
func sqliteFile(t *testing.T, dir, who string, keys ...string) (path string) {
	t.Helper()
	path = filepath.Join(dir, who+".db")
	d := database{DB: connect(t, "sqlite", path), engine: "sqlite", driver: "sqlite", dsn: path}
	defer d.Close()
	d.exec(t, rowsTable)
	for _, key := range keys {
		d.exec(t, "INSERT INTO r VALUES (?, ?, 1)", key, who)
	}
	return path
}

// liveDSNs are several forms of a DSN.
func liveDSNs(dir string) map[string]string {
	path := filepath.Join(dir, "live.db")
	return map[string]string{"path": path, "URI": "file:" + path + "?cache=private", "URI with host": "file://localhost" + path}
}

// rowsOf has the rows of the table r.
func rowsOf(t *testing.T, db *sqldb.DB) rows {
	t.Helper()
	ds := rowsDataset
	ds.Name = "rows"
	return rowsIn(t, db, ds)
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// replacements put the file from under the name to.
var replacements = map[string]func(t *testing.T, from, to string){
	"renamed": rename,
	"removed and renamed": func(t *testing.T, from, to string) {
		remove(t, to)
		rename(t, from, to)
	},
	"symbolic link": func(t *testing.T, from, to string) {
		link := to + ".link"
		if err := os.Symlink(from, link); err != nil {
			t.Fatal(err)
		}
		rename(t, link, to)
	},
	"folder of a symbolic link": func(t *testing.T, from, to string) { // as Kubernetes mounts a ConfigMap
		link, next := filepath.Dir(to), filepath.Join(filepath.Dir(from), "next")
		if err := os.Mkdir(next, 0o700); err != nil {
			t.Fatal(err)
		}
		rename(t, from, filepath.Join(next, filepath.Base(to)))
		replaceLink(t, next, link)
	},
}

func replaceLink(t *testing.T, target, link string) {
	t.Helper()
	if err := os.Symlink(target, link+".new"); err != nil {
		t.Fatal(err)
	}
	rename(t, link+".new", link)
}

// wantWho checks that reads, lists and writes are those of a file.
func wantWho(t *testing.T, r rows, who string, keys int) {
	t.Helper()
	if v := string(loadOne(t, r, "a").Data); !strings.Contains(v, `"v":"`+who+`"`) {
		t.Errorf("read %s, want the row of %s", v, who)
	}
	list, err := r.List(soon(t), origin.ListQuery{Limit: 10})
	if err != nil || len(list) != keys {
		t.Errorf("listed %d rows, %v; want %d", len(list), err, keys)
	}
	if _, err := r.Write(soon(t), origin.Change{Key: "w", Data: []byte(`{"v":"by Ringside"}`)}); err != nil {
		t.Errorf("write: %v", err)
	}
	if v := string(loadOne(t, r, "w").Data); !strings.Contains(v, "by Ringside") {
		t.Errorf("read %s after the write", v)
	}
}

// inFile reads the value of a key in a file itself.
func inFile(t *testing.T, path, key string) (v string) {
	t.Helper()
	d := connect(t, "sqlite", "file:"+path+"?mode=ro")
	defer d.Close()
	if err := d.QueryRow("SELECT v FROM r WHERE k = ?", key).Scan(&v); err != nil {
		t.Errorf("%s in %s: %v", key, path, err)
	}
	return v
}

// TestSQLiteFileIsReplaced replaces the file, in both journal modes, while connections to it are open.
func TestSQLiteFileIsReplaced(t *testing.T) {
	for name, replace := range replacements {
		for form := range liveDSNs("") {
			if form != "path" && name != "renamed" {
				continue
			}
			for _, mode := range []string{"WAL", "DELETE"} {
				t.Run(strings.Join([]string{name, form, mode}, ","), func(t *testing.T) {
					t.Parallel()
					testSQLiteFileIsReplaced(t, replace, form, mode)
				})
			}
		}
	}
}

func testSQLiteFileIsReplaced(t *testing.T, replace func(t *testing.T, from, to string), form, mode string) {
	root := t.TempDir()
	first := filepath.Join(root, "first")
	if err := os.Mkdir(first, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "data")
	replaceLink(t, first, dir)
	live := filepath.Join(dir, "live.db")
	rename(t, sqliteFile(t, first, "old", "a", "b"), live)
	setJournalMode(t, live, mode)
	d := database{engine: "sqlite", driver: "sqlite", dsn: liveDSNs(dir)[form]}
	db := d.open(t)
	r := rowsOf(t, db)
	feedDS := rowsDataset
	feedDS.Name = "rows"
	poll := origin.FeedConfig{Kind: origin.FeedPoll, Interval: 10 * time.Millisecond}
	if err := db.InstallChanges(soon(t), feedDS, poll); err != nil {
		t.Fatal(err)
	}
	feed, err := db.Feed(feedDS, poll)
	if err != nil {
		t.Fatal(err)
	}
	f := follow(t, restartingFeed{feed})
	f.wantMissed()
	wantWho(t, r, "old", 2)
	f.wantKey("w")

	next := sqliteFile(t, first, "new", "a", "b", "c")
	install(t, next, feedDS, poll)
	for range 5 { // the numbers of the changes exceed those of the old file, as in a copy of it
		execIn(t, next, "UPDATE r SET ver = ver + 1")
	}
	setJournalMode(t, next, mode)
	wal := live + "-wal"
	if info, err := os.Stat(wal); err == nil && info.Size() > 0 {
		remove(t, wal) // as the error about it says
		_ = os.Remove(live + "-shm")
	}
	replace(t, next, live)
	wantWho(t, r, "new", 3)
	f.wantMissed()
	execIn(t, live, "UPDATE r SET v = 'z' WHERE k = 'b'")
	f.wantKey("b")
	if v := inFile(t, live, "w"); v != "by Ringside" {
		t.Errorf("the file that is there has %q", v)
	}
}

func setJournalMode(t *testing.T, path, mode string) {
	t.Helper()
	d := connect(t, "sqlite", path)
	defer d.Close()
	if _, err := d.Exec("PRAGMA journal_mode = " + mode); err != nil {
		t.Fatal(err)
	}
}

func execIn(t *testing.T, path, statement string) {
	t.Helper()
	d := database{DB: connect(t, "sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")}
	defer d.Close()
	d.exec(t, statement)
}

func install(t *testing.T, path string, ds origin.Dataset, c origin.FeedConfig) {
	t.Helper()
	db, err := openDB("sqlite", origin.SourceConfig{Name: "db", DSN: path})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.InstallChanges(soon(t), ds, c); err != nil {
		t.Fatal(err)
	}
}

// SQLite would apply the write-ahead log of the previous file to the new one.
func TestSQLiteFileIsReplacedButNotItsLog(t *testing.T) {
	for _, when := range []string{"log of Ringside", "log of the application", "behind a symbolic link"} {
		t.Run(when, func(t *testing.T) {
			dir := t.TempDir()
			live := filepath.Join(dir, "live.db")
			rename(t, sqliteFile(t, dir, "old", "a"), live)
			setJournalMode(t, live, "WAL")
			d := database{engine: "sqlite", driver: "sqlite", dsn: live}
			if when == "behind a symbolic link" {
				d.dsn = filepath.Join(t.TempDir(), "link.db")
				replaceLink(t, live, d.dsn)
			}
			r := rowsOf(t, d.open(t))
			if when != "log of the application" {
				if _, err := r.Write(soon(t), origin.Change{Key: "a", Data: []byte(`{"v":"in the log"}`)}); err != nil {
					t.Fatal(err)
				}
			} else {
				app := database{DB: connect(t, "sqlite", live)} // remains open, as if it were killed
				app.exec(t, "UPDATE r SET v = 'in the log'")
				loadOne(t, r, "a")
			}
			info, err := os.Stat(live + "-wal")
			if err != nil || info.Size() == 0 {
				t.Fatal("the log is not there", err)
			}
			rename(t, sqliteFile(t, dir, "new", "a"), live)
			change := origin.Change{Key: "a", Data: []byte(`{"v":"x"}`)}
			for range 2 {
				_, err := r.Load(soon(t), []string{"a"})
				_, werr := r.Write(soon(t), change)
				for _, err := range []error{err, werr} {
					if err == nil || errors.Is(err, origin.ErrUnknown) || !strings.Contains(err.Error(), "write-ahead log of the previous file") {
						t.Fatalf("got %v", err)
					}
				}
			}
			remove(t, live+"-wal")
			remove(t, live+"-shm")
			if v := string(loadOne(t, r, "a").Data); !strings.Contains(v, `"new"`) {
				t.Errorf("read %s", v)
			}
			if _, err := r.Write(soon(t), change); err != nil || inFile(t, live, "a") != "x" {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A file that is deleted is an error, and works again once there is one.
func TestSQLiteFileIsDeleted(t *testing.T) {
	dir := t.TempDir()
	live := filepath.Join(dir, "live.db")
	rename(t, sqliteFile(t, dir, "old", "a"), live)
	r := rowsOf(t, database{engine: "sqlite", driver: "sqlite", dsn: live}.open(t))
	wantWho(t, r, "old", 1)
	remove(t, live)
	change := origin.Change{Key: "a", Data: []byte(`{"v":"x"}`)}
	for range 2 {
		_, err := r.Load(soon(t), []string{"a"})
		_, werr := r.Write(soon(t), change)
		for _, err := range []error{err, werr} {
			if err == nil || isOutcome(err) || errors.Is(err, origin.ErrUnknown) || !strings.Contains(err.Error(), "must exist") {
				t.Fatalf("got %v", err)
			}
		}
	}
	if _, err := os.Stat(live); err == nil {
		t.Error("a new file was created")
	}
	rename(t, sqliteFile(t, dir, "new", "a", "b"), live)
	wantWho(t, r, "new", 2)
}

// Files are replaced while several writers run: a write that succeeds is in the file that is there after it, or in one that was
// there during it. It never reports success and is in none.
func TestSQLiteFileIsReplacedDuringWrites(t *testing.T) {
	dir := t.TempDir()
	live := filepath.Join(dir, "live.db")
	rename(t, sqliteFile(t, dir, "0", "a"), live)
	r := rowsOf(t, database{engine: "sqlite", driver: "sqlite", dsn: live}.open(t))
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				done <- n
				return
			default:
			}
			n++
			_, err := r.Write(soon(t), origin.Change{Key: fmt.Sprint("w", n), Data: []byte(`{"v":"x"}`)})
			if err != nil && !errors.Is(err, origin.ErrUnknown) && isOutcome(err) {
				t.Errorf("write %d: %v", n, err)
			}
		}
	}()
	for i := 1; i <= 30; i++ {
		rename(t, sqliteFile(t, dir, fmt.Sprint(i), "a"), live)
		if v := string(loadOne(t, r, "a").Data); !strings.Contains(v, fmt.Sprintf(`"v":"%d"`, i)) {
			t.Errorf("read %s of file %d", v, i)
		}
	}
	close(stop)
	t.Logf("%d writes during 30 replacements", <-done)
	if _, err := r.Write(soon(t), origin.Change{Key: "last", Data: []byte(`{"v":"x"}`)}); err != nil || inFile(t, live, "last") != "x" {
		t.Errorf("got %v", err)
	}
	var ok string
	check := database{DB: connect(t, "sqlite", "file:"+live+"?mode=ro")}
	if check.scan(t, &ok, "PRAGMA integrity_check"); ok != "ok" {
		t.Error(ok)
	}
}
