// Command groupcache is a member of a cluster of groupcache-go with an HTTP API for applications:
//
//	GET /k/KEY                      a value of -size bytes
//	GET /owned                      1000 keys that another member owns, one per line
//	GET /run?readers=64&for=800ms   reads such keys without HTTP between reader and library; returns the rate and the median
//
// A member with -peers-only keeps no copy, so that it fetches each value from its owner.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/groupcache/groupcache-go/v3"
	"github.com/groupcache/groupcache-go/v3/transport"
	"github.com/groupcache/groupcache-go/v3/transport/peer"
)

const cacheBytes = 1 << 30

func main() {
	self := flag.String("self", "", "host:port for other members")
	other := flag.String("other", "", "host:port of the other member, if any")
	api := flag.String("api", "", "host:port of the API for applications")
	size := flag.Int("size", 1024, "bytes of a value")
	peersOnly := flag.Bool("peers-only", false, "keep no copies, and own no key that is read")
	flag.Parse()
	m, err := start(*self, *other, *size, *peersOnly)
	if err == nil {
		err = http.ListenAndServe(*api, m.handler())
	}
	log.Fatal("groupcache: ", err)
}

// member is one member of the cluster.
type member struct {
	daemon *groupcache.Daemon
	group  transport.Group
}

func start(self, other string, size int, peersOnly bool) (*member, error) {
	// The default client keeps two idle connections to a member, which 64 concurrent fetches would open again all the time.
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024}}
	options := groupcache.Options{Transport: transport.NewHttpTransport(transport.HttpTransportOptions{Client: client})}
	if peersOnly {
		options.CacheFactory = func(int64) (groupcache.Cache, error) { return noCache{}, nil }
	}
	daemon, err := groupcache.ListenAndServe(context.Background(), self, options)
	if err != nil {
		return nil, err
	}
	peers := []peer.Info{{Address: self, IsSelf: true}}
	if other != "" {
		peers = append(peers, peer.Info{Address: other})
	}
	if err := daemon.SetPeers(context.Background(), peers); err != nil {
		return nil, err
	}
	load := func(_ context.Context, _ string, dest transport.Sink) error {
		if peersOnly {
			return errors.New("groupcache: the other member does not own this key")
		}
		return dest.SetBytes(bytes.Repeat([]byte("x"), size), time.Time{})
	}
	group, err := daemon.NewGroup("metrics", cacheBytes, groupcache.GetterFunc(load))
	return &member{daemon, group}, err
}

// noCache keeps nothing.
type noCache struct{}

func (noCache) Get(string) (transport.ByteView, bool) { return transport.ByteView{}, false }
func (noCache) Add(string, transport.ByteView)        {}
func (noCache) Stats() groupcache.CacheStats          { return groupcache.CacheStats{} }
func (noCache) Remove(string)                         {}
func (noCache) Bytes() int64                          { return 0 }
func (noCache) Close()                                {}

func (m *member) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /k/{key}", func(w http.ResponseWriter, r *http.Request) {
		var value []byte
		if err := m.group.Get(r.Context(), r.PathValue("key"), transport.AllocatingByteSliceSink(&value)); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(value)))
		_, _ = w.Write(value)
	})
	mux.HandleFunc("GET /owned", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, strings.Join(m.remoteKeys(), "\n"))
	})
	mux.HandleFunc("GET /run", func(w http.ResponseWriter, r *http.Request) {
		readers, err := strconv.Atoi(r.FormValue("readers"))
		d, err2 := time.ParseDuration(r.FormValue("for"))
		if err := errors.Join(err, err2); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		result, err := m.run(readers, d)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		_ = json.NewEncoder(w).Encode(result)
	})
	return mux
}

// remoteKeys returns 1000 keys that the other member owns.
func (m *member) remoteKeys() []string {
	var keys []string
	for i := 0; len(keys) < 1000 && i < 100_000; i++ {
		key := fmt.Sprintf("CNF-%05d", i)
		if _, remote := m.daemon.GetInstance().PickPeer(key); remote {
			keys = append(keys, key)
		}
	}
	return keys
}

// result is what the readers of a run have measured.
type result struct {
	Reads     int
	Elapsed   time.Duration
	Median    time.Duration
	latencies []time.Duration
}

// run reads remote keys with concurrent readers, each one read at a time.
func (m *member) run(readers int, d time.Duration) (result, error) {
	keys := m.remoteKeys()
	if len(keys) == 0 {
		return result{}, errors.New("groupcache: the other member owns no keys")
	}
	results, errs := make([]result, readers), make([]error, readers)
	var all sync.WaitGroup
	began := time.Now()
	for i := range readers {
		all.Go(func() {
			for n := i; time.Since(began) < d && errs[i] == nil; n += readers {
				start := time.Now()
				var value []byte
				errs[i] = m.group.Get(context.Background(), keys[n%len(keys)], transport.AllocatingByteSliceSink(&value))
				results[i].latencies = append(results[i].latencies, time.Since(start))
			}
		})
	}
	all.Wait()
	sum := result{Elapsed: time.Since(began)}
	for _, one := range results {
		sum.latencies = append(sum.latencies, one.latencies...)
	}
	slices.Sort(sum.latencies)
	sum.Reads, sum.Median = len(sum.latencies), sum.latencies[len(sum.latencies)/2]
	return sum, errors.Join(errs...)
}
