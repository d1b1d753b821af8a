package origin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Driver opens origins of one kind.
type Driver interface {
	// Name is the value of `driver` in the configuration.
	Name() string
	// FeedKinds returns the kinds of change feeds that these origins support, such as FeedPoll.
	FeedKinds() []string
	// Open checks c but does not connect: an origin that is down must not keep the sidecar from starting. Its errors name
	// the origin and contain no part of the DSN.
	Open(c SourceConfig) (Source, error)
}

// ClearTextDriver is a Driver that can tell how a DSN protects the password on the network.
type ClearTextDriver interface {
	// ClearText returns what to change in a DSN with a password that may be sent without encryption to a host; "" if there
	// is nothing to change, or the DSN is not valid. The host is not part of the text. isLocal tells that no other host sees
	// what is sent to an address.
	ClearText(dsn string, isLocal func(host string) bool) string
}

// ServiceDriver is a Driver of a service that is no SQL database. Its origins take their credentials from SourceConfig.Auth.
type ServiceDriver interface {
	// ValuesField is the field of a dataset in the configuration that says which values of the service it has: url, prefix.
	ValuesField() string
}

// Drivers are the known kinds of origins, in the order in which messages list them.
type Drivers []Driver

// Names returns the values that `driver` can have in the configuration.
func (d Drivers) Names() []string {
	names := make([]string, len(d))
	for i, driver := range d {
		names[i] = driver.Name()
	}
	return names
}

// Lookup returns the driver of this name, or nil.
func (d Drivers) Lookup(name string) Driver {
	for _, driver := range d {
		if driver.Name() == name {
			return driver
		}
	}
	return nil
}

// Open opens an origin with the driver of this name.
func (d Drivers) Open(name string, c SourceConfig) (Source, error) {
	driver := d.Lookup(name)
	if driver == nil {
		return nil, fmt.Errorf("unknown driver %q: use one of %s", name, strings.Join(d.Names(), ", "))
	}
	return driver.Open(c)
}

// ClearText is that of the driver of this name; "" if the driver has no DSN with a password.
func (d Drivers) ClearText(name, dsn string, isLocal func(host string) bool) string {
	if driver, ok := d.Lookup(name).(ClearTextDriver); ok {
		return driver.ClearText(dsn, isLocal)
	}
	return ""
}

// ValuesField is that of the driver of this name; empty for SQL databases, and for a driver that is not known.
func (d Drivers) ValuesField(name string) string {
	if driver, ok := d.Lookup(name).(ServiceDriver); ok {
		return driver.ValuesField()
	}
	return ""
}

// Defaults of SourceConfig.
const (
	DefaultMaxConns      = 4 // few: a thousand sidecars share the origin, and hits need no connection
	DefaultMaxValueBytes = 1 << 20
)

// SourceConfig says how to reach one origin.
type SourceConfig struct {
	// Name is the origin's name in the configuration; errors name the origin by it.
	Name string
	// DSN says where the origin is and with which credentials, in the form of the driver. It is a secret.
	DSN string
	// ReloadDSN returns the current DSN. The driver calls it for each new connection and takes user and password from the
	// result; nil means that they do not change.
	ReloadDSN func() (string, error)
	// Auth has the credentials for a ServiceDriver.
	Auth Auth
	// MaxConns limits the connections, and so the simultaneous statements; 0 means DefaultMaxConns.
	MaxConns int
	// MaxValueBytes limits one value. A row with a larger one is an error of its key alone; 0 means DefaultMaxValueBytes.
	MaxValueBytes int
	// Comment returns what a statement says in a comment of the request that it is executed for; empty for most. It is text from
	// outside. Nil: there are no comments.
	Comment func(context.Context) string
	// Defect is called with each panic on a goroutine of the source that no caller waits for, stack included. May be nil.
	Defect func(error)
}

// Auth are the credentials for an origin whose DSN has none. Its files are read again for each connection or request.
type Auth struct {
	Username, PasswordFile string
	// TokenFile has a bearer token of HTTP.
	TokenFile string
	// CertFile, KeyFile and CAFile are PEM files for TLS.
	CertFile, KeyFile, CAFile string
}

// String omits the DSN.
func (c SourceConfig) String() string { return fmt.Sprintf("origin %q", c.Name) }

// GoString omits the DSN.
func (c SourceConfig) GoString() string { return c.String() }

// Source is one open origin, which its datasets share. It is safe for concurrent use. What else an origin can do is an
// interface of its own: UniqueSource, WritableSource, ListableSource, FeedSource, FeedInstaller, ReloadableSource.
type Source interface {
	// Dataset checks ds without connecting, and returns the origin of its rows.
	Dataset(ds Dataset) (Origin, error)
	// Check connects, and returns what in the origin contradicts ds: a *FieldError for each wrong field.
	Check(ctx context.Context, ds Dataset) error
	// Close closes the connections after the statements in flight.
	Close() error
}

// WritableSource is a Source whose rows can be written.
type WritableSource interface {
	// Writer checks ds without connecting, and returns the writer of its rows.
	Writer(ds Dataset) (Writer, error)
	// CheckWritable connects, and returns what prevents safe writes, such as a missing right. It writes nothing.
	CheckWritable(ctx context.Context, ds Dataset) error
}

// UniqueSource is a Source that can tell whether a key has one row.
type UniqueSource interface {
	// CheckUnique connects, and returns a *FieldError of key if a key of ds may have two rows although ds promises one. Where the
	// origin promises nothing (a view), it looks for such a key, for at most limit.
	CheckUnique(ctx context.Context, ds Dataset, limit time.Duration) error
}

// ListableSource is a Source whose rows can be listed.
type ListableSource interface {
	// Lister checks ds without connecting, and returns the lister of its rows.
	Lister(ds Dataset) (Lister, error)
}

// KeyListableSource is a Source whose keys can be listed.
type KeyListableSource interface {
	// KeyLister checks ds without connecting, and returns the lister of the keys of its table, or of those that a query of the
	// configuration returns: its columns are those of the key.
	KeyLister(ds Dataset, query string) (KeyLister, error)
}

// FeedSource is a Source that reports changes.
type FeedSource interface {
	// Feed checks ds and c without connecting, and returns the change feed of the dataset.
	Feed(ds Dataset, c FeedConfig) (Feed, error)
	// CheckFeed connects, and returns why the feed would report no changes. The error wraps ErrFeedUnavailable if something
	// is missing in the origin; other errors say nothing about the feed.
	CheckFeed(ctx context.Context, ds Dataset, c FeedConfig) error
}

// FeedInstaller is a Source in which something must be installed before it reports changes.
type FeedInstaller interface {
	// ChangesSQL connects, and returns the statements that install, and those that remove, what the feed needs.
	ChangesSQL(ctx context.Context, ds Dataset, c FeedConfig) (install, remove string, err error)
	// InstallChanges runs the install statements of ChangesSQL.
	InstallChanges(ctx context.Context, ds Dataset, c FeedConfig) error
	// RemoveChanges runs the remove statements of ChangesSQL.
	RemoveChanges(ctx context.Context, ds Dataset, c FeedConfig) error
}

// ReloadableSource is a Source that reads its credentials again.
type ReloadableSource interface {
	// TargetChanged reports whether SourceConfig.ReloadDSN returns the DSN of another origin than the connected one, which
	// stays in use until a restart.
	TargetChanged() bool
}

// Writable returns s as a source whose rows can be written, or an error if origins of its kind cannot be written.
func Writable(s Source) (WritableSource, error) {
	return capability[WritableSource](s, "cannot be written: leave writable out; write in the service itself, and invalidate the key")
}

// Listable returns s as a source whose rows can be listed, or an error if origins of its kind cannot be listed.
func Listable(s Source) (ListableSource, error) {
	return capability[ListableSource](s, "cannot be listed: leave cnf_metrics out")
}

// KeyListable returns s as a source whose keys can be listed, or an error if those of its kind cannot be listed.
func KeyListable(s Source) (KeyListableSource, error) {
	return capability[KeyListableSource](s, "cannot list their keys: leave warm and list out")
}

// WithFeed returns s as a source that reports changes, or an error if origins of its kind report none.
func WithFeed(s Source) (FeedSource, error) {
	return capability[FeedSource](s, "report no changes: leave feed out; a shorter ttl or an invalidation shows changes earlier")
}

// WithInstaller returns s as a source in which feeds are installed, or an error if origins of its kind need no installation.
func WithInstaller(s Source) (FeedInstaller, error) {
	return capability[FeedInstaller](s, "need nothing installed for a feed")
}

// Check returns what is wrong with a dataset of s, found without connecting: its statements, those of its writes if it is
// writable, and its feed unless that is nil.
func Check(s Source, d Dataset, writable bool, feed *FeedConfig) error {
	if _, err := s.Dataset(d); err != nil {
		return err
	}
	if writable {
		w, err := Writable(s)
		if err == nil {
			_, err = w.Writer(d)
		}
		if err != nil {
			return err
		}
	}
	if feed == nil {
		return nil
	}
	f, err := WithFeed(s)
	if err == nil {
		_, err = f.Feed(d, *feed)
	}
	return err
}

func capability[T any](s Source, cannot string) (T, error) {
	t, ok := s.(T)
	if !ok {
		return t, errors.New("origins of this kind " + cannot)
	}
	return t, nil
}

// Dataset says which rows of an origin are the values of a dataset: those of a table, or those of a query.
type Dataset struct {
	// Name is the dataset's name in the configuration; errors name it.
	Name string

	// Table is table or schema.table. The driver writes the queries.
	Table string
	// Key are the columns of Table that hold the key, at most MaxKeyColumns; they should have a unique index. JoinKey makes the key
	// of their texts.
	Key []string
	// Columns are those of the value, in order; empty means all of Table, in its order. Only with Table.
	Columns []string

	// Query reads the row of one key, with a parameter for each column of the key: $1 in PostgreSQL, ? elsewhere. Instead of
	// Table. Key, if set, names columns of its result, which must have the bytes of the key; otherwise the database compares.
	Query string
	// Batch reads the rows of many keys; its first columns are the key and not part of the value. The parameters are an
	// array for each column in PostgreSQL (= ANY($1)), and a list elsewhere (IN (?), the ? is repeated). Without Batch, each
	// key costs one query.
	Batch string

	// Many makes the value of a key the JSON array of all its rows; otherwise a key with two rows is an error.
	Many bool
	// Order are the columns by which these rows are ordered, "-name" for descending; then come those of the value, from the left.
	// The order depends on the values only: null, false, true, numbers, strings by their bytes.
	Order []string
	// MaxRows limits the rows of one key of Many; 0 means DefaultMaxRows.
	MaxRows int

	// Version is the integer column that grows with each write of the row; empty if there is none.
	Version string
	// Expires is the column that says until when the row is valid: a time, or a number of seconds since 1970; empty if there is
	// none, and NULL for a row without an end.
	Expires string
	// Value is the one column that is the value, unchanged; empty means the row as a JSON object.
	Value string

	// HTTP says what is requested of a service over HTTP.
	HTTP HTTPValues
	// Prefix begins the keys in etcd: what follows it is the key.
	Prefix string

	// IntegerTimes says what an integer counts, since 1970, that a database without types for times stores in a column of
	// times: IntegerSeconds or IntegerMilliseconds. Empty means that it is only a number.
	IntegerTimes string
}

// HTTPValues says how the values of a service are requested over HTTP.
type HTTPValues struct {
	// URL is the path and query of a key, in which {key}, or {column} for each column of Key, stands for a component of it.
	URL string
	// Preset is a known API, whose responses are unpacked; empty for none.
	Preset string
	// NotFound and Invalid are the status codes of keys that do not exist, and that cannot exist; nil means the defaults. All others
	// except 200 and 203 are failures of the service.
	NotFound, Invalid []int
	// IgnoreCacheControl makes all values live as long as the policy says.
	IgnoreCacheControl bool
}

// PresetPrometheus is the HTTPValues.Preset for instant queries of Prometheus: the value is `data` of the response.
const PresetPrometheus = "prometheus"

// DefaultMaxRows is the default of Dataset.MaxRows.
const DefaultMaxRows = 1000

// The values of Dataset.IntegerTimes.
const (
	IntegerSeconds      = "seconds"
	IntegerMilliseconds = "milliseconds"
)

// FieldError says which field of a Dataset the origin contradicts. Field is in lower case, as in "version".
type FieldError struct {
	Field string
	Err   error
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }
func (e *FieldError) Unwrap() error { return e.Err }

// FieldErrors returns the outermost *FieldErrors in the tree of err.
func FieldErrors(err error) []*FieldError {
	switch e := err.(type) {
	case *FieldError:
		return []*FieldError{e}
	case interface{ Unwrap() error }:
		return FieldErrors(e.Unwrap())
	case interface{ Unwrap() []error }:
		var all []*FieldError
		for _, err := range e.Unwrap() {
			all = append(all, FieldErrors(err)...)
		}
		return all
	}
	return nil
}

// The kinds of change feeds.
const (
	// FeedNotify receives what triggers send by NOTIFY, within milliseconds. Each feed has its own connection, in addition
	// to MaxConns.
	FeedNotify = "notify"
	// FeedPoll reads what triggers record in a table, every Interval. It has its own connection too: loads that hold the
	// whole pool would end the feed, and without the feed there would be more of them.
	FeedPoll = "poll"
	// FeedLogical reads the log of the database, within milliseconds, without triggers. Each feed has two connections, in addition to
	// MaxConns.
	FeedLogical = "logical"
	// FeedWatch receives what etcd reports of the keys of a prefix, within milliseconds. Each feed has its own connection.
	FeedWatch = "watch"
)

// Defaults of FeedConfig.
const (
	DefaultFeedTable    = "ringside_changes"
	DefaultFeedInterval = 500 * time.Millisecond
	DefaultFeedKeep     = time.Hour
	DefaultFeedKeepRows = 100_000
	// DefaultFeedMaxWAL is what a server of PostgreSQL keeps anyway, by default (max_wal_size).
	DefaultFeedMaxWAL = 1 << 30
)

// FeedConfig says how an origin reports changes that others make.
type FeedConfig struct {
	// Kind is FeedNotify, FeedPoll, FeedLogical or FeedWatch.
	Kind string
	// Tables are the tables whose rows make the values of a view, a join or a query, each with its columns that hold the key of
	// the dataset, in the order of Dataset.Key. Empty means the table of the dataset.
	Tables map[string][]string
	// Channel is the channel of FeedNotify; datasets may share it. Any role of the database that knows its name can listen to
	// it and send to it. Empty means a random name, which the installation stores where only the owner may read it.
	Channel string
	// Table is the table that FeedPoll reads, as table or schema.table; datasets may share it. Without schema it is in that
	// of the dataset's table. Empty means DefaultFeedTable.
	Table string
	// Interval is the pause between two reads of FeedPoll; 0 means DefaultFeedInterval.
	Interval time.Duration
	// Keep and KeepRows are how long, and how many, rows of Table are kept: the feed deletes the others. 0 means DefaultFeedKeep
	// and DefaultFeedKeepRows.
	Keep     time.Duration
	KeepRows int
	// Publication is the publication of FeedLogical; datasets may share it. Empty means a name that is made of the dataset's.
	Publication string
	// MaxWAL is how many bytes of its log the server may keep for a reader of FeedLogical, which starts over if there are more; 0
	// means DefaultFeedMaxWAL.
	MaxWAL int64
}

// CheckFeedKey returns what is wrong with the columns that hold, in one of FeedConfig.Tables, a key of these columns.
func CheckFeedKey(key, columns []string) error {
	switch width := max(1, len(key)); {
	case len(columns) == 0 || slices.Contains(columns, ""):
		return errors.New("want the columns of this table that hold the key of the dataset")
	case len(columns) > width && len(key) == 0:
		return fmt.Errorf("has %d columns for a key of one; name the columns of the key of the query in key, in the order of its parameters",
			len(columns))
	case len(columns) != width: //guard:feed-reports-part-of-a-key
		return fmt.Errorf("has %d of %d columns; want the one of this table for each column of key (%s), in this order: a change of a row "+
			"invalidates one key, and part of a key names none", len(columns), width, strings.Join(key, ", "))
	}
	for i, column := range columns {
		if slices.Contains(columns[:i], column) {
			return fmt.Errorf("names the column %s twice", column)
		}
	}
	return nil
}

// WithDefaults returns c with the default of each empty field.
func (c FeedConfig) WithDefaults() FeedConfig {
	if c.Table == "" {
		c.Table = DefaultFeedTable
	}
	if c.Interval <= 0 {
		c.Interval = DefaultFeedInterval
	}
	if c.Keep <= 0 {
		c.Keep = DefaultFeedKeep
	}
	if c.KeepRows <= 0 {
		c.KeepRows = DefaultFeedKeepRows
	}
	if c.MaxWAL <= 0 {
		c.MaxWAL = DefaultFeedMaxWAL
	}
	return c
}

// WithDefaults returns c with the default of each field that is 0.
func (c SourceConfig) WithDefaults() SourceConfig {
	if c.MaxConns <= 0 {
		c.MaxConns = DefaultMaxConns
	}
	if c.MaxValueBytes <= 0 {
		c.MaxValueBytes = DefaultMaxValueBytes
	}
	if c.Defect == nil {
		c.Defect = func(error) {}
	}
	return c
}
