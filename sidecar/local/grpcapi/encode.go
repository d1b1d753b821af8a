package grpcapi

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// The numbers of the fields of the responses in cache.proto and groupcache.proto. All are below 16: a tag is one byte.
const (
	numResults = 1 // BatchGetResponse

	numResultKey, numFound = 1, 2 // BatchGetResult

	numValue, numMeta = 1, 2 // GetResponse; groupcachepb.GetResponse has the first

	numVersion, numAge, numTimeLeft, numETag, numSource, numOwner, numContentType = 1, 2, 3, 4, 5, 7, 8 // Meta

	numSeconds, numNanos = 1, 2 // google.protobuf.Duration
)

// The functions below encode fresh answers as proto.Marshal does: fields in the order of their numbers, without those that
// are zero.

func sizeBatchResult(key string, a *kv.Answer, mediaType string) int {
	return sizeBytes(key) + sizeMessage(sizeGetResponse(a, mediaType))
}

func appendBatchResult(dst []byte, key string, a *kv.Answer, mediaType string) []byte {
	dst = appendHeader(dst, numResults, sizeBatchResult(key, a, mediaType))
	dst = appendBytes(dst, numResultKey, key)
	dst = appendHeader(dst, numFound, sizeGetResponse(a, mediaType))
	return appendGetResponse(dst, a, mediaType)
}

func sizeGetResponse(a *kv.Answer, mediaType string) int {
	return sizeBytes(a.Value) + sizeMessage(sizeMeta(a, mediaType))
}

func appendGetResponse(dst []byte, a *kv.Answer, mediaType string) []byte {
	dst = appendBytes(dst, numValue, a.Value)
	dst = appendHeader(dst, numMeta, sizeMeta(a, mediaType))
	dst = appendInt(dst, numVersion, a.Version)
	dst = appendDuration(dst, numAge, a.Age)
	dst = appendDuration(dst, numTimeLeft, api.TimeLeft(a))
	dst = appendBytes(dst, numETag, a.ETag)
	dst = appendInt(dst, numSource, int64(sources[a.Source]))
	dst = appendBytes(dst, numOwner, a.Owner)
	return appendBytes(dst, numContentType, mediaType)
}

func sizeMeta(a *kv.Answer, mediaType string) int {
	return sizeInt(a.Version) + sizeMessage(sizeDuration(a.Age)) + sizeMessage(sizeDuration(api.TimeLeft(a))) +
		sizeBytes(a.ETag) + sizeInt(int64(sources[a.Source])) + sizeBytes(a.Owner) + sizeBytes(mediaType)
}

func sizeDuration(d time.Duration) int {
	return sizeInt(int64(d/time.Second)) + sizeInt(int64(d%time.Second))
}

func appendDuration(dst []byte, number protowire.Number, d time.Duration) []byte {
	dst = appendHeader(dst, number, sizeDuration(d))
	dst = appendInt(dst, numSeconds, int64(d/time.Second))
	return appendInt(dst, numNanos, int64(d%time.Second))
}

// sizeMessage returns the size of a field that is a message of n bytes, which is never left out.
func sizeMessage(n int) int { return 1 + protowire.SizeBytes(n) }

func appendHeader(dst []byte, number protowire.Number, n int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, number, protowire.BytesType), uint64(n))
}

func sizeBytes[T string | []byte](b T) int {
	if len(b) == 0 {
		return 0
	}
	return sizeMessage(len(b))
}

func appendBytes[T string | []byte](dst []byte, number protowire.Number, b T) []byte {
	if len(b) == 0 {
		return dst
	}
	return append(appendHeader(dst, number, len(b)), b...)
}

func sizeInt(v int64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(uint64(v))
}

func appendInt(dst []byte, number protowire.Number, v int64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, number, protowire.VarintType), uint64(v))
}
