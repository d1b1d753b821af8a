package wire

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Limits of encoded messages.
const (
	// smallBytes limits messages without keys, values or lists.
	smallBytes = 4 << 10
	// fetchBytes limits a FetchRequest.
	fetchBytes = smallBytes
	// answerBytes limits one value with its attributes.
	answerBytes = kv.MaxValueBytes + 8<<10
	// batchBytes limits the response to a FetchBatch: its values, one larger one, and the attributes or errors of each key.
	batchBytes = MaxBatchResponseBytes + kv.MaxValueBytes + kv.MaxBatchKeys<<10
	// writtenBytes limits the response to a WriteBatch, which has no values.
	writtenBytes = kv.MaxBatchWrites << 10
	// InspectBytes limits the report of a member.
	InspectBytes = 512 << 10
	// ExplainBytes limits what a member reports of one key.
	ExplainBytes = 16 << 10
	// HistoryBytes limits what a member reports of the last minutes.
	HistoryBytes = 512 << 10
	// MembersBytes limits a part of a list of members.
	MembersBytes = 512 << 10
	// listBytes limits a list of invalidations: the names and keys of an InvalidateRequest, or those of a page of a stream,
	// with live feeds.
	listBytes = maxInvalidateBytes + maxInvalidations*32 + 1<<20
)

// methods has the limits of each method, in bytes. gRPC has one limit for all methods of a server.
var methods = map[string]struct{ request, response int }{
	peerv1.Peer_Fetch_FullMethodName:      {fetchBytes, answerBytes},
	peerv1.Peer_FetchBatch_FullMethodName: {kv.MaxBatchKeys * 2 << 10, batchBytes},
	peerv1.Peer_Write_FullMethodName:      {MaxRequestBytes, answerBytes},
	peerv1.Peer_WriteBatch_FullMethodName: {MaxBatchWriteBytes, writtenBytes},
	peerv1.Peer_Invalidate_FullMethodName: {listBytes, smallBytes},
	peerv1.Peer_Subscribe_FullMethodName:  {smallBytes, listBytes},
	peerv1.Peer_Members_FullMethodName:    {smallBytes, MembersBytes},
	peerv1.Peer_Ping_FullMethodName:       {smallBytes, smallBytes},
	peerv1.Peer_Inspect_FullMethodName:    {smallBytes, InspectBytes},
	peerv1.Peer_Explain_FullMethodName:    {smallBytes, ExplainBytes},
	peerv1.Peer_History_FullMethodName:    {smallBytes, HistoryBytes + smallBytes},
}

// MaxRequest returns the size of the largest request of a method, named as in the path of its HTTP/2 request.
func MaxRequest(method string) int {
	if limits, ok := methods[method]; ok {
		return limits.request
	}
	return MaxRequestBytes
}

// MaxResponse returns the size of the largest response of a method.
func MaxResponse(method string) int { return methods[method].response }

// Codec is the protobuf codec of gRPC with limits: a message of 1 MiB with half a million empty elements would need 50 MiB
// when it is decoded.
type Codec struct{ encoding.CodecV2 }

// NewCodec returns the codec of both ends.
func NewCodec() Codec { return Codec{encoding.GetCodecV2("proto")} }

// Unmarshal implements encoding.CodecV2.
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	if err := checkEncoded(buf.ReadOnlyData(), m); err != nil {
		return err
	}
	return proto.Unmarshal(buf.ReadOnlyData(), m)
}

// checkEncoded limits the encoded message and its elements. The limits of elements are above those that a Service or a Pool
// reports with an error of its own.
func checkEncoded(data []byte, m proto.Message) error {
	switch m.(type) {
	case *peerv1.FetchRequest:
		return checkSize(data, fetchBytes)
	case *peerv1.PingRequest, *peerv1.InspectRequest, *peerv1.SubscribeRequest, *peerv1.MembersRequest, *peerv1.PingResponse, *peerv1.InvalidateResponse:
		return checkSize(data, smallBytes)
	case *peerv1.ExplainRequest, *peerv1.HistoryRequest:
		return checkSize(data, smallBytes)
	case *peerv1.InspectResponse:
		return checkSize(data, InspectBytes)
	case *peerv1.ExplainResponse:
		return checkSize(data, ExplainBytes)
	case *peerv1.HistoryResponse:
		return checkSize(data, HistoryBytes+smallBytes)
	case *peerv1.MembersResponse:
		return errors.Join(checkSize(data, MembersBytes), checkElements(data, 2*MaxMembersPart+2))
	case *peerv1.FetchBatchRequest, *peerv1.FetchBatchResponse:
		return checkElements(data, 2*kv.MaxBatchKeys)
	case *peerv1.WriteBatchRequest, *peerv1.WriteBatchResponse:
		return checkElements(data, kv.MaxBatchWrites+2)
	case *peerv1.InvalidateRequest, *peerv1.SubscribeResponse:
		return checkElements(data, 2*maxInvalidations+maxFeeds)
	}
	return nil
}

func checkSize(data []byte, most int) error {
	if len(data) > most { //guard:small-message-has-any-size
		return fmt.Errorf("the message has %d bytes; at most %d are allowed", len(data), most)
	}
	return nil
}

var errManyElements = errors.New("the message has too many elements")

// checkElements limits the fields of a message, which are mostly elements of its lists.
func checkElements(data []byte, most int) error {
	for n := 0; len(data) > 0; n++ {
		length := fieldLength(data)
		switch {
		case length < 0:
			return protowire.ParseError(length)
		case n == most: //guard:elements-of-message-without-limit
			return errManyElements
		}
		data = data[length:]
	}
	return nil
}

// fieldLength is negative for a malformed field.
func fieldLength(data []byte) int {
	_, _, length := protowire.ConsumeField(data)
	return length
}
