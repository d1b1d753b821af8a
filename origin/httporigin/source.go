package httporigin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/authfiles"
	"github.com/ringside-cache/ringside/ring/printable"
)

// source is one server. It implements origin.Source.
type source struct {
	config    origin.SourceConfig
	base      *url.URL // its scheme is http or https
	transport *http.Transport
	turns     chan struct{} // has a place for each request in flight, of all datasets
}

// Dataset implements origin.Source.
func (s *source) Dataset(ds origin.Dataset) (origin.Origin, error) {
	d, err := s.dataset(ds)
	if err != nil {
		return nil, err // not a nil *dataset
	}
	return d, nil
}

func (s *source) dataset(ds origin.Dataset) (*dataset, error) {
	d := &dataset{source: s, notFound: defaultNotFound, invalid: defaultInvalid, ignoreCacheControl: ds.HTTP.IgnoreCacheControl}
	text := ds.HTTP.URL
	switch ds.HTTP.Preset {
	case "":
	case origin.PresetPrometheus:
		d.prometheus = &promQL{}
		if text == "" {
			text = prometheusURL
		}
	default:
		return nil, &origin.FieldError{Field: "preset", Err: fmt.Errorf("want %s", origin.PresetPrometheus)}
	}
	if ds.HTTP.NotFound != nil {
		d.notFound = ds.HTTP.NotFound
	}
	if ds.HTTP.Invalid != nil {
		d.invalid = ds.HTTP.Invalid
	}
	t, err := parseTemplate(text, ds.Key)
	if err == nil && d.prometheus != nil {
		err = d.prometheus.check(text, t)
	}
	if err != nil {
		return nil, &origin.FieldError{Field: "url", Err: err}
	}
	d.template = t
	return d, nil
}

// Check implements origin.Source. It requests the key 0.
func (s *source) Check(ctx context.Context, ds origin.Dataset) error {
	d, err := s.dataset(ds)
	if err != nil {
		return err
	}
	zeros := slices.Repeat([]string{"0"}, len(d.template.columns))
	if r := d.get(ctx, origin.JoinKey(zeros...)); !r.IsAnswer() && !errors.Is(r.Err, origin.ErrInvalidKey) {
		return fmt.Errorf("origin %q, dataset %q: %w", s.config.Name, ds.Name, r.Err)
	}
	return nil
}

// TargetChanged implements origin.ReloadableSource.
func (s *source) TargetChanged() bool {
	if s.config.ReloadDSN == nil {
		return false
	}
	dsn, err := s.config.ReloadDSN()
	return err == nil && dsn != s.config.DSN
}

// Close implements origin.Source. Connections of requests in flight end with them.
func (s *source) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// dataset is the origin of one dataset.
type dataset struct {
	*source
	template           *template
	notFound, invalid  []int // status codes
	ignoreCacheControl bool
	prometheus         *promQL // nil: the value is the body
	renewals           renewals
	waitUntil          atomic.Int64 // the server asks for no request before; in nanoseconds since 1970
}

// Load implements origin.Origin.
func (d *dataset) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	return origin.Collect(ctx, d, keys)
}

// LoadEach implements origin.Streamer: with a request for each key, as many at a time as the source may have in flight. If none has an
// answer, the error is that of one of them.
func (d *dataset) LoadEach(ctx context.Context, keys []string, yield func(int, origin.Result)) error {
	var next atomic.Int64
	var mu sync.Mutex // guards the variables below, and the calls of yield
	failed, answered := make([]error, len(keys)), false
	var panicked any
	load := func() {
		defer func() {
			if p := recover(); p != nil { //guard:panic-of-a-request-ends-the-process
				mu.Lock()
				defer mu.Unlock()
				panicked = fmt.Sprintf("%v\n\n%s", p, debug.Stack())
			}
		}()
		for i := int(next.Add(1)) - 1; i < len(keys); i = int(next.Add(1)) - 1 {
			d.loadOne(ctx, &mu, keys[i], func(r origin.Result) {
				if failed[i] = r.Err; r.IsAnswer() || errors.Is(r.Err, origin.ErrInvalidKey) {
					failed[i], answered = nil, true
					yield(i, r)
				}
			})
		}
	}
	var requests sync.WaitGroup
	for range min(len(keys), cap(d.turns)) {
		requests.Go(load)
	}
	requests.Wait()
	if panicked != nil {
		panic(panicked) // on the goroutine of the caller, who can recover
	}
	var err error
	for i, one := range failed {
		if one == nil {
			continue
		}
		if one = fmt.Errorf("origin %q: %w", d.config.Name, one); answered && ctx.Err() == nil {
			yield(i, origin.Result{Err: one})
		} else if err == nil {
			err = one
		}
	}
	return err
}

// loadOne requests one key, and passes its result on while mu is locked.
func (d *dataset) loadOne(ctx context.Context, mu *sync.Mutex, key string, yield func(origin.Result)) {
	r := d.get(ctx, key)
	mu.Lock()
	defer mu.Unlock()
	yield(r)
}

// get requests one key. Its error is that of the key, an answer or not.
func (d *dataset) get(ctx context.Context, key string) origin.Result {
	if d.prometheus != nil && !d.prometheus.accepts(key) {
		return origin.Result{Err: invalidKey(`it has a quote or a backslash, which would end the string of the query`)}
	}
	path, err := d.template.expand(key)
	if err != nil {
		return origin.Result{Err: err}
	}
	v, err := d.request(ctx, key, path)
	switch {
	case err != nil && ctx.Err() != nil:
		err = fmt.Errorf("request: %w", ctx.Err())
	case err != nil:
		err = safe(err)
	}
	return origin.Result{Value: v, Err: err}
}

// safe makes the text of err one short line: the errors of net/http quote what the server has sent.
func safe(err error) error {
	if text := err.Error(); printable.Text(text) != text {
		return errors.New(printable.Text(text))
	}
	return err
}

func (d *dataset) request(ctx context.Context, key, path string) (origin.Value, error) {
	if err := ctx.Err(); err != nil {
		return origin.Value{}, err
	}
	if wait := time.Until(time.Unix(0, d.waitUntil.Load())); wait > 0 { //guard:retry-after-is-ignored
		return origin.Value{}, fmt.Errorf("the server has asked for no request (Retry-After) for another %v", wait.Round(time.Second))
	}
	select {
	case d.turns <- struct{}{}:
		defer func() { <-d.turns }()
	case <-ctx.Done():
		return origin.Value{}, ctx.Err()
	}
	req, err := d.newRequest(ctx, path)
	if err != nil {
		return origin.Value{}, err
	}
	renewal, held := d.renewals.lookup(key)
	if renewal != nil {
		renewal.conditions(req.Header)
	}
	began := time.Now()
	resp, err := d.transport.RoundTrip(req) // unlike a Client, it follows no redirect: the credentials stay on this host
	if err != nil {
		return origin.Value{}, fmt.Errorf("request: %w", err)
	}
	defer discard(resp.Body)
	if renewal != nil && resp.StatusCode == http.StatusNotModified {
		return d.withLifetime(held, resp.Header, began), nil
	}
	v, err := d.valueOf(resp)
	if err != nil {
		d.renewals.forget(key, nil)
		return origin.Value{}, err
	}
	if d.prometheus == nil {
		d.renewals.remember(key, resp.Header, v)
	}
	return d.withLifetime(v, resp.Header, began), nil
}

// newRequest makes a request with the present credentials.
func (d *dataset) newRequest(ctx context.Context, path string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base.String()+path, nil)
	if err != nil {
		return nil, invalidKey("it makes no valid URL")
	}
	req.Header.Set("Accept", "application/json, */*;q=0.5")
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "ringside")
	switch a := d.config.Auth; {
	case a.TokenFile != "":
		token, err := authfiles.Token(a)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	case a.Username != "":
		password, err := authfiles.Password(a)
		if err != nil {
			return nil, err
		}
		req.SetBasicAuth(a.Username, password)
	}
	return req, nil
}

// withLifetime returns v with the end that the header of a response gives it.
func (d *dataset) withLifetime(v origin.Value, h http.Header, began time.Time) origin.Value {
	if d.ignoreCacheControl {
		return v
	}
	l := lifetimeOf(h, began)
	if l.fresh != nil {
		v.Expires = began.Add(*l.fresh)
	}
	v.MaxStale = l.stale
	return v
}
