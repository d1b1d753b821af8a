package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// file notices that the file of a database is replaced while it is open, as by the restore of a backup: open connections
// would stay with the previous file.
type file struct {
	path string

	mu       sync.Mutex // guards the rest
	current  fs.FileInfo
	log      fs.FileInfo // its write-ahead log; nil if there is none
	replaced int         // how often
}

// newFile returns nil if the DSN names no file.
func newFile(dsn string) *file {
	path, isURI := strings.CutPrefix(dsn, "file:")
	if isURI {
		var query string
		path, _, _ = strings.Cut(path, "#")
		path, query, _ = strings.Cut(path, "?")
		if rest, ok := strings.CutPrefix(path, "//"); ok { // an authority, empty or localhost
			path = rest[max(strings.Index(rest, "/"), 0):]
		}
		values, err := url.ParseQuery(query)
		if unescaped, e := url.PathUnescape(path); err == nil && e == nil {
			path = unescaped
		}
		if values.Get("mode") == "memory" || values.Has("vfs") {
			return nil
		}
	}
	if path == ":memory:" {
		return nil
	}
	return &file{path: path}
}

// target returns another text once the file is another one.
func (f *file) target() (string, error) {
	now, err := os.Stat(f.path)
	if err != nil {
		return "", f.explain(err)
	}
	log, _ := os.Stat(f.logPath()) // usually there is none
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.current != nil && !os.SameFile(f.current, now) { //guard:sqlite-file-replaced-unnoticed
		//guard:sqlite-log-of-another-file
		if f.log != nil && log != nil && log.Size() > 0 && os.SameFile(f.log, log) {
			return "", fmt.Errorf("open %s: it was replaced, but the write-ahead log of the previous file is still there: "+
				"remove %[2]s, which SQLite would apply to the new file, and the -shm beside it", f.path, f.logPath())
		}
		f.replaced++
	}
	f.current, f.log = now, log
	return strconv.Itoa(f.replaced), nil
}

// logPath is beside the file itself, and not beside a symbolic link to it.
func (f *file) logPath() string {
	path := f.path
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
	}
	return path + "-wal"
}

// explain reports the file that cannot be opened, and nothing else of the DSN.
func (f *file) explain(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return fmt.Errorf("open %s: %w; the database file must exist; a relative path starts at the working directory of this program",
		f.path, err)
}
