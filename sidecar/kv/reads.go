package kv

import "time"

// ReadResult is where the answer to a read of an application came from, or that there was none.
type ReadResult uint8

// The results.
const (
	ResultHit ReadResult = iota
	ResultLocalHit
	ResultPeerHit
	ResultLoad
	ResultStale
	ResultNegative
	ResultError
	ResultDataError
	readResults
)

// ReadResults is the number of results.
const ReadResults = int(readResults)

func (r ReadResult) String() string {
	return [...]string{"hit", "local_hit", "peer_hit", "load", "stale", "negative", "error", "data_error"}[r]
}

// resultOf is the result of a read that a fresh entry did not answer at once.
func resultOf(a Answer, err error) ReadResult {
	switch {
	case err != nil && KindOf(err) == KindDataError:
		return ResultDataError
	case err != nil:
		return ResultError
	case a.Stale:
		return ResultStale
	case a.NotFound:
		return ResultNegative
	case a.Source == SourceHit:
		return ResultHit
	case a.Source == SourceLocalHit:
		return ResultLocalHit
	case a.Source == SourcePeerHit:
		return ResultPeerHit
	}
	return ResultLoad
}

// SampledHits is how many hits one measured hit stands for: reading the clock once more, and counting, would cost each hit a
// fifth of its time.
const SampledHits = 64

// Samples reports whether to measure the read that began at a time on a monotonic clock. The clock has counted some nanoseconds
// since the read before, and the multiplication spreads the bits of clocks that count in larger steps (Knuth, The Art of
// Computer Programming, 6.4: multiplicative hashing).
func Samples(now int64) bool {
	return uint64(now)*0x9E3779B97F4A7C15>>58 == 0 // 6 bits: one of 64
}

// ObserveHit measures a hit for which Samples is true.
func (s *Stats) ObserveHit(notFound, local bool, took, age time.Duration) {
	result := ResultHit
	switch {
	case notFound:
		result = ResultNegative
	case local:
		result = ResultLocalHit
	}
	s.ReadTime[result].ObserveN(took, SampledHits)
	s.AnswerAge.ObserveN(age, SampledHits)
}
