package kv

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// Stats has the counters of one dataset since its start. The edges export them.
type Stats struct {
	// Reads of applications, by result. Each read is counted once.
	Hit, LocalHit, Negative     Counter
	PeerHit, Load, Stale, Error atomic.Int64
	DataError                   atomic.Int64

	// BatchDropped counts keys of batches, of applications and of other members, without a value because it did not fit.
	BatchDropped atomic.Int64

	Served           atomic.Int64 // requests answered to other members
	NotOwner         atomic.Int64 // of these, for keys that this member does not own
	LoadsBegun       atomic.Int64 // keys requested from the origin
	LoadErrors       atomic.Int64 // of these, failed, without data errors
	PeerFetches      atomic.Int64 // keys requested from other members
	PeerFetchErrors  atomic.Int64 // of these, without an answer
	Successor        atomic.Int64 // keys requested from the successor because the owner could not be reached
	FailoverLoads    atomic.Int64 // keys loaded here because neither owner nor successor could be reached
	Refused          atomic.Int64 // reads refused because a limit was reached
	LoadsDiscarded   atomic.Int64 // values not stored because the key was invalidated after their load began
	HandoverRequests atomic.Int64 // keys requested from the previous owner before a load
	Handovers        atomic.Int64 // of these, answered
	Restored         atomic.Int64 // entries of the previous process
	RestoredBytes    atomic.Int64 // of these
	Refreshes        atomic.Int64 // early and background refreshes that were started

	// Writes of applications, by result. Each write is counted once.
	Written, Conflicts, WritesRefused, WritesUnknown, WriteErrors atomic.Int64

	// Superseded counts observations that were not written because a newer one of their key was.
	Superseded atomic.Int64

	WritesServed  atomic.Int64 // made for other members
	Invalidations atomic.Int64 // applied: of writes through any member, of feeds and by request
	CopiesExpired atomic.Int64 // times that the copies of a member were expired because its invalidations may have been missed
	BoundsEvicted atomic.Int64 // read bounds evicted before their lifetime ended because there were too many
	FeedGaps      atomic.Int64 // times that the change feed broke

	// DataErrors counts keys requested from the origin whose rows cannot be a value, by the cause.
	DataErrors [origin.DataCauses]atomic.Int64
	// LastDataError is the latest of them; nil before the first.
	LastDataError atomic.Pointer[KeyError]
	// Warm-up.
	WarmKeys     atomic.Int64 // keys of the last list that this member owns
	WarmLoaded   atomic.Int64 // keys loaded by the warm-up
	WarmPasses   atomic.Int64 // lists of all keys that were loaded to their end
	WarmFailures atomic.Int64 // lists that failed or were not loaded to their end
	WarmOmitted  atomic.Int64 // keys of the last list that were not loaded because there was no memory for them

	// Comparisons of cached entries with the database.
	Verified       [Verdicts]atomic.Int64    // entries, by outcome
	VerifyQueries  atomic.Int64              // statements for that, which Queries does not count
	VerifySkipped  [VerifySkips]atomic.Int64 // comparisons that were due and did not take place, by reason
	VerifyWorstAge Peak                      // of entries that reads got as fresh, and that differed from the database

	// LastPeerFetchError is the error of the latest peer fetch without an answer; nil before the first.
	LastPeerFetchError atomic.Pointer[error]

	LoadTime      Distribution // of Origin.Load, of one key or many
	PeerFetchTime Distribution // of a request to another member, for one key or many
	WriteTime     Distribution // of Origin.Write
	// ReadTime is the time of reads of applications, from the look at memory to the answer, by ReadResult. Of hits one in SampledHits
	// is measured.
	ReadTime [ReadResults]Distribution
	// AnswerAge is the age of the entries with which reads of applications were answered; hits likewise.
	AnswerAge Distribution

	// What the batching behind Origin made of the loads. The origin counts these.
	Queries     atomic.Int64 // to the origin; concurrent loads share one
	QueryErrors atomic.Int64 // of these, failed
	Keys        atomic.Int64 // requested in Queries
}

// KeyError is an error of a key.
type KeyError struct {
	Key string
	Err error
}

// CountLoaded counts the error of a key that was requested from the origin, if it is one.
func (s *Stats) CountLoaded(key string, err error) {
	switch cause := origin.CauseOf(err); {
	case cause != 0:
		s.DataErrors[min(cause, origin.UnknownCause)].Add(1)
		s.LastDataError.Store(&KeyError{key, err})
	case err != nil && !errors.Is(err, origin.ErrNotFound) && !errors.Is(err, origin.ErrInvalidKey):
		s.LoadErrors.Add(1)
	}
}

// AllDataErrors is the sum of DataErrors.
func (s *Stats) AllDataErrors() (n int64) {
	for i := range s.DataErrors {
		n += s.DataErrors[i].Load()
	}
	return n
}

// CountHit counts a read that a fresh entry answered at once.
func (s *Stats) CountHit(notFound, local bool) {
	counter := &s.Hit
	switch {
	case notFound:
		counter = &s.Negative
	case local:
		counter = &s.LocalHit
	}
	counter.Add(1)
}

// CountMiss counts a read that was not answered by a fresh entry at once, and took so long. Each read is counted once. It returns as
// what it has counted it.
func (s *Stats) CountMiss(a Answer, err error, took time.Duration) ReadResult {
	result := resultOf(a, err)
	s.ReadTime[result].Observe(took)
	if err == nil {
		s.AnswerAge.Observe(a.Age)
	}
	switch result {
	case ResultDataError:
		s.DataError.Add(1)
	case ResultError:
		s.Error.Add(1)
		if KindOf(err) == KindOverloaded {
			s.Refused.Add(1)
		}
	case ResultStale:
		s.Stale.Add(1)
	case ResultNegative:
		s.Negative.Add(1)
	case ResultHit:
		s.Hit.Add(1)
	case ResultLocalHit:
		s.LocalHit.Add(1)
	case ResultPeerHit:
		s.PeerHit.Add(1)
	default:
		s.Load.Add(1)
	}
	return result
}

// Reads is the number of reads of all kinds, those of other members included.
func (s *Stats) Reads() int64 {
	return s.Hit.Load() + s.LocalHit.Load() + s.Negative.Load() + s.DataError.Load() + s.Stale.Load() +
		s.PeerHit.Load() + s.Load.Load() + s.Error.Load() + s.Served.Load()
}

// CountWrite counts a write of an application.
func (s *Stats) CountWrite(err error) {
	if err == nil {
		s.Written.Add(1)
		return
	}
	switch KindOf(err) {
	case KindConflict:
		s.Conflicts.Add(1)
	case KindUnknown:
		s.WritesUnknown.Add(1)
	case KindInvalidKey, KindInvalidValue, KindIDReused, KindReadOnly, KindNoAppend: // the caller's fault
		s.WritesRefused.Add(1)
	default:
		s.WriteErrors.Add(1)
	}
}
