package etcdorigin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ringside-cache/ringside/origin"
)

// source is one cluster of etcd. It implements origin.Source.
type source struct {
	config    origin.SourceConfig
	endpoints []string // URLs

	dialing chan struct{} // has one place: for who takes or makes the shared connection
	mu      sync.Mutex    // guards current, its fields, and turn
	current *conn         // of loads; nil until the next one
	turn    int           // of the endpoints: the one of the next connection
}

func (s *source) isTLS() bool { return strings.HasPrefix(s.endpoints[0], "https://") }

// Dataset implements origin.Source.
func (s *source) Dataset(ds origin.Dataset) (origin.Origin, error) {
	d, err := s.dataset(ds)
	if err != nil {
		return nil, err // not a nil *dataset
	}
	return d, nil
}

func (s *source) dataset(ds origin.Dataset) (*dataset, error) {
	if err := checkPrefix(ds.Prefix); err != nil {
		return nil, &origin.FieldError{Field: "prefix", Err: err}
	}
	return &dataset{source: s, name: ds.Name, prefix: ds.Prefix}, nil
}

const (
	maxPrefix = 1024 // bytes
	// maxKeyBytes is the size of the longest key that an application can request.
	maxKeyBytes = 1024
)

// checkPrefix requires a separator at the end: the keys of the prefix /a would include those of the dataset with the prefix /ab.
func checkPrefix(prefix string) error {
	last, _ := utf8.DecodeLastRuneInString(prefix)
	switch {
	case prefix == "":
		return errors.New("is missing; want the beginning of the keys in etcd, such as /routes/")
	case len(prefix) > maxPrefix || !utf8.ValidString(prefix) || strings.ContainsFunc(prefix, unicode.IsControl):
		return fmt.Errorf("want at most %d bytes of UTF-8 without control characters", maxPrefix)
	case unicode.IsLetter(last) || unicode.IsDigit(last): //guard:prefix-has-the-keys-of-another-dataset
		return errors.New("want a separator at its end, such as the slash in /routes/: otherwise it also begins the keys of other datasets")
	}
	return nil
}

// Check implements origin.Source: all keys of the prefix must be readable.
func (s *source) Check(ctx context.Context, ds origin.Dataset) error {
	d, err := s.dataset(ds)
	if err != nil {
		return err
	}
	err = s.request(ctx, func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Get(ctx, d.prefix, clientv3.WithPrefix(), clientv3.WithLimit(1), clientv3.WithKeysOnly())
		return err
	})
	return d.explain(err)
}

// TargetChanged implements origin.ReloadableSource.
func (s *source) TargetChanged() bool {
	if s.config.ReloadDSN == nil {
		return false
	}
	dsn, err := s.config.ReloadDSN()
	return err == nil && dsn != s.config.DSN
}

// dataset is the origin of one dataset.
type dataset struct {
	*source
	name, prefix string
}

// explain says where an error is from, and what to do.
func (d *dataset) explain(err error) error {
	if err == nil {
		return nil
	}
	if isDenied(err) {
		err = fmt.Errorf("the user may not read all keys of the prefix %q: `etcdctl role grant-permission ROLE read --prefix PREFIX`: %w",
			d.prefix, err)
	}
	return fmt.Errorf("origin %q, dataset %q: %w", d.config.Name, d.name, err)
}

// Load implements origin.Origin.
func (d *dataset) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	return origin.Collect(ctx, d, keys)
}

// maxTxnOps is how many keys are read in one transaction: etcd's default of max-txn-ops. All have the state of one revision.
const maxTxnOps = 128

// LoadEach implements origin.Streamer.
func (d *dataset) LoadEach(ctx context.Context, keys []string, yield func(int, origin.Result)) error {
	valid := make([]int, 0, len(keys)) // indexes of keys
	for i, key := range keys {
		if err := checkKey(key); err != nil {
			yield(i, origin.Result{Err: err})
			continue
		}
		valid = append(valid, i)
	}
	for len(valid) > 0 {
		n := min(len(valid), maxTxnOps)
		if err := d.loadSome(ctx, keys, valid[:n], yield); err != nil {
			return d.explain(err)
		}
		valid = valid[n:]
	}
	return nil
}

// checkKey returns origin.ErrInvalidKey unless an application can request this key.
func checkKey(key string) error {
	if key == "" || len(key) > maxKeyBytes || !utf8.ValidString(key) || strings.Contains(key, "\x00") {
		return fmt.Errorf("%w: want 1 to %d bytes of UTF-8 without NUL", origin.ErrInvalidKey, maxKeyBytes)
	}
	return nil
}

// loadSome reads the keys at these indexes in one transaction, or in more if their values do not fit into one response.
func (d *dataset) loadSome(ctx context.Context, keys []string, indexes []int, yield func(int, origin.Result)) error {
	ops := make([]clientv3.Op, len(indexes))
	for n, i := range indexes {
		ops[n] = clientv3.OpGet(d.prefix + keys[i]) // linearizable, as it is not WithSerializable
	}
	var resp *clientv3.TxnResponse
	err := d.request(ctx, func(ctx context.Context, c *clientv3.Client) (err error) {
		resp, err = c.Txn(ctx).Then(ops...).Commit()
		return err
	})
	switch half := len(indexes) / 2; {
	case isTooMuch(err) && half > 0:
		if err := d.loadSome(ctx, keys, indexes[:half], yield); err != nil {
			return err
		}
		return d.loadSome(ctx, keys, indexes[half:], yield)
	case isTooMuch(err):
		yield(indexes[0], origin.Result{Err: d.tooLarge()})
		return nil
	case err != nil:
		return err
	case len(resp.Responses) != len(indexes):
		return fmt.Errorf("etcd returned %d results for %d keys", len(resp.Responses), len(indexes))
	}
	for n, i := range indexes {
		kvs := resp.Responses[n].GetResponseRange().GetKvs()
		switch {
		case len(kvs) == 0:
			yield(i, origin.Result{Err: origin.ErrNotFound})
		case len(kvs[0].Value) > d.config.MaxValueBytes: //guard:large-value-of-etcd
			yield(i, origin.Result{Err: d.tooLarge()})
		default:
			data := kvs[0].Value
			if data == nil { // an empty value
				data = []byte{}
			}
			yield(i, origin.Result{Value: origin.Value{Data: data, Version: kvs[0].ModRevision}})
		}
	}
	return nil
}

func (d *dataset) tooLarge() error {
	return origin.NewDataError(origin.TooLarge, "the value has more than %d bytes: store less under one key", d.config.MaxValueBytes)
}

// KeyLister implements origin.KeyListableSource.
func (s *source) KeyLister(ds origin.Dataset, query string) (origin.KeyLister, error) {
	if query != "" {
		return nil, errors.New("etcd has no queries: want keys: all, for all keys of the prefix")
	}
	d, err := s.dataset(ds)
	if err != nil {
		return nil, err
	}
	return d, nil
}

// listPage is how many keys are listed in one request.
const listPage = 1000

// ListKeys implements origin.KeyLister. A key that exists all the time is listed, although the pages are of different revisions. Keys
// that no application can request are left out.
func (d *dataset) ListKeys(ctx context.Context, prefix string, yield func(key string) bool) error {
	from, end := d.prefix+prefix, clientv3.GetPrefixRangeEnd(d.prefix+prefix)
	for limit := int64(listPage); ; {
		var page *clientv3.GetResponse
		err := d.request(ctx, func(ctx context.Context, c *clientv3.Client) (err error) {
			page, err = c.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(limit), clientv3.WithKeysOnly())
			return err
		})
		if isTooMuch(err) && limit > 1 {
			limit /= 2 // keys in etcd can be long
			continue
		}
		if err != nil {
			return d.explain(fmt.Errorf("list keys: %w", err))
		}
		for _, kv := range page.Kvs {
			if key := strings.TrimPrefix(string(kv.Key), d.prefix); checkKey(key) == nil && !yield(key) {
				return nil
			}
		}
		if !page.More || len(page.Kvs) == 0 {
			return nil
		}
		from = string(page.Kvs[len(page.Kvs)-1].Key) + "\x00" //guard:list-of-etcd-ends-after-a-page
	}
}
