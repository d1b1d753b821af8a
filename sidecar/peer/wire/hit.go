package wire

import (
	"math"
	"time"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

// The numbers of the fields of FetchRequest and FetchResponse.
const (
	reqDataset, reqKey, reqRingID, reqNoCache, reqMemoryOnly     = 1, 2, 3, 4, 5
	reqMinVersion, reqMaxAge, reqTag, reqMaxBytes, reqDataErrors = 6, 7, 8, 9, 10
	reqRelay, reqRelayed, reqZone                                = 11, 12, 13

	respValue, respAbsent, respVersion, respAge, respFresh, respFromMemory, respNotOwner = 1, 2, 3, 4, 5, 6, 7
	respRingID, respStale, respDetail, respTook, respContent                             = 8, 9, 10, 11, 13
	respHotRate, respRelayed, respEntryOf                                                = 15, 16, 17
)

// Fetch is a FetchRequest. The strings of its query lie in the message.
type Fetch struct {
	kv.Query
	RingID   uint64
	MaxBytes int64 // 0: no limit
}

// GetDataset, GetKey and GetRingId are those of a FetchRequest.
func (f *Fetch) GetDataset() string { return f.Dataset }
func (f *Fetch) GetKey() string     { return f.Key }
func (f *Fetch) GetRingId() uint64  { return f.RingID } //nolint:revive // as protobuf names it

// ParseFetch parses a FetchRequest that has each field at most once, in any order, and passes CheckFetch. It reports false for
// anything else, which protobuf then decodes, or rejects with an error.
func ParseFetch(b []byte) (f Fetch, ok bool) {
	for seen := uint(0); len(b) > 0; {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 || number > reqZone || seen>>number&1 != 0 { //guard:fast-fetch-takes-first-of-two-fields
			return f, false
		}
		seen |= 1 << number
		m := f.parseField(number, kind, b[n:])
		if m < 0 {
			return f, false
		}
		b = b[n+m:]
	}
	f.Relay = f.Relay && !f.Zone
	f.MemoryOnly = f.MemoryOnly && !f.Relay && !f.Zone
	return f, f.MinVersion >= 0 && f.MaxAge >= 0 && f.MaxBytes >= 0 && checkFetch(f.Dataset, f.Key, f.Tag, f.MinVersion) == nil //guard:fast-fetch-is-not-checked
}

// parseField returns the length of the field at the begin of b, or a negative number.
func (f *Fetch) parseField(number protowire.Number, kind protowire.Type, b []byte) (n int) {
	var v uint64
	switch {
	case kind == protowire.BytesType && number == reqDataset:
		f.Dataset, n = consumeText(b)
	case kind == protowire.BytesType && number == reqKey:
		f.Key, n = consumeText(b)
	case kind == protowire.BytesType && number == reqTag:
		f.Tag, n = consumeText(b)
	case kind == protowire.Fixed64Type && number == reqRingID:
		f.RingID, n = protowire.ConsumeFixed64(b)
	case kind == protowire.VarintType:
		v, n = protowire.ConsumeVarint(b)
		n = f.setInt(number, v, n)
	default:
		return -1
	}
	return n
}

// setInt sets the field that an integer encodes, and returns n, or a negative number if there is none.
func (f *Fetch) setInt(number protowire.Number, v uint64, n int) int {
	switch number {
	case reqNoCache:
		f.NoCache = v != 0
	case reqMemoryOnly:
		f.MemoryOnly = v != 0
	case reqMinVersion:
		f.MinVersion = int64(v)
	case reqMaxAge:
		f.MaxAge = time.Duration(v)
	case reqMaxBytes:
		f.MaxBytes = int64(v)
	case reqRelay:
		f.Relay = v != 0
	case reqZone:
		f.Zone = v != 0
	case reqRelayed:
		f.Relayed = min(uint32(v), maxRelayed)
	case reqDataErrors: // an entry in memory with one is answered elsewhere
	default:
		return -1
	}
	return n
}

// consumeText returns a string that lies in b, and its length with its prefix; the length is negative if the string is cut
// off or not UTF-8.
func consumeText(b []byte) (string, int) {
	text, n := protowire.ConsumeBytes(b)
	if n >= 0 && !utf8.Valid(text) { //guard:fast-fetch-accepts-invalid-utf8
		n = -1
	}
	return unsafe.String(unsafe.SliceData(text), len(text)), n
}

// HitBytes is the most that the fields of a response add to its value.
const HitBytes = 128 + maxDetailBytes + maxNodeBytes

// AppendHit appends the FetchResponse of an answer without a data error, as proto.Marshal encodes it. It reports false for a
// detail or an entryOf that is too long or not UTF-8.
func AppendHit(dst []byte, a *kv.Answer, ringID uint64, owns bool, entryOf string) ([]byte, bool) {
	if len(a.Detail) > maxDetailBytes || !utf8.ValidString(a.Detail) || len(entryOf) > maxNodeBytes || !utf8.ValidString(entryOf) {
		return dst, false
	}
	if len(a.Value) > 0 {
		dst = protowire.AppendBytes(protowire.AppendTag(dst, respValue, protowire.BytesType), a.Value)
	}
	dst = appendBool(dst, respAbsent, a.NotFound)
	dst = appendInt(dst, respVersion, a.Version)
	dst = appendInt(dst, respAge, int64(a.Age))
	dst = appendInt(dst, respFresh, int64(a.Fresh))
	dst = appendBool(dst, respFromMemory, a.Source != kv.SourceLoad)
	dst = appendBool(dst, respNotOwner, !owns)
	if ringID != 0 {
		dst = protowire.AppendFixed64(protowire.AppendTag(dst, respRingID, protowire.Fixed64Type), ringID)
	}
	dst = appendBool(dst, respStale, a.Stale)
	if a.Detail != "" {
		dst = protowire.AppendString(protowire.AppendTag(dst, respDetail, protowire.BytesType), a.Detail)
	}
	dst = appendInt(dst, respTook, int64(a.Took))
	dst = appendInt(dst, respContent, int64(a.Content))
	dst = appendInt(dst, respHotRate, int64(a.HotRate))
	dst = appendBool(dst, respRelayed, a.Relayed)
	if entryOf != "" {
		dst = protowire.AppendString(protowire.AppendTag(dst, respEntryOf, protowire.BytesType), entryOf)
	}
	return dst, true
}

func appendBool(dst []byte, number protowire.Number, v bool) []byte {
	return appendInt(dst, number, int64(protowire.EncodeBool(v)))
}

func appendInt(dst []byte, number protowire.Number, v int64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, number, protowire.VarintType), uint64(v))
}

// MaxValue returns how large a value may be so that its response has at most limit bytes and the caller accepts it.
func (f *Fetch) MaxValue(limit int) int {
	most := int64(limit - HitBytes)
	if f.MaxBytes > 0 {
		most = min(most, f.MaxBytes) //guard:fast-value-exceeds-callers-memory
	}
	return int(max(min(most, math.MaxInt32), -1))
}
