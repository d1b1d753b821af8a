package server

// ServiceStats is a snapshot of a Service.
type ServiceStats struct {
	InFlight, MaxInFlight       int64 // running fetches, and their limit
	Writing, MaxWrites          int64 // running writes, and their limit
	Subscribers, MaxSubscribers int64 // open streams, and their limit

	// Counted since the start.
	Fetches            int64
	Refused            int64 // fetches refused because of MaxInFlight
	NotOwner           int64 // fetches and writes of keys that this member does not own
	RingMismatch       int64 // fetches and writes by members with another ring
	Writes             int64
	WritesRefused      int64 // because of MaxWrites
	Invalidated        int64 // invalidations received in requests
	SubscribersRefused int64 // because of MaxSubscribers
	SubscribersCut     int64 // because they were too slow or needed an overwritten invalidation
}

// Stats returns a snapshot.
func (s *Service) Stats() ServiceStats {
	return ServiceStats{
		InFlight:     s.inFlight.Load(),
		MaxInFlight:  s.config.MaxInFlight,
		Fetches:      s.fetches.Load(),
		Refused:      s.refused.Load(),
		NotOwner:     s.notOwner.Load(),
		RingMismatch: s.ringMismatch.Load(),

		Writing:            s.writing.Load(),
		MaxWrites:          s.config.MaxWrites,
		Writes:             s.writes.Load(),
		WritesRefused:      s.writesRefused.Load(),
		Invalidated:        s.invalidated.Load(),
		Subscribers:        s.subscribers.Load(),
		MaxSubscribers:     s.config.MaxSubscribers,
		SubscribersRefused: s.subscribersRefused.Load(),
		SubscribersCut:     s.subscribersCut.Load(),
	}
}
