package metrics

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

// metric is one row of METRICS.md. read calls emit once for each series, with the label values in order.
type metric struct {
	name   string
	kind   prometheus.ValueType
	labels []string
	help   string
	read   func(s *Source, emit func(value float64, labels ...string))
}

// histogram is a row of METRICS.md with buckets. It leaves out what has not occurred, as a distribution does: each costs Prometheus
// up to 22 series per pod.
type histogram struct {
	name   string
	label  string
	help   string
	series func(s *Source, emit func(h *kv.Histogram, label string))
}

func metrics() []metric {
	var all []metric
	for _, rows := range [][]metric{
		requestMetrics(), writeMetrics(), changeFeedMetrics(), warmMetrics(), verifyMetrics(), localMetrics(), originMetrics(), peerMetrics(),
		subscriptionMetrics(), peerListenerMetrics(), listenerMetrics(), otlpMetrics(), budgetMetrics(), memoryMetrics(), ringMetrics(), xdsMetrics(), accessMetrics(), processMetrics(),
	} {
		all = append(all, rows...)
	}
	return all
}

func requestMetrics() []metric {
	dataset := []string{"dataset"}
	return []metric{
		{"ringside_requests_total", counter, []string{"dataset", "result"},
			"Reads by applications, each counted once, by the source of the result.", readRequests},
		{"ringside_refused_total", counter, dataset,
			"Reads refused because too many loads or peer fetches were in flight. Also counted as errors in ringside_requests_total.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.Refused })},
		{"ringside_refreshes_total", counter, dataset,
			"Background loads, started before an entry expired or after a stale value was returned.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.Refreshes })},
		{"ringside_batch_values_dropped_total", counter, dataset,
			"Keys of batches without a value because the values before it filled the response. Applications get an error of the key, watches and other members read it again.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.BatchDropped })},
		{"ringside_loads_discarded_total", counter, dataset,
			"Loaded values discarded because their key was invalidated after the load began.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.LoadsDiscarded })},
		{"ringside_loads_in_flight", gauge, dataset,
			"Loads in flight.",
			perDataset(loadsInFlight)},
		{"ringside_peer_fetches_in_flight", gauge, dataset,
			"Fetches from other members in flight.",
			perDataset(peerFetchesInFlight)},
		{"ringside_max_in_flight", gauge, dataset,
			"Limit of ringside_loads_in_flight and, separately, of ringside_peer_fetches_in_flight.",
			perDataset(func(d *cache.Dataset) float64 { return float64(d.Policy().MaxFlights) })},
	}
}

func readRequests(s *Source, emit func(float64, ...string)) {
	for _, d := range s.Configured().Datasets {
		name, st := d.Name(), d.Stats()
		emit(float64(st.Hit.Load()), name, "hit")
		emit(float64(st.LocalHit.Load()), name, "local_hit")
		emit(float64(st.PeerHit.Load()), name, "peer_hit")
		emit(float64(st.Load.Load()), name, "load")
		emit(float64(st.Stale.Load()), name, "stale")
		emit(float64(st.Negative.Load()), name, "negative")
		emit(float64(st.DataError.Load()), name, "data_error")
		emit(float64(st.Error.Load()), name, "error")
	}
}

func writeMetrics() []metric {
	dataset := []string{"dataset"}
	return []metric{
		{"ringside_writes_total", counter, []string{"dataset", "result"},
			"Writes by applications, each counted once, by outcome.", readWrites},
		{"ringside_writes_served_total", counter, dataset,
			"Writes executed for other members.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.WritesServed })},
		{"ringside_invalidations_total", counter, dataset,
			"Invalidations applied, from writes through any member, change feeds and :invalidate requests.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.Invalidations })},
		{"ringside_copies_expired_total", counter, dataset,
			"Times that all local copies from one member were expired because its invalidations may have been missed.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.CopiesExpired })},
		{"ringside_read_bounds", gauge, dataset,
			"Keys with a remembered read bound but no cached entry.",
			perDataset(func(d *cache.Dataset) float64 { n, _ := d.Bounds(); return float64(n) })},
		{"ringside_max_read_bounds", gauge, dataset,
			"Limit of ringside_read_bounds.",
			perDataset(func(d *cache.Dataset) float64 { _, most := d.Bounds(); return float64(most) })},
		{"ringside_read_bounds_evicted_total", counter, dataset,
			"Read bounds dropped before they expired because there were too many. Reads of those keys may go back to an older version.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.BoundsEvicted })},
	}
}

func readWrites(s *Source, emit func(float64, ...string)) {
	for _, d := range s.Configured().Datasets {
		name, st := d.Name(), d.Stats()
		emit(float64(st.Written.Load()), name, "written")
		emit(float64(st.Conflicts.Load()), name, "conflict")
		emit(float64(st.WritesUnknown.Load()), name, "unknown")
		emit(float64(st.WritesRefused.Load()), name, "refused")
		emit(float64(st.WriteErrors.Load()), name, "error")
	}
}

func warmMetrics() []metric {
	dataset := []string{"dataset"}
	return []metric{
		{"ringside_warm_keys", gauge, dataset,
			"Keys of the last complete warm-up that this member owns; 0 without warm.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.WarmKeys })},
		{"ringside_warm_omitted_keys", gauge, dataset,
			"Keys that the last complete warm-up did not load because the memory of the dataset is full.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.WarmOmitted })},
		{"ringside_warm_loaded_keys_total", counter, dataset,
			"Keys loaded by warm-ups, at the start, at each interval, and after changes.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.WarmLoaded })},
		{"ringside_warm_passes_total", counter, []string{"dataset", "result"},
			"Warm-ups of all keys that this member owns, by result.",
			func(s *Source, emit func(float64, ...string)) {
				for _, d := range s.Configured().Datasets {
					emit(float64(d.Stats().WarmPasses.Load()), d.Name(), "ok")
					emit(float64(d.Stats().WarmFailures.Load()), d.Name(), "error")
				}
			}},
		{"ringside_pinned_bytes", gauge, dataset,
			"Bytes of entries that others do not evict (warm.pin).",
			perDataset(func(d *cache.Dataset) float64 { return float64(d.Memory().Pinned) })},
	}
}

func changeFeedMetrics() []metric {
	dataset := []string{"dataset"}
	return []metric{
		{"ringside_change_feed_gap", gauge, dataset,
			"1 if the change feed is configured but not live.",
			perDataset(func(d *cache.Dataset) float64 { live, has := d.FeedLive(); return oneIf(has && !live) })},
		{"ringside_change_feed_gaps_total", counter, dataset,
			"Interruptions of the change feed. Until it is live again, entries expire after at most gap_ttl.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.FeedGaps })},
		{"ringside_change_feed_reading", gauge, dataset,
			"1 if this member reads the change feed from the database, without a gap.",
			func(s *Source, emit func(float64, ...string)) {
				for _, f := range s.Configured().ChangeFeeds {
					emit(oneIf(f.Reading()), f.Dataset)
				}
			}},
		{"ringside_change_log_rows", gauge, dataset,
			"Rows of the table of changes, estimated from its lowest and highest number; 0 on members that do not poll it.",
			changeLog(func(l ChangeLog) float64 { return float64(l.Rows) })},
		{"ringside_change_log_max_rows", gauge, dataset,
			"Limit of ringside_change_log_rows: the member deletes older rows.",
			changeLog(func(l ChangeLog) float64 { return float64(l.MaxRows) })},
		{"ringside_change_log_prune_failed", gauge, dataset,
			"1 if the last attempt to delete old rows of the table of changes failed.",
			changeLog(func(l ChangeLog) float64 { return oneIf(l.PruneFailed) })},
		{"ringside_change_slot_bytes", gauge, dataset,
			"Bytes of its log that PostgreSQL keeps for the replication slot of this member; 0 on members that read no logical change feed.",
			changeLog(func(l ChangeLog) float64 { return float64(l.WAL) })},
		{"ringside_change_slot_max_bytes", gauge, dataset,
			"Limit of ringside_change_slot_bytes: the member drops the slot, and the change feed starts over.",
			changeLog(func(l ChangeLog) float64 { return float64(l.MaxWAL) })},
	}
}

func localMetrics() []metric {
	protocol := []string{"protocol"}
	return []metric{
		{"ringside_connections", gauge, protocol, "Open connections from applications.",
			protocolLoad(func(l ProtocolLoad) int64 { return l.Conns })},
		{"ringside_max_connections", gauge, protocol, "Limit of ringside_connections.",
			protocolLoad(func(l ProtocolLoad) int64 { return l.MaxConns })},
		{"ringside_listener_refused_total", counter, []string{"reason"},
			"Connections and requests from applications that the listeners refused before reading or writing.",
			readListenerRefused},
		{"ringside_batch_truncated_total", counter, nil,
			"Keys of :batchGet requests not returned because the response would have been too large.",
			local(func(l Local) int64 { return l.BatchTruncated })},
		{"ringside_watches", gauge, nil, "Open watches.",
			local(func(l Local) int64 { return l.Watches })},
		{"ringside_max_watches", gauge, nil, "Limit of ringside_watches.",
			local(func(l Local) int64 { return l.MaxWatches })},
		{"ringside_watches_refused_total", counter, nil, "Watches refused because ringside_max_watches was reached.",
			local(func(l Local) int64 { return l.WatchesRefused })},
		{"ringside_slow_watchers_closed_total", counter, nil,
			"Watches closed because the client read too slowly.",
			local(func(l Local) int64 { return l.SlowWatchersClosed })},
		{"ringside_watch_events_total", counter, nil, "Events sent to the clients of watches.",
			local(func(l Local) int64 { return l.WatchEvents })},
		{"ringside_watched_sets", gauge, nil, "Prefixes and datasets whose keys clients watch.",
			local(func(l Local) int64 { return l.WatchedSets })},
		{"ringside_max_watched_sets", gauge, nil, "Most prefixes and datasets whose keys clients can watch at once.",
			local(func(l Local) int64 { return l.MaxWatchedSets })},
		{"ringside_watched_set_keys", gauge, nil, "Keys of all watched prefixes and datasets, up to 10 000 deleted ones of each included.",
			local(func(l Local) int64 { return l.WatchedSetKeys })},
		{"ringside_watched_sets_refused_total", counter, nil,
			"Watches of a prefix or dataset refused or ended because of the number of sets, the number of keys, or the memory.",
			local(func(l Local) int64 { return l.SetsRefused })},
		{"ringside_watched_set_resets_total", counter, nil,
			"Watches of a prefix or dataset that began again because their position or token was too old.",
			local(func(l Local) int64 { return l.SetResets })},
		{"ringside_internal_errors_total", counter, nil, "Panics and unclassified errors. Each is a bug in Ringside: please report it.",
			local(func(l Local) int64 { return l.InternalErrors })},
	}
}

func readListenerRefused(s *Source, emit func(float64, ...string)) {
	all := map[string]int64{}
	for _, p := range s.Protocols {
		for reason, n := range p.Load().Refused {
			all[reason] += n
		}
	}
	for reason, n := range all {
		emit(float64(n), reason)
	}
}

func loadsInFlight(d *cache.Dataset) float64 {
	loads, _ := d.Flights()
	return float64(loads)
}

func peerFetchesInFlight(d *cache.Dataset) float64 {
	_, fetches := d.Flights()
	return float64(fetches)
}

func readDataErrors(s *Source, emit func(float64, ...string)) {
	for _, d := range s.Configured().Datasets {
		st := d.Stats()
		for i := range st.DataErrors[1:] {
			cause := origin.DataCause(i + 1)
			emit(float64(st.DataErrors[cause].Load()), d.Name(), cause.String())
		}
	}
}

func originMetrics() []metric {
	dataset, origin := []string{"dataset"}, []string{"origin"}
	return []metric{
		{"ringside_loads_total", counter, dataset,
			"Loads started by this member, one key each.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.LoadsBegun })},
		{"ringside_load_errors_total", counter, dataset,
			"Loads that failed.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.LoadErrors })},
		{"ringside_data_errors_total", counter, []string{"dataset", "reason"},
			"Loads of a key whose rows cannot be its value: several rows where the dataset promises one, a value over the limit, or a version that is no integer.",
			readDataErrors},
		{"ringside_origin_queries_total", counter, dataset,
			"Queries that this member sent to the origin. Concurrent loads are batched into one query.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.Queries })},
		{"ringside_origin_query_errors_total", counter, dataset,
			"Queries that failed.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.QueryErrors })},
		{"ringside_origin_keys_total", counter, dataset,
			"Keys in the queries sent to the origin.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.Keys })},
		{"ringside_origin_in_flight", gauge, origin,
			"Statements in flight.",
			originLoad(func(l OriginLoad) float64 { return float64(l.InFlight) })},
		{"ringside_origin_max_in_flight", gauge, origin,
			"Limit of ringside_origin_in_flight.",
			originLoad(func(l OriginLoad) float64 { return float64(l.MaxInFlight) })},
		{"ringside_origin_queued", gauge, origin,
			"Loads that wait because ringside_origin_max_in_flight statements are running.",
			originLoad(func(l OriginLoad) float64 { return float64(l.Queued) })},
		{"ringside_origin_max_queued", gauge, origin,
			"Limit of ringside_origin_queued.",
			originLoad(func(l OriginLoad) float64 { return float64(l.MaxQueued) })},
		{"ringside_origin_queue_timeouts_total", counter, origin,
			"Loads that timed out while queued.",
			originLoad(func(l OriginLoad) float64 { return float64(l.QueueTimeouts) })},
		{"ringside_origin_refused_total", counter, origin,
			"Loads refused because the queue was full or the circuit breaker open.",
			originLoad(func(l OriginLoad) float64 { return float64(l.Refused) })},
		{"ringside_origin_breaker_open", gauge, origin,
			"1 if the circuit breaker is open: the origin failed repeatedly and is not queried for now.",
			originLoad(func(l OriginLoad) float64 { return oneIf(l.BreakerOpen) })},
	}
}

func peerMetrics() []metric {
	dataset := []string{"dataset"}
	return []metric{
		{"ringside_peer_fetches_total", counter, dataset,
			"Fetches from other members.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.PeerFetches })},
		{"ringside_peer_fetch_errors_total", counter, dataset,
			"Fetches from other members that got no response.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.PeerFetchErrors })},
		{"ringside_successor_fetches_total", counter, dataset,
			"Fetches from the successor of a key because its owner was unreachable.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.Successor })},
		{"ringside_failover_loads_total", counter, dataset,
			"Loads by this member for keys of others because neither owner nor successor was reachable.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.FailoverLoads })},
		{"ringside_served_total", counter, dataset,
			"Fetches served to other members.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.Served })},
		{"ringside_served_not_owner_total", counter, dataset,
			"Fetches served to other members for keys that this member does not own.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.NotOwner })},
		{"ringside_handover_requests_total", counter, dataset,
			"Requests to the previous owner of a key for its cached entry, before the first load by the new owner.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.HandoverRequests })},
		{"ringside_handovers_total", counter, dataset,
			"Entries received from the previous owner, which made the load unnecessary.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.Handovers })},
		{"ringside_restored_entries_total", counter, dataset,
			"Entries taken over from the previous process of this sidecar, as stale answers.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.Restored })},
		{"ringside_restored_bytes_total", counter, dataset,
			"Memory of the entries taken over from the previous process of this sidecar.",
			stat(func(s *kv.Stats) *atomic.Int64 { return &s.RestoredBytes })},
		{"ringside_peer_connections", gauge, nil, "Members to which this one has a connection.",
			peers(func(p Peers) int64 { return p.Conns })},
		{"ringside_peer_max_connections", gauge, nil, "Limit of ringside_peer_connections.",
			peers(func(p Peers) int64 { return p.MaxConns })},
		{"ringside_peer_max_calls", gauge, nil, "Limit of the requests in flight to one member.",
			peers(func(p Peers) int64 { return p.MaxCalls })},
		{"ringside_peer_breakers_open", gauge, nil,
			"Members that get no requests for now because they did not respond.",
			peers(func(p Peers) int64 { return p.BreakersOpen })},
		{"ringside_peer_breakers_opened_total", counter, nil,
			"Times that a member stopped getting requests because it did not respond.",
			peers(func(p Peers) int64 { return p.BreakersOpened })},
		{"ringside_peer_unreachable_total", counter, nil, "Fetches from other members that got no response and writes that could not be sent, all datasets.",
			peers(func(p Peers) int64 { return p.Unreachable })},
		{"ringside_peer_refused_total", counter, nil,
			"Requests to other members that were not sent because a limit was reached.",
			peers(func(p Peers) int64 { return p.Refused })},
		{"ringside_peer_ping_timeouts_total", counter, nil, "Pings that a member did not answer in time.",
			peers(func(p Peers) int64 { return p.PingTimeouts })},
		{"ringside_peer_tls_reload_failures_total", counter, nil,
			"TLS handshakes with members that used an older certificate, key and CA because the files are invalid.",
			peerTLS(func(t PeerTLS) float64 { return float64(t.ReloadFailures) })},
		{"ringside_peer_tls_last_reload_failed", gauge, nil,
			"1 if the latest TLS handshake with a member used an older certificate, key and CA because the files are invalid.",
			peerTLS(func(t PeerTLS) float64 { return oneIf(t.LastFailed) })},
		{"ringside_peer_tls_certificate_expiry_timestamp_seconds", gauge, nil,
			"When the certificate of this member for TLS, or one in its chain, expires, in seconds since 1970.",
			peerTLS(func(t PeerTLS) float64 { return float64(t.Expires.Unix()) })},
		{"ringside_peer_tls_certificate_lifetime_seconds", gauge, nil,
			"Whole lifetime of the certificate that expires first.",
			peerTLS(func(t PeerTLS) float64 { return t.Lifetime.Seconds() })},
		{"ringside_peer_tls_rejected_total", counter, []string{"reason"},
			"TLS connections with members, routed clients and xDS clients or publishers that this member rejected, by reason; role means a client that used the protocol of members.",
			rejectedTLS},
		{"ringside_zone_fetches_total", counter, []string{"zone"},
			"Keys fetched from members of the zone of this one (same) and of other zones (other). Both are 0 without node.zone.",
			func(s *Source, emit func(float64, ...string)) {
				if s.Peers != nil {
					p := s.Peers()
					emit(float64(p.SameZone), "same")
					emit(float64(p.OtherZone), "other")
				}
			}},
		{"ringside_ring_disagreements_total", counter, nil, "Responses from members that used a different ring.",
			peers(func(p Peers) int64 { return p.Disagreements })},
	}
}

func subscriptionMetrics() []metric {
	return []metric{
		{"ringside_subscriptions", gauge, nil, "Members to whose invalidations this one is subscribed.",
			peers(func(p Peers) int64 { return p.Subscriptions })},
		{"ringside_invalidations_published_total", counter, nil, "Invalidations published to the subscribed members, each counted once.",
			peers(func(p Peers) int64 { return p.Published })},
		{"ringside_invalidations_received_total", counter, nil, "Invalidations received from other members.",
			peers(func(p Peers) int64 { return p.Received })},
		{"ringside_invalidations_merged_total", counter, nil,
			"Lists of invalidations from subscriptions beyond the quota of their member. Each expired whole datasets.",
			peers(func(p Peers) int64 { return p.Merged })},
		{"ringside_subscription_gaps_total", counter, nil,
			"Times that invalidations from a member may have been missed. All local copies from it were expired.",
			peers(func(p Peers) int64 { return p.Gaps })},
		{"ringside_broadcast_failures_total", counter, nil,
			"Members that could not be reached with an invalidation for all members.",
			peers(func(p Peers) int64 { return p.BroadcastFailures })},
	}
}

func peerListenerMetrics() []metric {
	return []metric{
		{"ringside_served_writes_in_flight", gauge, nil, "Writes in flight for other members.",
			peerListener(func(l PeerListener) int64 { return l.Writing })},
		{"ringside_served_writes_max_in_flight", gauge, nil, "Limit of ringside_served_writes_in_flight.",
			peerListener(func(l PeerListener) int64 { return l.MaxWriting })},
		{"ringside_served_writes_refused_total", counter, nil,
			"Writes for other members refused because ringside_served_writes_max_in_flight was reached.",
			peerListener(func(l PeerListener) int64 { return l.WritesRefused })},
		{"ringside_served_ring_disagreements_total", counter, nil,
			"Fetches and writes by members that used a different ring.",
			peerListener(func(l PeerListener) int64 { return l.Disagreements })},
		{"ringside_served_invalidations_merged_total", counter, nil,
			"Requests of members to invalidate beyond their quota. Each expired whole datasets.",
			peerListener(func(l PeerListener) int64 { return l.InvalidationsMerged })},
		{"ringside_served_invalidations_refused_total", counter, nil,
			"Requests of members to invalidate refused because the member had too many at the same time.",
			peerListener(func(l PeerListener) int64 { return l.InvalidationsRefused })},
		{"ringside_subscribers", gauge, nil, "Members subscribed to the invalidations of this one.",
			peerListener(func(l PeerListener) int64 { return l.Subscribers })},
		{"ringside_max_subscribers", gauge, nil, "Limit of ringside_subscribers.",
			peerListener(func(l PeerListener) int64 { return l.MaxSubscribers })},
		{"ringside_subscribers_refused_total", counter, nil,
			"Subscriptions refused because ringside_max_subscribers was reached.",
			peerListener(func(l PeerListener) int64 { return l.SubscribersRefused })},
		{"ringside_slow_subscribers_closed_total", counter, nil,
			"Subscriptions closed because the member read too slowly, or resumed too late. It expires its local copies.",
			peerListener(func(l PeerListener) int64 { return l.SlowSubscribersClosed })},
		{"ringside_ring_clients", gauge, nil, "Clients of the ring that get the list of members from this member.",
			peerListener(func(l PeerListener) int64 { return l.Clients })},
		{"ringside_ring_max_clients", gauge, nil, "Limit of ringside_ring_clients.",
			peerListener(func(l PeerListener) int64 { return l.MaxClients })},
		{"ringside_ring_clients_refused_total", counter, nil,
			"Clients of the ring refused because ringside_ring_max_clients, or the memory for them, was reached. They ask another member.",
			peerListener(func(l PeerListener) int64 { return l.ClientsRefused })},
		{"ringside_peer_listener_connections", gauge, nil,
			"Open connections to the peer listener, from members and from clients that route by the ring.",
			peerListener(func(l PeerListener) int64 { return l.Conns })},
		{"ringside_peer_listener_max_connections", gauge, nil, "Limit of ringside_peer_listener_connections.",
			peerListener(func(l PeerListener) int64 { return l.MaxConns })},
		{"ringside_peer_listener_refused_connections_total", counter, nil,
			"Connections to the peer listener closed because ringside_peer_listener_max_connections was reached.",
			peerListener(func(l PeerListener) int64 { return l.ConnsRefused })},
		{"ringside_served_in_flight", gauge, nil, "Fetches by other members in flight.",
			peerListener(func(l PeerListener) int64 { return l.InFlight })},
		{"ringside_served_max_in_flight", gauge, nil, "Limit of ringside_served_in_flight.",
			peerListener(func(l PeerListener) int64 { return l.MaxInFlight })},
		{"ringside_served_refused_total", counter, nil,
			"Fetches by other members refused because ringside_served_max_in_flight was reached.",
			peerListener(func(l PeerListener) int64 { return l.FetchesRefused })},
	}
}

func listenerMetrics() []metric {
	listener := []string{"listener"}
	return []metric{
		{"ringside_listener_connections", gauge, listener, "Open connections to the metrics, admin and xds listeners.",
			listenerLoad(func(l ListenerLoad) int64 { return l.Conns })},
		{"ringside_listener_max_connections", gauge, listener, "Limit of ringside_listener_connections.",
			listenerLoad(func(l ListenerLoad) int64 { return l.MaxConns })},
		{"ringside_listener_refused_connections_total", counter, listener,
			"Connections to the metrics, admin and xds listeners closed because ringside_listener_max_connections was reached.",
			listenerLoad(func(l ListenerLoad) int64 { return l.ConnsRefused })},
		{"ringside_accept_errors_total", counter, nil,
			"Failed attempts of listeners to accept a connection, which they retried. Most likely the limit of open files is reached.",
			readAcceptErrors},
	}
}

func readAcceptErrors(s *Source, emit func(float64, ...string)) {
	var all int64
	for _, p := range s.Protocols {
		if p.Name != "routed" { // the peer listener accepts its connections
			all += p.Load().AcceptErrors
		}
	}
	if s.PeerListener != nil {
		all += s.PeerListener().AcceptErrors
	}
	for _, l := range s.Listeners {
		all += l.Load().AcceptErrors
	}
	if len(s.Protocols)+len(s.Listeners) > 0 {
		emit(float64(all))
	}
}

func otlpMetrics() []metric {
	otlp := func(field func(OTLP) int64) func(*Source, func(float64, ...string)) {
		return func(s *Source, emit func(float64, ...string)) {
			if s.OTLP != nil {
				emit(float64(field(s.OTLP())))
			}
		}
	}
	return []metric{
		{"ringside_otlp_points_total", counter, []string{"result"},
			"Data points of metrics received over OTLP: written (the row, or a newer one of its key, is committed), accepted (waits, with ack: " +
				"accepted), rejected (cannot be a row), failed (may be sent again, or is lost if it was accepted).",
			func(s *Source, emit func(float64, ...string)) {
				if s.OTLP == nil {
					return
				}
				for result, n := range s.OTLP().Points {
					emit(float64(n), result)
				}
			}},
		{"ringside_otlp_superseded_total", counter, nil,
			"Rows from data points not written because a newer one of their key was, here for this member and for others.",
			otlp(func(o OTLP) int64 { return o.Superseded })},
		{"ringside_otlp_memory_bytes", gauge, nil, "Memory of requests with data points, and of points that wait to be written.",
			otlp(func(o OTLP) int64 { return o.Memory })},
		{"ringside_otlp_max_memory_bytes", gauge, nil, "Limit of ringside_otlp_memory_bytes (otlp.memory).",
			otlp(func(o OTLP) int64 { return o.MaxMemory })},
		{"ringside_otlp_refused_total", counter, nil,
			"Requests with data points refused because of ringside_otlp_max_memory_bytes or client_memory. Exporters send them again.",
			otlp(func(o OTLP) int64 { return o.Refused })},
	}
}

func budgetMetrics() []metric {
	use := []string{"use"}
	return []metric{
		{"ringside_budget_bytes", gauge, use,
			"Memory that clients and other members make this sidecar use, as it accounts for it. All uses together have at most client_memory.",
			budgetUse(func(u BudgetUse) int64 { return u.Bytes })},
		{"ringside_budget_limit_bytes", gauge, use,
			"Limit of ringside_budget_bytes. A use reaches it only while the others use little.",
			budgetUse(func(u BudgetUse) int64 { return u.Limit })},
		{"ringside_budget_refused_total", counter, use,
			"Requests, messages, connections and the like refused because client_memory was used up.",
			budgetUse(func(u BudgetUse) int64 { return u.Refusals })},
	}
}

func memoryMetrics() []metric {
	dataset := []string{"dataset"}
	return []metric{
		{"ringside_entries", gauge, dataset,
			"Cached entries, local copies included.",
			perDataset(func(d *cache.Dataset) float64 { return float64(d.Memory().Entries) })},
		{"ringside_memory_bytes", gauge, dataset,
			"Memory of the cached entries in bytes, overhead included.",
			perDataset(func(d *cache.Dataset) float64 { return float64(d.Memory().Bytes) })},
		{"ringside_memory_max_bytes", gauge, dataset,
			"Limit of ringside_memory_bytes.",
			perDataset(func(d *cache.Dataset) float64 { return float64(d.Memory().MaxBytes) })},
		{"ringside_evictions_total", counter, dataset,
			"Entries evicted because memory was full.",
			perDataset(func(d *cache.Dataset) float64 { return float64(d.Memory().Evictions) })},
		{"ringside_too_large_total", counter, dataset,
			"Values not cached because they exceed the size limit of an entry.",
			perDataset(func(d *cache.Dataset) float64 { return float64(d.Memory().TooLarge) })},
	}
}

func ringMetrics() []metric {
	return []metric{
		{"ringside_ring_members", gauge, nil, "Members of the ring in use.",
			ring(func(r Ring) float64 { return float64(r.Members) })},
		{"ringside_ring_unlisted_members", gauge, nil,
			"Members that the directory no longer lists, but that stay on the ring because they still respond.",
			ring(func(r Ring) float64 { return float64(r.Unlisted) })},
		{"ringside_ring_changes_total", counter, nil, "Changes of the ring.",
			ring(func(r Ring) float64 { return float64(r.Changes) })},
		{"ringside_ring_unreachable_members_total", counter, nil,
			"Members removed from the ring because the directory no longer lists them and they do not respond.",
			ring(func(r Ring) float64 { return float64(r.Unreachable) })},
		{"ringside_ring_refused_members_total", counter, nil,
			"Listed members left off the ring because another one has their id, hash key or address, or because their address is loopback and that of this member is not. Each change of the list counts them again.",
			ring(func(r Ring) float64 { return float64(r.Refused) })},
		{"ringside_ring_other_settings_members", gauge, nil,
			"Listed members whose ring.min or ring.max is not that of this member, so that keys have two owners. The log and /api/ring name the values.",
			ring(func(r Ring) float64 { return float64(r.OtherSettings) })},
		{"ringside_ring_off", gauge, nil,
			"1 if this member has left the ring because no other member can reach it at its advertised address. The log and /readyz have the reason.",
			ring(func(r Ring) float64 { return oneIf(r.Off) })},
		{"ringside_ring_not_reached_members", gauge, nil,
			"Members that reach this one but that this one cannot reach. The log names them with the reason.",
			ring(func(r Ring) float64 { return float64(r.NotReached) })},
		{"ringside_member_role", gauge, []string{"role"},
			"Always 1. The role of this sidecar: a member owns keys, a client fetches them from their owners.",
			func(s *Source, emit func(float64, ...string)) {
				if s.Ring != nil {
					emit(1, s.Ring().Role)
				}
			}},
		{"ringside_member_promotions_total", counter, nil,
			"Times that this sidecar was a client and became a member, because there were fewer than membership.max_members.",
			ring(func(r Ring) float64 { return float64(r.Promotions) })},
		{"ringside_ring_info", gauge, []string{"ring_id"},
			"Always 1. Members with different ring_ids for a long time disagree on the owners of keys.",
			func(s *Source, emit func(float64, ...string)) {
				if s.Ring != nil {
					emit(1, s.Ring().ID)
				}
			}},
		{"ringside_directory_connected", gauge, nil,
			"1 if the list of members is known and up to date. If 0, the last ring stays in use.",
			directory(func(d Directory) float64 { return oneIf(d.Connected) })},
		{"ringside_directory_registered", gauge, nil,
			"1 if this member is registered in the directory.",
			registration(func(d Directory) float64 { return oneIf(d.Registered) })},
		{"ringside_directory_members", gauge, nil,
			"Members in the latest list of the directory. The ring may have more; see ringside_ring_unlisted_members.",
			directory(func(d Directory) float64 { return float64(d.Members) })},
		{"ringside_directory_contact_age_seconds", gauge, nil,
			"Time since the last response of the directory.",
			directory(func(d Directory) float64 { return d.ContactAge.Seconds() })},
		{"ringside_directory_registrations_total", counter, nil,
			"Successful registrations. More than one means that a registration was lost and renewed.",
			registration(func(d Directory) float64 { return float64(d.Registrations) })},
		{"ringside_directory_lists_total", counter, nil,
			"Full lists of members read from the directory.",
			directory(func(d Directory) float64 { return float64(d.Lists) })},
		{"ringside_directory_watch_restarts_total", counter, nil,
			"Watches of the directory that were interrupted.",
			directory(func(d Directory) float64 { return float64(d.WatchRestarts) })},
		{"ringside_directory_invalid_records_total", counter, []string{"reason"},
			"Directory records ignored because they are malformed, duplicate or out of range. Each list counts them again.",
			readInvalidRecords},
	}
}

func xdsMetrics() []metric {
	return []metric{
		{"ringside_xds_clients", gauge, nil, "Connected xDS clients (proxies and gRPC clients that route by the ring).",
			xds(func(x XDS) float64 { return float64(x.Clients) })},
		{"ringside_xds_max_clients", gauge, nil, "Limit of ringside_xds_clients.",
			xds(func(x XDS) float64 { return float64(x.MaxClients) })},
		{"ringside_xds_endpoints", gauge, nil,
			"Members in the latest xDS update, leaving ones included. 0 before the first list of members.",
			xds(func(x XDS) float64 { return float64(x.Endpoints) })},
		{"ringside_xds_updates_total", counter, nil, "Changes of the members published by xDS.",
			xds(func(x XDS) float64 { return float64(x.Updates) })},
		{"ringside_xds_nacks_total", counter, nil, "Updates that an xDS client rejected (NACK). It keeps its last good configuration.",
			xds(func(x XDS) float64 { return float64(x.NACKs) })},
		{"ringside_xds_clients_refused_total", counter, nil, "xDS clients refused because a limit was reached.",
			xds(func(x XDS) float64 { return float64(x.ClientsRefused) })},
	}
}

func readInvalidRecords(s *Source, emit func(float64, ...string)) {
	if s.Directory == nil {
		return
	}
	for reason, n := range s.Directory().InvalidRecords {
		emit(float64(n), reason)
	}
}

func processMetrics() []metric {
	return []metric{
		{"ringside_build_info", gauge, []string{"version", "revision"}, "Always 1.",
			func(s *Source, emit func(float64, ...string)) { emit(1, s.Version, s.Revision) }},
		{"ringside_trace_spans_total", counter, []string{"result"},
			"Spans that ended: exported; failed, because the OpenTelemetry collector did not take them; or dropped, because too many were waiting. None without tracing.",
			readSpans},
		{"ringside_trace_queue_spans", gauge, nil, "Spans that wait to be exported.",
			traces(func(t Traces) int64 { return t.Waiting })},
		{"ringside_trace_queue_limit_spans", gauge, nil, "Limit of the spans that wait to be exported (OTEL_BSP_MAX_QUEUE_SIZE).",
			traces(func(t Traces) int64 { return t.MaxWaiting })},
		{"ringside_log_lines_dropped_total", counter, nil, "Lines that the rate limit of the log left out.",
			func(s *Source, emit func(float64, ...string)) {
				if s.LogLinesDropped != nil {
					emit(float64(s.LogLinesDropped()))
				}
			}},
		{"ringside_config_reloads_total", counter, []string{"result"},
			"Configuration reloads; result is ok or error.", readReloads},
		{"ringside_config_last_reload_failed", gauge, nil,
			"1 if the latest reload failed, so that the configuration in use is not the one in the file.",
			func(s *Source, emit func(float64, ...string)) {
				if s.Reloads != nil {
					emit(oneIf(s.Reloads().LastFailed))
				}
			}},
	}
}

func readSpans(s *Source, emit func(float64, ...string)) {
	if s.Traces == nil {
		return
	}
	t := s.Traces()
	emit(float64(t.Exported), "exported")
	emit(float64(t.Failed), "failed")
	emit(float64(t.Dropped), "dropped")
}

func traces(field func(Traces) int64) func(*Source, func(float64, ...string)) {
	return func(s *Source, emit func(float64, ...string)) {
		if s.Traces != nil {
			emit(float64(field(s.Traces())))
		}
	}
}

func readReloads(s *Source, emit func(float64, ...string)) {
	if s.Reloads == nil {
		return
	}
	r := s.Reloads()
	emit(float64(r.OK), "ok")
	emit(float64(r.Failed), "error")
}

func histograms() []histogram {
	return []histogram{
		{"ringside_request_duration_seconds", "protocol", "Time to serve a request of an application.",
			func(s *Source, emit func(*kv.Histogram, string)) {
				for _, p := range s.Protocols {
					if p.Duration.Any() {
						emit(p.Duration, p.Name)
					}
				}
			}},
	}
}

// distribution is a row of METRICS.md with fine buckets, which scrapers of native histograms get; others get the bounds
// 2^first, 2^(first+step), … 2^last seconds. Half a second, the threshold of RingsideLoadsSlow, is a bound of those of loads.
type distribution struct {
	name              string
	labels            []string
	help              string
	first, step, last int
	series            func(s *Source, emit func(d *kv.Distribution, labels ...string))
}

func distributions() []distribution {
	dataset := []string{"dataset"}
	return []distribution{
		{"ringside_load_duration_seconds", dataset, "Time of a load, queueing for the origin included.", -13, 2, 3,
			times(func(s *kv.Stats) *kv.Distribution { return &s.LoadTime })},
		{"ringside_write_duration_seconds", dataset, "Time of a write by this member, queueing for the origin included.", -13, 2, 3,
			times(func(s *kv.Stats) *kv.Distribution { return &s.WriteTime })},
		{"ringside_peer_fetch_duration_seconds", dataset, "Time of a fetch from another member.", -13, 2, 3,
			times(func(s *kv.Stats) *kv.Distribution { return &s.PeerFetchTime })},
		{"ringside_read_duration_seconds", []string{"dataset", "result"},
			"Time of a read by an application within the cache, without its transport, by result as in ringside_requests_total. Of hits one in 64 is measured, and counts as 64.",
			-22, 2, 4, readTimes},
		{"ringside_answer_age_seconds", dataset,
			"Age of the entries with which reads by applications were answered: the time since their load began. Of hits one in 64 is measured, and counts as 64.",
			-10, 2, 18, times(func(s *kv.Stats) *kv.Distribution { return &s.AnswerAge })},
	}
}

func times(of func(*kv.Stats) *kv.Distribution) func(*Source, func(*kv.Distribution, ...string)) {
	return func(s *Source, emit func(*kv.Distribution, ...string)) {
		for _, d := range s.Configured().Datasets {
			if of := of(d.Stats()); of.Any() {
				emit(of, d.Name())
			}
		}
	}
}

func readTimes(s *Source, emit func(*kv.Distribution, ...string)) {
	for _, d := range s.Configured().Datasets {
		for r := range kv.ReadResults {
			if of := &d.Stats().ReadTime[r]; of.Any() {
				emit(of, d.Name(), kv.ReadResult(r).String())
			}
		}
	}
}

func changeLog(field func(ChangeLog) float64) func(*Source, func(float64, ...string)) {
	return func(s *Source, emit func(float64, ...string)) {
		for _, f := range s.Configured().ChangeFeeds {
			emit(field(f.Log()), f.Dataset)
		}
	}
}

func perDataset(read func(*cache.Dataset) float64) func(*Source, func(float64, ...string)) {
	return func(s *Source, emit func(float64, ...string)) {
		for _, d := range s.Configured().Datasets {
			emit(read(d), d.Name())
		}
	}
}

func stat(field func(*kv.Stats) *atomic.Int64) func(*Source, func(float64, ...string)) {
	return perDataset(func(d *cache.Dataset) float64 { return float64(field(d.Stats()).Load()) })
}

func protocolLoad(field func(ProtocolLoad) int64) func(*Source, func(float64, ...string)) {
	return func(s *Source, emit func(float64, ...string)) {
		for _, p := range s.Protocols {
			emit(float64(field(p.Load())), p.Name)
		}
	}
}

func originLoad(field func(OriginLoad) float64) func(*Source, func(float64, ...string)) {
	return func(s *Source, emit func(float64, ...string)) {
		for _, o := range s.Configured().Origins {
			emit(field(o.Load()), o.Name)
		}
	}
}

func peers(field func(Peers) int64) func(*Source, func(float64, ...string)) {
	return func(s *Source, emit func(float64, ...string)) {
		if s.Peers != nil {
			emit(float64(field(s.Peers())))
		}
	}
}

// peerListener omits clients, to which no member connects.
func peerListener(field func(PeerListener) int64) func(*Source, func(float64, ...string)) {
	return func(s *Source, emit func(float64, ...string)) {
		client := s.Directory != nil && s.Directory().Client
		if s.PeerListener != nil && !client {
			emit(float64(field(s.PeerListener())))
		}
	}
}

func rejectedTLS(s *Source, emit func(float64, ...string)) {
	if s.PeerTLS == nil {
		return
	}
	for reason, n := range s.PeerTLS().Rejected {
		emit(float64(n), reason)
	}
}

func peerTLS(field func(PeerTLS) float64) func(*Source, func(float64, ...string)) {
	return func(s *Source, emit func(float64, ...string)) {
		if s.PeerTLS != nil {
			emit(field(s.PeerTLS()))
		}
	}
}

func listenerLoad(field func(ListenerLoad) int64) func(*Source, func(float64, ...string)) {
	return func(s *Source, emit func(float64, ...string)) {
		for _, l := range s.Listeners {
			emit(float64(field(l.Load())), l.Name)
		}
	}
}

func budgetUse(field func(BudgetUse) int64) func(*Source, func(float64, ...string)) {
	return func(s *Source, emit func(float64, ...string)) {
		if s.Budget == nil {
			return
		}
		for _, u := range s.Budget() {
			emit(float64(field(u)), u.Use)
		}
	}
}

func ring(field func(Ring) float64) func(*Source, func(float64, ...string)) {
	return func(s *Source, emit func(float64, ...string)) {
		if s.Ring != nil {
			emit(field(s.Ring()))
		}
	}
}

func directory(field func(Directory) float64) func(*Source, func(float64, ...string)) {
	return func(s *Source, emit func(float64, ...string)) {
		if s.Directory != nil {
			emit(field(s.Directory()))
		}
	}
}

// registration omits clients, which are never registered: the alert on unregistered members must not fire for them.
func registration(field func(Directory) float64) func(*Source, func(float64, ...string)) {
	return func(s *Source, emit func(float64, ...string)) {
		if s.Directory == nil {
			return
		}
		if d := s.Directory(); !d.Client {
			emit(field(d))
		}
	}
}

func xds(field func(XDS) float64) func(*Source, func(float64, ...string)) {
	return func(s *Source, emit func(float64, ...string)) {
		if s.XDS != nil {
			emit(field(s.XDS()))
		}
	}
}

func local(field func(Local) int64) func(*Source, func(float64, ...string)) {
	return func(s *Source, emit func(float64, ...string)) {
		if s.Local != nil {
			emit(float64(field(s.Local())))
		}
	}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
