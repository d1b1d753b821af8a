package grpcapi

import (
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

// The numbers of the fields in the requests in cache.proto and groupcache.proto.
const (
	numDataset, numKey, numOnlyIfCached, numMinVersion = 1, 2, 4, 5 // GetRequest; groupcachepb.GetRequest has the first two
	numKeys                                            = 2          // BatchGetRequest
)

// getRequest is a GetRequest without the fields for which memory has no answer. Its strings lie in the message.
type getRequest struct {
	dataset, key string
	options      kv.ReadOptions
}

// parseGet parses a GetRequest that has each field at most once, in any order, and none above last.
func parseGet(b []byte, last protowire.Number) (q getRequest, ok bool) {
	for seen := uint(0); len(b) > 0; {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 || number > last || seen>>number&1 != 0 { //guard:fast-repeated-field
			return q, false
		}
		seen |= 1 << number
		b = b[n:]
		switch {
		case number == numDataset && kind == protowire.BytesType:
			q.dataset, n = consumeText(b)
		case number == numKey && kind == protowire.BytesType:
			q.key, n = consumeText(b)
		case number == numOnlyIfCached && kind == protowire.VarintType:
			_, n = protowire.ConsumeVarint(b) // memory is all that is asked here
		case number == numMinVersion && kind == protowire.VarintType:
			var v uint64
			v, n = protowire.ConsumeVarint(b)
			q.options.MinVersion = int64(v)
		default: // also no_cache and max_stale
			return q, false
		}
		if n < 0 {
			return q, false
		}
		b = b[n:]
	}
	return q, q.options.MinVersion >= 0 //guard:fast-negative-version
}

// batchRequest is a BatchGetRequest of few keys. Its strings lie in the message.
type batchRequest struct {
	dataset string
	keys    [maxFastKeys]string
	n       int // of the keys
}

// parse reports false if the message is not the usual one: the dataset once, and 1 to maxFastKeys keys.
func (q *batchRequest) parse(b []byte) bool {
	for named := false; len(b) > 0; {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 || kind != protowire.BytesType {
			return false
		}
		text, m := consumeText(b[n:])
		switch {
		case m < 0:
			return false
		case number == numDataset && !named:
			q.dataset, named = text, true
		case number == numKeys && q.n < maxFastKeys:
			q.keys[q.n] = text
			q.n++
		default:
			return false
		}
		b = b[n+m:]
	}
	return q.n > 0
}

// consumeText returns a string that lies in b, and its length with its prefix; the length is negative if the string is cut
// off or not UTF-8.
func consumeText(b []byte) (string, int) {
	text, n := protowire.ConsumeBytes(b)
	if n >= 0 && !utf8.Valid(text) { //guard:fast-invalid-utf8
		n = -1
	}
	return unsafe.String(unsafe.SliceData(text), len(text)), n
}
