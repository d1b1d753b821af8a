package metrics

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringside-cache/ringside/sidecar/cache"
)

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

// A metric is one row of METRICS.md: read calls emit once a series, with the values of labels in order.
type metric struct {
	name   string
	kind   prometheus.ValueType
	labels []string
	help   string
	read   func(s *Source, emit func(value float64, labels ...string))
}

// A histogram is a row of METRICS.md with buckets; see metric.
type histogram struct {
	name   string
	label  string
	help   string
	series func(s *Source, emit func(h *cache.Histogram, label string))
}

func metrics() []metric {
	var all []metric
	for _, rows := range [][]metric{
		requestMetrics(), writeMetrics(), changeFeedMetrics(), localMetrics(), originMetrics(), hopMetrics(),
		followMetrics(), peerListenerMetrics(), memoryMetrics(), ringMetrics(), feedMetrics(), processMetrics(),
	} {
		all = append(all, rows...)
	}
	return all
}

func requestMetrics() []metric {
	dataset := []string{"dataset"}
	return []metric{
		{"ringside_requests_total", counter, []string{"dataset", "result"},
			"Reads of applications, each counted once, by what answered them.", readRequests},
		{"ringside_refused_total", counter, dataset,
			"Reads refused because a bound was reached. They are errors in ringside_requests_total, too.",
			stat(func(s *cache.Stats) *atomic.Int64 { return &s.Refused })},
		{"ringside_refreshes_total", counter, dataset,
			"Loads begun in the background, before an entry expired or behind a stale answer.",
			stat(func(s *cache.Stats) *atomic.Int64 { return &s.Refreshes })},
		{"ringside_fenced_total", counter, dataset,
			"Values not stored because their key was invalidated after their load began.",
			stat(func(s *cache.Stats) *atomic.Int64 { return &s.LoadsDiscarded })},
		{"ringside_loads_in_flight", gauge, dataset,
			"Loads under way.",
			perDataset(loadsInFlight)},
		{"ringside_hops_in_flight", gauge, dataset,
			"Hops under way.",
			perDataset(hopsInFlight)},
		{"ringside_max_in_flight", gauge, dataset,
			"Bound of ringside_loads_in_flight, and apart from it of ringside_hops_in_flight.",
			perDataset(func(d *cache.Dataset) float64 { return float64(d.Policy().MaxFlights) })},
	}
}

func readRequests(s *Source, emit func(float64, ...string)) {
	for _, d := range s.Datasets {
		name, st := d.Name(), d.Stats()
		emit(float64(st.Hit.Load()), name, "hit")
		emit(float64(st.LocalHit.Load()), name, "local_hit")
		emit(float64(st.PeerHit.Load()), name, "peer_hit")
		emit(float64(st.Load.Load()), name, "load")
		emit(float64(st.Stale.Load()), name, "stale")
		emit(float64(st.Negative.Load()), name, "negative")
		emit(float64(st.Error.Load()), name, "error")
	}
}

func writeMetrics() []metric {
	dataset := []string{"dataset"}
	return []metric{
		{"ringside_writes_total", counter, []string{"dataset", "result"},
			"Writes of applications, each counted once, by what came of them.", readWrites},
		{"ringside_writes_served_total", counter, dataset,
			"Writes made for other members.",
			stat(func(s *cache.Stats) *atomic.Int64 { return &s.WritesServed })},
		{"ringside_invalidations_total", counter, dataset,
			"Invalidations taken in: of writes through any member, of change feeds and by request.",
			stat(func(s *cache.Stats) *atomic.Int64 { return &s.Invalidations })},
		{"ringside_copies_ended_total", counter, dataset,
			"Times that the copies of a member's entries were ended because its invalidations may have been missed.",
			stat(func(s *cache.Stats) *atomic.Int64 { return &s.CopiesExpired })},
		{"ringside_floors", gauge, dataset,
			"Keys of which it is remembered, without an entry, what is too old for them.",
			perDataset(func(d *cache.Dataset) float64 { n, _ := d.Bounds(); return float64(n) })},
		{"ringside_max_floors", gauge, dataset,
			"Bound of ringside_floors.",
			perDataset(func(d *cache.Dataset) float64 { _, most := d.Bounds(); return float64(most) })},
		{"ringside_floors_forgotten_total", counter, dataset,
			"Floors forgotten before their time, because there were too many.",
			stat(func(s *cache.Stats) *atomic.Int64 { return &s.BoundsEvicted })},
	}
}

func readWrites(s *Source, emit func(float64, ...string)) {
	for _, d := range s.Datasets {
		name, st := d.Name(), d.Stats()
		emit(float64(st.Written.Load()), name, "written")
		emit(float64(st.Conflicts.Load()), name, "conflict")
		emit(float64(st.WritesUnknown.Load()), name, "unknown")
		emit(float64(st.WritesRefused.Load()), name, "refused")
		emit(float64(st.WriteErrors.Load()), name, "error")
	}
}

func changeFeedMetrics() []metric {
	dataset := []string{"dataset"}
	return []metric{
		{"ringside_change_feed_gap", gauge, dataset,
			"1 while changes are not heard of although there is a change feed: neither this member nor one it follows reads it.",
			perDataset(func(d *cache.Dataset) float64 { live, has := d.FeedLive(); return oneIf(has && !live) })},
		{"ringside_change_feed_gaps_total", counter, dataset,
			"Times that the change feed broke: entries live for gap_ttl at most until it is live again.",
			stat(func(s *cache.Stats) *atomic.Int64 { return &s.FeedGaps })},
		{"ringside_change_feed_reading", gauge, dataset,
			"1 while this member reads the change feed itself, without a gap, else 0.",
			func(s *Source, emit func(float64, ...string)) {
				for _, f := range s.ChangeFeeds {
					emit(oneIf(f.Reading()), f.Dataset)
				}
			}},
	}
}

func localMetrics() []metric {
	protocol := []string{"protocol"}
	return []metric{
		{"ringside_connections", gauge, protocol, "Open connections of applications.",
			protocolLoad(func(l ProtocolLoad) int64 { return l.Conns })},
		{"ringside_max_connections", gauge, protocol, "Bound of ringside_connections.",
			protocolLoad(func(l ProtocolLoad) int64 { return l.MaxConns })},
		{"ringside_listener_refused_total", counter, []string{"protocol", "reason"},
			"Connections and requests of applications that a listener refused before any dataset was asked.",
			readListenerRefused},
		{"ringside_batch_readers", gauge, nil, "Goroutines that read keys of batches.",
			local(func(l Local) int64 { return l.BatchReaders })},
		{"ringside_max_batch_readers", gauge, nil, "Bound of ringside_batch_readers.",
			local(func(l Local) int64 { return l.MaxBatchReaders })},
		{"ringside_batch_truncated_total", counter, nil,
			"Keys of batches refused because the answer would have been too large.",
			local(func(l Local) int64 { return l.BatchTruncated })},
		{"ringside_cnf_metrics_batch_readers", gauge, nil, "Goroutines that read CNF metrics of batches.",
			cnfMetrics(func(c CNFMetrics) int64 { return c.BatchReaders })},
		{"ringside_cnf_metrics_max_batch_readers", gauge, nil, "Bound of ringside_cnf_metrics_batch_readers.",
			cnfMetrics(func(c CNFMetrics) int64 { return c.MaxBatchReaders })},
		{"ringside_watches", gauge, nil, "Watches of applications.",
			local(func(l Local) int64 { return l.Watches })},
		{"ringside_max_watches", gauge, nil, "Bound of ringside_watches.",
			local(func(l Local) int64 { return l.MaxWatches })},
		{"ringside_watches_refused_total", counter, nil, "Watches refused because of their bound.",
			local(func(l Local) int64 { return l.WatchesRefused })},
		{"ringside_watches_cut_off_total", counter, nil,
			"Watches ended because their client was too slow to take what changed.",
			local(func(l Local) int64 { return l.WatchesCut })},
		{"ringside_defects_total", counter, nil, "Panics and errors of no known kind. Please report them.",
			local(func(l Local) int64 { return l.Defects })},
	}
}

func readListenerRefused(s *Source, emit func(float64, ...string)) {
	for _, p := range s.Protocols {
		for reason, n := range p.Load().Refused {
			emit(float64(n), p.Name, reason)
		}
	}
}

func loadsInFlight(d *cache.Dataset) float64 {
	loads, _ := d.Flights()
	return float64(loads)
}

func hopsInFlight(d *cache.Dataset) float64 {
	_, hops := d.Flights()
	return float64(hops)
}

func originMetrics() []metric {
	dataset, origin := []string{"dataset"}, []string{"origin"}
	return []metric{
		{"ringside_loads_total", counter, dataset,
			"Loads begun by this member, one key each.",
			stat(func(s *cache.Stats) *atomic.Int64 { return &s.LoadsBegun })},
		{"ringside_load_errors_total", counter, dataset,
			"Loads that failed.",
			stat(func(s *cache.Stats) *atomic.Int64 { return &s.LoadErrors })},
		{"ringside_origin_queries_total", counter, dataset,
			"Queries that this member made to the origin. Loads that come together share one.",
			stat(func(s *cache.Stats) *atomic.Int64 { return &s.Queries })},
		{"ringside_origin_query_errors_total", counter, dataset,
			"Queries that failed.",
			stat(func(s *cache.Stats) *atomic.Int64 { return &s.QueryErrors })},
		{"ringside_origin_keys_total", counter, dataset,
			"Keys that were asked of the origin.",
			stat(func(s *cache.Stats) *atomic.Int64 { return &s.Keys })},
		{"ringside_origin_in_flight", gauge, origin,
			"Statements under way.",
			originLoad(func(l OriginLoad) float64 { return float64(l.InFlight) })},
		{"ringside_origin_max_in_flight", gauge, origin,
			"Bound of ringside_origin_in_flight.",
			originLoad(func(l OriginLoad) float64 { return float64(l.MaxInFlight) })},
		{"ringside_origin_queued", gauge, origin,
			"Loads that wait for a statement's turn.",
			originLoad(func(l OriginLoad) float64 { return float64(l.Queued) })},
		{"ringside_origin_max_queued", gauge, origin,
			"Bound of ringside_origin_queued.",
			originLoad(func(l OriginLoad) float64 { return float64(l.MaxQueued) })},
		{"ringside_origin_gave_up_total", counter, origin,
			"Loads whose time passed while they waited for a statement's turn.",
			originLoad(func(l OriginLoad) float64 { return float64(l.GaveUp) })},
		{"ringside_origin_refused_total", counter, origin,
			"Loads refused before they began: the queue was full, or the breaker open.",
			originLoad(func(l OriginLoad) float64 { return float64(l.Refused) })},
		{"ringside_origin_breaker_open", gauge, origin,
			"1 while the origin is not asked because it kept failing, else 0.",
			originLoad(func(l OriginLoad) float64 { return oneIf(l.BreakerOpen) })},
	}
}

func hopMetrics() []metric {
	dataset := []string{"dataset"}
	return []metric{
		{"ringside_hops_total", counter, dataset,
			"Requests to other members.",
			stat(func(s *cache.Stats) *atomic.Int64 { return &s.PeerFetches })},
		{"ringside_hop_errors_total", counter, dataset,
			"Requests to other members that got no answer.",
			stat(func(s *cache.Stats) *atomic.Int64 { return &s.PeerFetchErrors })},
		{"ringside_successor_hops_total", counter, dataset,
			"Hops to the successor, because the owner could not be reached.",
			stat(func(s *cache.Stats) *atomic.Int64 { return &s.Successor })},
		{"ringside_fallback_loads_total", counter, dataset,
			"Loads made here because neither owner nor successor could be reached.",
			stat(func(s *cache.Stats) *atomic.Int64 { return &s.FailoverLoads })},
		{"ringside_served_total", counter, dataset,
			"Requests answered to other members.",
			stat(func(s *cache.Stats) *atomic.Int64 { return &s.Served })},
		{"ringside_served_not_owner_total", counter, dataset,
			"Requests answered to other members for keys that this member does not own.",
			stat(func(s *cache.Stats) *atomic.Int64 { return &s.NotOwner })},
		{"ringside_peeks_total", counter, dataset,
			"Questions to the previous owner of a key before its first load here.",
			stat(func(s *cache.Stats) *atomic.Int64 { return &s.Peeks })},
		{"ringside_peek_hits_total", counter, dataset,
			"Questions to the previous owner that spared a load.",
			stat(func(s *cache.Stats) *atomic.Int64 { return &s.PeekHits })},
		{"ringside_peer_connections", gauge, nil, "Members that this one is connected to.",
			peers(func(p Peers) int64 { return p.Conns })},
		{"ringside_peer_max_connections", gauge, nil, "Bound of ringside_peer_connections.",
			peers(func(p Peers) int64 { return p.MaxConns })},
		{"ringside_peer_max_calls", gauge, nil, "Bound of the requests under way to one member.",
			peers(func(p Peers) int64 { return p.MaxCalls })},
		{"ringside_peer_breakers_open", gauge, nil,
			"Members that are not asked at the moment because they did not answer.",
			peers(func(p Peers) int64 { return p.BreakersOpen })},
		{"ringside_peer_unreachable_total", counter, nil, "Requests to other members that got no answer, all datasets.",
			peers(func(p Peers) int64 { return p.Unreachable })},
		{"ringside_peer_refused_total", counter, nil,
			"Requests to other members that were not made because a bound was reached.",
			peers(func(p Peers) int64 { return p.Refused })},
		{"ringside_peer_silences_total", counter, nil, "Times that a member did not answer a ping in time.",
			peers(func(p Peers) int64 { return p.Silences })},
		{"ringside_ring_disagreements_total", counter, nil, "Answers by members whose ring was another.",
			peers(func(p Peers) int64 { return p.Disagreements })},
	}
}

func followMetrics() []metric {
	return []metric{
		{"ringside_followed_members", gauge, nil, "Members whose invalidations this one follows.",
			peers(func(p Peers) int64 { return p.Followed })},
		{"ringside_published_total", counter, nil, "Invalidations published to the members that follow this one.",
			peers(func(p Peers) int64 { return p.Published })},
		{"ringside_received_total", counter, nil, "Invalidations received from the members that this one follows.",
			peers(func(p Peers) int64 { return p.Received })},
		{"ringside_follow_gaps_total", counter, nil,
			"Times that invalidations of a followed member may have been missed: what is held of it was dropped.",
			peers(func(p Peers) int64 { return p.Gaps })},
		{"ringside_tells_failed_total", counter, nil,
			"Members that could not be told of an invalidation that concerns all of them.",
			peers(func(p Peers) int64 { return p.TellsFailed })},
	}
}

func peerListenerMetrics() []metric {
	return []metric{
		{"ringside_served_writes_in_flight", gauge, nil, "Writes that are being made for other members.",
			peerListener(func(l PeerListener) int64 { return l.Writing })},
		{"ringside_served_writes_max_in_flight", gauge, nil, "Bound of ringside_served_writes_in_flight.",
			peerListener(func(l PeerListener) int64 { return l.MaxWriting })},
		{"ringside_served_writes_refused_total", counter, nil,
			"Writes for other members refused because of their bound, all datasets.",
			peerListener(func(l PeerListener) int64 { return l.WritesRefused })},
		{"ringside_followers", gauge, nil, "Members that follow the invalidations of this one.",
			peerListener(func(l PeerListener) int64 { return l.Followers })},
		{"ringside_max_followers", gauge, nil, "Bound of ringside_followers.",
			peerListener(func(l PeerListener) int64 { return l.MaxFollowers })},
		{"ringside_followers_refused_total", counter, nil,
			"Members that were not let follow because of their bound.",
			peerListener(func(l PeerListener) int64 { return l.FollowersRefused })},
		{"ringside_followers_cut_off_total", counter, nil,
			"Times that a member was too slow to follow, or asked for what is no longer kept: it drops its copies.",
			peerListener(func(l PeerListener) int64 { return l.FollowersCutOff })},
		{"ringside_peer_listener_connections", gauge, nil,
			"Open connections of other members, and of clients that route by the ring, to the peer listener.",
			peerListener(func(l PeerListener) int64 { return l.Conns })},
		{"ringside_peer_listener_max_connections", gauge, nil, "Bound of ringside_peer_listener_connections.",
			peerListener(func(l PeerListener) int64 { return l.MaxConns })},
		{"ringside_peer_listener_refused_connections_total", counter, nil,
			"Connections to the peer listener that were closed because of their bound.",
			peerListener(func(l PeerListener) int64 { return l.ConnsRefused })},
		{"ringside_served_in_flight", gauge, nil, "Requests of other members that are being answered.",
			peerListener(func(l PeerListener) int64 { return l.InFlight })},
		{"ringside_served_max_in_flight", gauge, nil, "Bound of ringside_served_in_flight.",
			peerListener(func(l PeerListener) int64 { return l.MaxInFlight })},
		{"ringside_served_refused_total", counter, nil,
			"Requests of other members refused because of their bound, all datasets.",
			peerListener(func(l PeerListener) int64 { return l.FetchesRefused })},
	}
}

func memoryMetrics() []metric {
	dataset := []string{"dataset"}
	return []metric{
		{"ringside_entries", gauge, dataset,
			"Entries held, own and copies.",
			perDataset(func(d *cache.Dataset) float64 { return float64(d.Memory().Entries) })},
		{"ringside_memory_bytes", gauge, dataset,
			"Bytes of the entries held, overhead included.",
			perDataset(func(d *cache.Dataset) float64 { return float64(d.Memory().Bytes) })},
		{"ringside_memory_max_bytes", gauge, dataset,
			"Bound of ringside_memory_bytes.",
			perDataset(func(d *cache.Dataset) float64 { return float64(d.Memory().MaxBytes) })},
		{"ringside_evictions_total", counter, dataset,
			"Entries dropped for want of room.",
			perDataset(func(d *cache.Dataset) float64 { return float64(d.Memory().Evictions) })},
		{"ringside_too_large_total", counter, dataset,
			"Values not kept because they were larger than an entry may be.",
			perDataset(func(d *cache.Dataset) float64 { return float64(d.Memory().TooLarge) })},
	}
}

func ringMetrics() []metric {
	return []metric{
		{"ringside_ring_members", gauge, nil, "Members of the ring that reads are routed by.",
			ring(func(r Ring) float64 { return float64(r.Members) })},
		{"ringside_ring_doubted_members", gauge, nil,
			"Members of the ring that the directory does not list any more: they stay because they still answer.",
			ring(func(r Ring) float64 { return float64(r.Doubted) })},
		{"ringside_ring_changes_total", counter, nil, "Rings since the start.",
			ring(func(r Ring) float64 { return float64(r.Changes) })},
		{"ringside_ring_unreachable_members_total", counter, nil,
			"Members that the directory lost and that were taken off the ring because they did not answer.",
			ring(func(r Ring) float64 { return float64(r.Unreachable) })},
		{"ringside_ring_info", gauge, []string{"ring_id"},
			"Always 1. Members that show different ring_id for long do not agree on who owns what.",
			func(s *Source, emit func(float64, ...string)) {
				if s.Ring != nil {
					emit(1, s.Ring().ID)
				}
			}},
		{"ringside_directory_following", gauge, nil,
			"1 while the list of members is known and watched, else 0: the last ring stays in use.",
			directory(func(d Directory) float64 { return oneIf(d.Following) })},
		{"ringside_directory_registered", gauge, nil,
			"1 while this member is in the directory, as far as is known, else 0.",
			registration(func(d Directory) float64 { return oneIf(d.Registered) })},
		{"ringside_directory_members", gauge, nil,
			"Members that the directory listed last. The ring may keep more: those that still answer.",
			directory(func(d Directory) float64 { return float64(d.Members) })},
		{"ringside_directory_contact_age_seconds", gauge, nil,
			"Time since the directory last answered.",
			directory(func(d Directory) float64 { return d.ContactAge.Seconds() })},
		{"ringside_directory_registrations_total", counter, nil,
			"Registrations that succeeded: more than one means that one was lost.",
			registration(func(d Directory) float64 { return float64(d.Registrations) })},
		{"ringside_directory_lists_total", counter, nil,
			"Full lists read.",
			directory(func(d Directory) float64 { return float64(d.Lists) })},
		{"ringside_directory_watch_restarts_total", counter, nil,
			"Watches that ended before their time.",
			directory(func(d Directory) float64 { return float64(d.WatchRestarts) })},
		{"ringside_directory_refused_records_total", counter, []string{"reason"},
			"Records passed over because they are malformed, duplicate or absurd; each list counts them again.",
			readRefusedRecords},
	}
}

func feedMetrics() []metric {
	return []metric{
		{"ringside_feed_subscribers", gauge, nil, "Proxies that follow the ring by xDS.",
			feed(func(f Feed) float64 { return float64(f.Subscribers) })},
		{"ringside_feed_max_subscribers", gauge, nil, "Bound of ringside_feed_subscribers.",
			feed(func(f Feed) float64 { return float64(f.MaxSubscribers) })},
		{"ringside_feed_endpoints", gauge, nil,
			"Members that proxies are told of, those that are leaving included; 0 before the first list.",
			feed(func(f Feed) float64 { return float64(f.Endpoints) })},
		{"ringside_feed_updates_total", counter, nil, "Lists of members that proxies were told.",
			feed(func(f Feed) float64 { return float64(f.Updates) })},
		{"ringside_feed_refusals_total", counter, nil, "Updates that a proxy refused (NACK).",
			feed(func(f Feed) float64 { return float64(f.Refusals) })},
		{"ringside_feed_turned_away_total", counter, nil, "Proxies turned away because a bound was reached.",
			feed(func(f Feed) float64 { return float64(f.TurnedAway) })},
	}
}

func readRefusedRecords(s *Source, emit func(float64, ...string)) {
	if s.Directory == nil {
		return
	}
	for reason, n := range s.Directory().Refused {
		emit(float64(n), reason)
	}
}

func processMetrics() []metric {
	return []metric{
		{"ringside_build_info", gauge, []string{"version", "revision"}, "Always 1.",
			func(s *Source, emit func(float64, ...string)) { emit(1, s.Version, s.Revision) }},
		{"ringside_config_reloads_total", counter, []string{"result"},
			"Times the config was read again; result is ok or error.", readReloads},
		{"ringside_config_last_reload_failed", gauge, nil,
			"1 while the config in use is not the one in the file, because that one is bad, else 0.",
			func(s *Source, emit func(float64, ...string)) {
				if s.Reloads != nil {
					emit(oneIf(s.Reloads().LastFailed))
				}
			}},
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
		{"ringside_request_duration_seconds", "protocol", "Time to answer a request of an application.",
			func(s *Source, emit func(*cache.Histogram, string)) {
				for _, p := range s.Protocols {
					emit(p.Duration, p.Name)
				}
			}},
		{"ringside_load_duration_seconds", "dataset", "Time of a load, waiting for the origin's budget included.",
			func(s *Source, emit func(*cache.Histogram, string)) {
				for _, d := range s.Datasets {
					emit(&d.Stats().LoadTime, d.Name())
				}
			}},
		{"ringside_write_duration_seconds", "dataset",
			"Time of a write by this member, waiting for the origin's budget included.",
			func(s *Source, emit func(*cache.Histogram, string)) {
				for _, d := range s.Datasets {
					emit(&d.Stats().WriteTime, d.Name())
				}
			}},
		{"ringside_hop_duration_seconds", "dataset", "Time of a request to another member.",
			func(s *Source, emit func(*cache.Histogram, string)) {
				for _, d := range s.Datasets {
					emit(&d.Stats().PeerFetchTime, d.Name())
				}
			}},
	}
}

func perDataset(read func(*cache.Dataset) float64) func(*Source, func(float64, ...string)) {
	return func(s *Source, emit func(float64, ...string)) {
		for _, d := range s.Datasets {
			emit(read(d), d.Name())
		}
	}
}

func stat(field func(*cache.Stats) *atomic.Int64) func(*Source, func(float64, ...string)) {
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
		for _, o := range s.Origins {
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

func peerListener(field func(PeerListener) int64) func(*Source, func(float64, ...string)) {
	return func(s *Source, emit func(float64, ...string)) {
		if s.PeerListener != nil {
			emit(float64(field(s.PeerListener())))
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

// registration leaves an edge out: an alert on members that are not registered must not fire for it.
func registration(field func(Directory) float64) func(*Source, func(float64, ...string)) {
	return func(s *Source, emit func(float64, ...string)) {
		if s.Directory == nil {
			return
		}
		if d := s.Directory(); !d.Edge {
			emit(field(d))
		}
	}
}

func feed(field func(Feed) float64) func(*Source, func(float64, ...string)) {
	return func(s *Source, emit func(float64, ...string)) {
		if s.Feed != nil {
			emit(field(s.Feed()))
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

func cnfMetrics(field func(CNFMetrics) int64) func(*Source, func(float64, ...string)) {
	return func(s *Source, emit func(float64, ...string)) {
		if s.CNFMetrics != nil {
			emit(float64(field(s.CNFMetrics())))
		}
	}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
