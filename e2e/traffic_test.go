package e2e

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/history"
	"github.com/ringside-cache/ringside/e2e/rig"
)

// engine is a kind of database, with its differences from the others.
type engine struct {
	name, driver string
	start        func(testing.TB) *rig.Database
	key          string // a type of strings that are equal only if their bytes are
	numbers      bool   // placeholders are $1, $2, …
}

var engines = []engine{
	{"postgres", "pgx", rig.NewPostgres, "text", true},
	mysql("mysql8", func(t testing.TB) *rig.Database { return rig.NewMySQL(t) }),
	mysql("mariadb", rig.NewMariaDB),
}

func mysql(name string, start func(testing.TB) *rig.Database) engine {
	return engine{name, "mysql", start,
		"varchar(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", false}
}

// onEach runs test as parallel subtests, one per kind of database.
func onEach(t *testing.T, test func(t *testing.T, e engine)) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			test(t, e)
		})
	}
}

// bind replaces the placeholders ? of a statement by those of the database.
func (e engine) bind(statement string) string {
	if !e.numbers {
		return statement
	}
	var b strings.Builder
	for i, part := range strings.Split(statement, "?") {
		if i > 0 {
			fmt.Fprint(&b, "$", i)
		}
		b.WriteString(part)
	}
	return b.String()
}

// table is a writable dataset with the name of its table. Each row has its value twice, so that a row with parts of two writes is
// detected.
type table struct {
	name      string
	versioned bool
}

var versioned, unversioned = table{"versioned", true}, table{"unversioned", false}

// traffic is a cluster in front of a database, and clients whose operations are recorded.
type traffic struct {
	t        testing.TB
	engine   engine
	etcd     *rig.EtcdServer
	database *rig.Database
	sql      *sql.DB
	sidecars []*rig.Sidecar
	members  []*rig.Sidecar // those of sidecars that are on the ring
	lives    []atomic.Int32 // :: number of restarts of each sidecar
	client   *http.Client
	keys     int // per table

	recorder *history.Recorder
	checker  *history.Checker
	recent   [][]history.Op // the last windows of the history
	pause    sync.RWMutex   // held for reading by each operation, so that windows end between operations
	tokens   sync.Map       // :: key → version of its last acknowledged write, *atomic.Int64

	reads, stale, failed, refused, unknown atomic.Int64
	lastFailure                            atomic.Pointer[string]
}

// times is the policy of a test's datasets, with further configuration.
type times struct {
	ttl, localTTL, loadTimeout, staleIfError time.Duration
	dataset, origin                          string // further fields in YAML
	datasets                                 string // further datasets in YAML
	schema                                   []string
	zones                                    bool                            // the members are in three zones, and there is a client of the ring
	prepare                                  func(w *traffic, config string) // before the sidecars start; may be nil
}

// quick makes loads, expiry and stale responses frequent.
var quick = times{
	ttl: 2 * time.Second, localTTL: time.Second, loadTimeout: 500 * time.Millisecond, staleIfError: 5 * time.Second,
}

// patient is quick, except that loads and writes may wait for a busy machine: for tests in which no read may fail.
var patient = times{
	ttl: 2 * time.Second, localTTL: time.Second, loadTimeout: 5 * time.Second, staleIfError: 5 * time.Second,
}

func (p times) rules() history.Rules {
	fresh := p.ttl + p.loadTimeout
	return history.Rules{Fresh: fresh, Stale: fresh + p.staleIfError}
}

// newTraffic starts n sidecars in front of both tables. Each table has rows for every second one of keys.
func newTraffic(t testing.TB, e engine, n, keys int, p times) *traffic {
	t.Helper()
	w := &traffic{
		t: t, engine: e, etcd: rig.Etcd(t), database: e.start(t), lives: make([]atomic.Int32, n+1), keys: keys,
		recorder: history.NewRecorder(), checker: history.NewChecker(p.rules()),
		client: &http.Client{
			Timeout:   max(2*time.Second, 3*p.loadTimeout), // longer than write_timeout
			Transport: &http.Transport{MaxIdleConnsPerHost: 1000, IdleConnTimeout: time.Minute},
		},
	}
	t.Cleanup(w.client.CloseIdleConnections)
	w.connect()
	w.connect() // the preparation has an effect in new sessions only
	if e.numbers {
		w.exec(`CREATE EXTENSION pg_stat_statements`)
	}
	w.create(versioned, "ver bigint NOT NULL DEFAULT 1, ")
	w.create(unversioned, "")
	for _, statement := range p.schema {
		w.exec(statement)
	}
	config := w.config(p)
	if p.prepare != nil {
		p.prepare(w, config)
	}
	if p.zones {
		w.sidecars = sidecarsInZones(t, n, config)
	} else {
		w.sidecars = rig.Sidecars(t, n, config)
	}
	w.members = w.sidecars[:n]
	a := w.actor(0)
	for i := 0; i < keys; i += 2 {
		a.putDirect(versioned, w.key(i))
		a.putDirect(unversioned, w.key(i))
	}
	return w
}

func (w *traffic) connect() {
	w.t.Helper()
	dsn := w.database.DSN
	if w.engine.driver == "mysql" { // without these, COMMIT does not return while the server is frozen
		dsn += fmt.Sprintf("?readTimeout=%v&writeTimeout=%[1]v", directTimeout)
	}
	db, err := sql.Open(w.engine.driver, dsn)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { db.Close() })
	db.SetMaxIdleConns(50)
	w.sql = db
}

func (w *traffic) create(table table, version string) {
	w.t.Helper()
	w.exec(fmt.Sprintf(`CREATE TABLE %s
		(id %s PRIMARY KEY, value varchar(300) NOT NULL, %scopy varchar(300) NOT NULL)`, table.name, w.engine.key, version))
}

func (w *traffic) config(p times) string {
	dsn := filepath.Join(w.t.TempDir(), "dsn")
	if err := os.WriteFile(dsn, []byte(w.database.DSN), 0o600); err != nil {
		w.t.Fatal(err)
	}
	origin := map[bool]string{true: "postgres", false: "mysql"}[w.engine.numbers]
	dataset := fmt.Sprintf("origin: db, key: id, writable: true, ttl: %v, local_ttl: %v, negative_ttl: %v, "+
		"load_timeout: %v, stale_if_error: %v, write_timeout: %v%s",
		p.ttl, p.localTTL, p.localTTL, p.loadTimeout, p.staleIfError, 2*p.loadTimeout, p.dataset)
	return fmt.Sprintf(`
membership: {etcd: {endpoints: [%q], lease_ttl: 2s}}
origins:
  db: {driver: %s, dsn_file: %q, max_conns: 8%s}
datasets:
  versioned: {table: versioned, version: ver, %s}
  unversioned: {table: unversioned, %s}
%s`, w.etcd.Endpoint(), origin, dsn, p.origin, dataset, dataset, p.datasets)
}

func (w *traffic) exec(statement string, args ...any) {
	w.t.Helper()
	if _, err := w.sql.Exec(statement, args...); err != nil {
		w.t.Fatalf("%s: %v", statement, err)
	}
}

func (w *traffic) key(i int) string { return "key-" + strconv.Itoa(i) }

// restart starts a sidecar after its process has exited.
func (w *traffic) restart(i int) {
	w.lives[i].Add(1)
	w.sidecars[i].Start()
}

// maxRecent is the number of windows that are kept to explain a violation.
const maxRecent = 10

// cut ends a window of the history at a time at which no operation runs, and checks it.
func (w *traffic) cut() (ops []history.Op) {
	w.pause.Lock()
	ops = w.recorder.Take()
	w.pause.Unlock()
	good := w.checker.Violations() == 0
	w.checker.Check(ops)
	w.recent = append(w.recent[max(0, len(w.recent)-maxRecent+1):], ops)
	if good && w.checker.Violations() > 0 {
		w.logRecent(w.checker.First[0].Op.Key)
	}
	return ops
}

// logRecent logs the recent operations on a key. It omits reads with the same result as the previous read through their sidecar.
func (w *traffic) logRecent(key string) {
	ops := slices.DeleteFunc(slices.Concat(w.recent...), func(op history.Op) bool { return op.Key != key })
	slices.SortFunc(ops, func(a, b history.Op) int { return cmp.Compare(a.End, b.End) })
	last := map[int32]string{}
	for _, op := range ops {
		if op.Kind == history.Read {
			result := fmt.Sprint(op.Outcome, op.Seq, op.Version, op.Stale, op.Damage)
			if result == last[op.Sidecar] {
				continue
			}
			last[op.Sidecar] = result
		}
		w.t.Log(op)
	}
}

// token returns the version of the last acknowledged write of a key.
func (w *traffic) token(key string) *atomic.Int64 {
	v, ok := w.tokens.Load(key)
	if !ok {
		v, _ = w.tokens.LoadOrStore(key, new(atomic.Int64))
	}
	return v.(*atomic.Int64)
}

// actor is one client. It is for one goroutine.
type actor struct {
	*traffic
	log  *history.Log
	rng  *rand.Rand
	rows map[string]parsed // :: bytes of a row → their meaning, because parsing is slow
}

type parsed struct {
	dataset, key string
	seq          uint64
	version      int64
}

func (w *traffic) actor(seed uint64) *actor {
	log := w.recorder.Log()
	return &actor{
		traffic: w, log: log, rng: rand.New(rand.NewPCG(seed, uint64(log.Client()))), rows: map[string]parsed{},
	}
}

// begin starts an operation through sidecar i, or a direct one.
func (a *actor) begin(kind history.Kind, i int, table table, key string) history.Op {
	op := history.Op{Kind: kind, Sidecar: int32(i), Key: table.name + "/" + key}
	if i != history.Direct {
		op.Life = a.lives[i].Load()
	}
	op.Start = a.recorder.Now()
	return op
}

func (a *actor) end(op history.Op) {
	op.End = a.recorder.Now()
	a.record(op)
}

func (a *actor) record(op history.Op) {
	switch op.Outcome {
	case history.Failed:
		a.failed.Add(1)
	case history.Refused:
		a.refused.Add(1)
	case history.Unknown:
		a.unknown.Add(1)
	}
	if op.Kind == history.Read && op.Outcome <= history.Absent {
		a.reads.Add(1)
		if op.Stale {
			a.stale.Add(1)
		}
	}
	if op.Outcome == history.OK && op.Version != 0 && (op.Kind == history.Put || op.Kind == history.Delete) {
		a.token(op.Key).Store(op.Version)
	}
	a.log.Add(op)
}

// setFailure keeps the reason why an operation failed, for the log.
func (a *actor) setFailure(what string, i int, status int, body []byte, err error) {
	why := fmt.Sprintf("%s through %d: %d %.300s %v", what, i+1, status, bytes.TrimSpace(body), err)
	a.lastFailure.Store(&why)
}

// maxRows bounds the rows that an actor keeps.
const maxRows = 10000

// setRow sets the fields of op from the bytes of a row.
func (a *actor) setRow(op *history.Op, table table, key string, body []byte, version int64) {
	p, ok := a.rows[string(body)]
	if !ok {
		var err error
		if p, err = parseRow(table, key, body); err != nil {
			op.Damage = err.Error()
			return
		}
		if len(a.rows) >= maxRows {
			clear(a.rows)
		}
		a.rows[string(body)] = p
	}
	op.Seq, op.Version = p.seq, p.version
	switch {
	case p.dataset != table.name || p.key != key:
		op.Damage = fmt.Sprintf("the value belongs to %s/%s", p.dataset, p.key)
	case p.version != version:
		op.Damage = fmt.Sprintf("the row has version %d, the response %d", p.version, version)
	}
}

func parseRow(table table, key string, body []byte) (parsed, error) {
	var row struct {
		ID, Value, Copy string
		Ver             int64
	}
	if err := json.Unmarshal(body, &row); err != nil {
		return parsed{}, fmt.Errorf("%.300q: %w", body, err)
	}
	v, err := history.Parse(table.name, key, row.Value)
	switch {
	case err != nil:
		return parsed{}, err
	case row.Copy != row.Value:
		return parsed{}, fmt.Errorf("value %q and copy %q differ", row.Value, row.Copy)
	case row.ID != key:
		return parsed{}, fmt.Errorf("the row of %q", row.ID)
	}
	return parsed{table.name, key, v.Seq, row.Ver}, nil
}

func (a *actor) url(i int, table table, key string) string { return a.sidecars[i].URL(table.name, key) }

func (a *actor) method(i int, table table, name string) string {
	return "http://" + a.sidecars[i].HTTP + "/v1/" + table.name + ":" + name
}

// do sends a request and returns the whole response.
func (a *actor) do(method, url, body string, fields ...string) (status int, h http.Header, answer []byte, err error) {
	request, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	for i := 0; i < len(fields); i += 2 {
		request.Header.Set(fields[i], fields[i+1])
	}
	response, err := a.client.Do(request)
	if err != nil {
		return 0, nil, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, response.Header, answer, err
}

func number(field string) int64 {
	n, _ := strconv.ParseInt(field, 10, 64) // an empty field means that there is no version
	return n
}

// get reads one key through sidecar i.
func (a *actor) get(i int, table table, key string, noCache bool, minVersion int64) history.Op {
	a.pause.RLock()
	defer a.pause.RUnlock()
	var fields []string
	if noCache {
		fields = append(fields, "Cache-Control", "no-cache")
	}
	if minVersion != 0 {
		fields = append(fields, "Ringside-Min-Version", strconv.FormatInt(minVersion, 10))
	}
	op := a.begin(history.Read, i, table, key)
	op.NoCache, op.MinVersion = noCache, minVersion
	status, header, body, err := a.do(http.MethodGet, a.url(i, table, key), "", fields...)
	op.End = a.recorder.Now()
	switch {
	case err == nil && status == http.StatusOK:
		op.Stale = header.Get("Ringside-Stale") != ""
		a.setRow(&op, table, key, body, number(header.Get("Ringside-Version")))
	case err == nil && status == http.StatusNotFound && isAbsent(body):
		op.Outcome = history.Absent
	default:
		op.Outcome = history.Failed
		a.setFailure("get", i, status, body, err)
	}
	a.record(op)
	return op
}

func isAbsent(problem []byte) bool { return bytes.Contains(problem, []byte("problems/not-found")) }

// batch reads many keys at once through sidecar i.
func (a *actor) batch(i int, table table, keys []string) {
	a.pause.RLock()
	defer a.pause.RUnlock()
	body, err := json.Marshal(map[string][]string{"keys": keys})
	if err != nil {
		panic(err) // strings always marshal
	}
	op := a.begin(history.Read, i, table, "")
	status, _, answer, err := a.do(http.MethodPost, a.method(i, table, "batchGet"), string(body))
	op.End = a.recorder.Now()
	var results struct {
		Results []struct {
			Key     string
			Value   json.RawMessage
			Version int64
			Stale   bool
			Error   *struct{ Type string }
		}
	}
	if err == nil && status == http.StatusOK {
		err = json.Unmarshal(answer, &results)
	}
	if err != nil || len(results.Results) != len(keys) {
		op.Outcome = history.Failed
		a.setFailure("batchGet", i, status, answer, err)
		a.record(op)
		return
	}
	for n, r := range results.Results {
		one := op
		one.Key, one.Stale = table.name+"/"+keys[n], r.Stale
		switch {
		case r.Error == nil:
			a.setRow(&one, table, keys[n], r.Value, r.Version)
		case strings.HasSuffix(r.Error.Type, "/not-found"):
			one.Outcome = history.Absent
		default:
			one.Outcome = history.Failed
			a.setFailure("batchGet", i, 0, []byte(r.Error.Type), nil)
		}
		a.record(one)
	}
}

// put writes a new value through sidecar i.
func (a *actor) put(i int, table table, key string, c history.Condition) history.Op {
	a.pause.RLock()
	defer a.pause.RUnlock()
	op := a.begin(history.Put, i, table, key)
	op.Seq, op.If = a.recorder.NextSeq(), c
	text := history.Value{Dataset: table.name, Key: key, Seq: op.Seq, Writer: a.log.Client()}.String()
	status, header, body, err := a.do(http.MethodPut, a.url(i, table, key), fmt.Sprintf(`{"value":%q,"copy":%[1]q}`, text),
		append(condition(c), "Content-Type", "application/json")...)
	op.End = a.recorder.Now()
	a.writeOutcome(&op, i, status, body, err)
	if op.Outcome == history.OK {
		seq := op.Seq
		a.setRow(&op, table, key, body, number(header.Get("Ringside-Version")))
		if op.Damage != "" || op.Seq != seq {
			a.t.Errorf("the response to a put of value %d through sidecar %d has value %d %s", seq, i+1, op.Seq, op.Damage)
		}
	}
	a.record(op)
	return op
}

// delete deletes a key through sidecar i.
func (a *actor) delete(i int, table table, key string, c history.Condition) history.Op {
	a.pause.RLock()
	defer a.pause.RUnlock()
	op := a.begin(history.Delete, i, table, key)
	op.If = c
	status, header, body, err := a.do(http.MethodDelete, a.url(i, table, key), "", condition(c)...)
	op.End = a.recorder.Now()
	a.writeOutcome(&op, i, status, body, err)
	if op.Outcome == history.OK {
		op.Version = number(header.Get("Ringside-Version"))
	}
	a.record(op)
	return op
}

// writeOutcome sets the outcome of a write. It trusts a sidecar that reports that a write did not happen, so that the history
// checks this as well.
func (a *actor) writeOutcome(op *history.Op, i, status int, body []byte, err error) {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		op.Outcome = history.Failed
	case err != nil || status == http.StatusInternalServerError:
		op.Outcome = history.Unknown
	case status == http.StatusConflict || status == http.StatusPreconditionFailed:
		op.Outcome = history.Refused
		return
	case status >= 300:
		op.Outcome = history.Failed
	default:
		return
	}
	a.setFailure("write", i, status, body, err)
}

func condition(c history.Condition) []string {
	switch {
	case c.Absent:
		return []string{"If-None-Match", "*"}
	case c.Present:
		return []string{"If-Match", "*"}
	case c.Version != 0:
		return []string{"Ringside-If-Version", strconv.FormatInt(c.Version, 10)}
	}
	return nil
}

// invalidate invalidates a key on all members. If the response counts fewer members, the outcome is unknown.
func (a *actor) invalidate(i int, table table, key string) {
	a.pause.RLock()
	defer a.pause.RUnlock()
	op := a.begin(history.Invalidate, i, table, key)
	status, _, body, err := a.do(http.MethodPost, a.method(i, table, "invalidate"), fmt.Sprintf(`{"keys":[%q]}`, key))
	var result struct{ Members int }
	if err == nil && status == http.StatusOK {
		err = json.Unmarshal(body, &result)
	}
	switch {
	case err != nil || result.Members != len(a.members):
		op.Outcome = history.Unknown
		a.setFailure("invalidate", i, status, body, err)
	case len(a.sidecars) > len(a.members): // clients get it from members, a moment later
		op.Outcome = history.Unknown
	}
	a.end(op)
}

// directTimeout bounds a direct operation.
const directTimeout = 3 * time.Second

// transact runs a direct transaction. If the commit fails, the outcome is unknown; if something before it fails, nothing is
// written.
func (a *actor) transact(op *history.Op, body func(context.Context, *sql.Tx) error) {
	a.pause.RLock()
	defer a.pause.RUnlock()
	op.Start = a.recorder.Now()
	ctx, cancel := context.WithTimeout(context.Background(), directTimeout)
	defer cancel()
	tx, err := a.sql.BeginTx(ctx, nil)
	if err == nil {
		if err = body(ctx, tx); err != nil {
			_ = tx.Rollback() // fails if the connection has failed
		}
	}
	if err != nil {
		op.Outcome, op.Version = history.Failed, 0
	} else if tx.Commit() != nil {
		op.Outcome, op.Version = history.Unknown, 0
	}
	op.End = a.recorder.Now()
	a.record(*op)
}

// putDirect writes a new value with SQL.
func (a *actor) putDirect(table table, key string) history.Op {
	op := a.begin(history.Put, history.Direct, table, key)
	op.Seq = a.recorder.NextSeq()
	text := history.Value{Dataset: table.name, Key: key, Seq: op.Seq, Writer: a.log.Client()}.String()
	a.transact(&op, func(ctx context.Context, tx *sql.Tx) error {
		bump := map[bool]string{true: ", ver = ver + 1"}[table.versioned]
		update := a.engine.bind(`UPDATE ` + table.name + ` SET value = ?, copy = ?` + bump + ` WHERE id = ?`)
		result, err := tx.ExecContext(ctx, update, text, text, key)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, a.insert(ctx, tx, table, key, text, &op))
		}
		return a.version(ctx, tx, table, key, &op)
	})
	return op
}

// insert inserts a row with a version above all its previous ones.
func (a *actor) insert(ctx context.Context, tx *sql.Tx, table table, key, text string, op *history.Op) error {
	if !table.versioned {
		insert := a.engine.bind(`INSERT INTO unversioned (id, value, copy) VALUES (?, ?, ?)`)
		_, err := tx.ExecContext(ctx, insert, key, text, text)
		return err
	}
	op.Version = time.Now().UnixMicro()
	_, err := tx.ExecContext(ctx, a.engine.bind(`INSERT INTO versioned (id, value, copy, ver) VALUES (?, ?, ?, ?)`),
		key, text, text, op.Version)
	return err
}

func (a *actor) version(ctx context.Context, tx *sql.Tx, table table, key string, op *history.Op) error {
	if !table.versioned {
		return nil
	}
	return tx.QueryRowContext(ctx, a.engine.bind(`SELECT ver FROM versioned WHERE id = ?`), key).Scan(&op.Version)
}

// deleteDirect deletes a row with SQL.
func (a *actor) deleteDirect(table table, key string) {
	op := a.begin(history.Delete, history.Direct, table, key)
	a.transact(&op, func(ctx context.Context, tx *sql.Tx) error {
		if table.versioned {
			lock := a.engine.bind(`SELECT ver FROM versioned WHERE id = ? FOR UPDATE`)
			err := tx.QueryRowContext(ctx, lock, key).Scan(&op.Version)
			if errors.Is(err, sql.ErrNoRows) {
				return nil
			}
			if err != nil {
				return err
			}
			op.Version++
		}
		_, err := tx.ExecContext(ctx, a.engine.bind(`DELETE FROM `+table.name+` WHERE id = ?`), key)
		return err
	})
}

// getDirect reads a row with SQL.
func (a *actor) getDirect(table table, key string) history.Op {
	a.pause.RLock()
	defer a.pause.RUnlock()
	op := a.begin(history.Read, history.Direct, table, key)
	ctx, cancel := context.WithTimeout(context.Background(), directTimeout)
	defer cancel()
	columns := map[bool]string{true: "value, copy, ver", false: "value, copy, 0"}[table.versioned]
	var value, copied string
	err := a.sql.QueryRowContext(ctx, a.engine.bind(`SELECT `+columns+` FROM `+table.name+` WHERE id = ?`), key).
		Scan(&value, &copied, &op.Version)
	op.End = a.recorder.Now()
	v, damage := history.Parse(table.name, key, value)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		op.Outcome = history.Absent
	case err != nil:
		op.Outcome = history.Failed
	case damage != nil || value != copied:
		op.Damage = fmt.Sprintf("%q and %q", value, copied)
	default:
		op.Seq = v.Seq
	}
	a.record(op)
	return op
}
