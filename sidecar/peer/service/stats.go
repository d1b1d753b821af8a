package service

// Stats is a snapshot of a Service.
type Stats struct {
	InFlight, MaxInFlight       int64 // running fetches, and their limit
	Writing, MaxWrites          int64 // running writes, and their limit
	Subscribers, MaxSubscribers int64 // open streams, and their limit
	Clients, MaxClients         int64 // clients of the ring that get the list of members, and their limit

	// Counted since the start.
	Refused            int64 // fetches refused because of MaxInFlight
	WritesRefused      int64 // because of MaxWrites
	RingMismatch       int64 // fetches and writes by members with another ring
	SubscribersRefused int64 // because of MaxSubscribers
	ClientsRefused     int64 // because of MaxClients or the memory
	// InvalidationsMerged counts lists of invalidations beyond the quota of their caller, which expired whole datasets;
	// InvalidationsRefused those refused because their caller had too many running calls.
	InvalidationsMerged, InvalidationsRefused int64
	SubscribersCut                            int64 // because they were too slow or needed an overwritten invalidation
}

// Stats returns a snapshot.
func (s *Service) Stats() Stats {
	return Stats{
		InFlight:           s.inFlight.Load(),
		MaxInFlight:        s.config.MaxInFlight,
		Refused:            s.refused.Load(),
		RingMismatch:       s.ringMismatch.Load(),
		Writing:            s.writing.Load(),
		MaxWrites:          s.config.MaxWrites,
		WritesRefused:      s.writesRefused.Load(),
		Subscribers:        s.subscribers.Load(),
		MaxSubscribers:     s.config.MaxSubscribers,
		SubscribersRefused: s.subscribersRefused.Load(),
		SubscribersCut:     s.subscribersCut.Load(),
		Clients:            s.clients.Load(),
		MaxClients:         s.config.MaxClients,
		ClientsRefused:     s.clientsRefused.Load(),

		InvalidationsMerged: s.invalidationsMerged.Load(), InvalidationsRefused: s.invalidationsRefused.Load(),
	}
}
