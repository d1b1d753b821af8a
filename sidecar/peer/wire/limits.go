package wire

import (
	"errors"
	"fmt"
	"time"

	"github.com/ringside-cache/ringside/origin"
	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Preface begins each connection from member to member, before TLS. No HTTP or TLS connection begins with it. A server
// therefore knows members' connections, which only members may open, and serves all other connections on the same port with a
// server that accepts several protocols.
const Preface = "ringside/1\n"

// Limits of a connection, used by both ends.
const (
	// MaxConns is the default of the number of connections of a member, and separately of those to it.
	MaxConns = 10_000
	// MaxCalls limits the running fetches and writes of one member at another.
	MaxCalls = 4096
	// MaxStreams limits the running requests on a connection: MaxCalls and room for pings, subscriptions and the rest. A
	// ping that waited for a stream would time out.
	MaxStreams = MaxCalls + 64
	// BufferBytes is the size of gRPC's read and write buffers: values are small and connections are many.
	BufferBytes = 4 << 10
	// MaxHeaderBytes limits the header list of a request or a response, error texts included.
	MaxHeaderBytes = 16 << 10
	// IdleTimeout is how long an unused connection stays open at the client. The server's is longer, so that the client
	// closes first.
	IdleTimeout = 2 * time.Minute
)

// Heartbeat is the longest time between two responses of a Subscribe stream.
const Heartbeat = time.Second

// Limits of messages. A server checks each field before it does any work: gRPC has one limit for all requests, which is
// that of the largest write.
const (
	// MaxRequestBytes is the size of the largest write, protobuf overhead included.
	MaxRequestBytes = kv.MaxValueBytes + 8<<10
	// MaxBatchWriteBytes is the size of the largest batch of writes, with what protobuf and the numbers of each change take.
	MaxBatchWriteBytes = kv.MaxBatchWriteBytes + kv.MaxBatchWrites<<8
	// MaxBatchResponseBytes limits the values of one response to FetchBatch, except for a single larger one, and those that
	// the member holds while others arrive. It is well below the size of a response that a Pool accepts.
	MaxBatchResponseBytes = 4 << 20

	// maxDatasetBytes limits the name of a dataset.
	maxDatasetBytes = 128
	// maxETagBytes limits the ETag of a condition, maxIDBytes an idempotency id, maxNodeBytes a node id.
	maxETagBytes, maxIDBytes, maxNodeBytes = 256, 256, 256
	// maxInvalidations limits the invalidations of one message, and maxInvalidateBytes the names and keys in an
	// InvalidateRequest.
	maxInvalidations, maxInvalidateBytes = 1000, 512 << 10
	// MaxPrefixes limits the invalidations of a prefix in one message: each costs the receiver a look at every entry.
	MaxPrefixes = 16
	// MaxMembersPart limits the members of one MembersResponse, those that have changed and those that were removed.
	MaxMembersPart = 256
	// maxFeeds limits the names of live feeds in a message.
	maxFeeds = 1000
	// maxRelayed limits what a member may add to the count of a key.
	maxRelayed = 1 << 20
	// maxDetailBytes limits Answer.Detail, maxVersionBytes the version of a program.
	maxDetailBytes, maxVersionBytes = 64, 256
)

// CheckFetch checks the size of each field.
func CheckFetch(req *peerv1.FetchRequest) error {
	if err := checkFetch(req.GetDataset(), req.GetKey(), req.GetTag(), req.GetMinVersion()); err != nil {
		return &kv.Error{Kind: kv.KindInvalidKey, Err: err}
	}
	return nil
}

func checkFetch(dataset, key, tag string, minVersion int64) error {
	return errors.Join(checkNames(dataset, key), checkLength("tag", tag, maxETagBytes), checkVersion(minVersion))
}

// CheckWrite checks the size of each field. The value comes first: a value that is too large is the likelier mistake.
func CheckWrite(req *peerv1.WriteRequest) error {
	if err := CheckValue(req.GetValue()); err != nil {
		return err
	}
	if err := errors.Join(
		checkNames(req.GetDataset(), req.GetKey()),
		checkLength("ETag", req.GetIfEtag(), maxETagBytes),
		checkLength("idempotency id", req.GetIdempotencyId(), maxIDBytes),
		checkVersion(req.GetIfVersion()),
	); err != nil {
		return &kv.Error{Kind: kv.KindInvalidKey, Err: err}
	}
	return nil
}

// CheckValue checks the size of a value to write.
func CheckValue(value []byte) error {
	if len(value) <= kv.MaxValueBytes {
		return nil
	}
	return &kv.Error{Kind: kv.KindInvalidValue, Err: &origin.ValueError{
		Reason: fmt.Sprintf("the value has %d bytes; at most %d are allowed", len(value), kv.MaxValueBytes),
	}}
}

// CheckExplain checks the size of each field.
func CheckExplain(req *peerv1.ExplainRequest) error {
	if err := checkNames(req.GetDataset(), req.GetKey()); err != nil {
		return &kv.Error{Kind: kv.KindInvalidKey, Err: err}
	}
	return nil
}

// CheckSubscribe checks the size of each field.
func CheckSubscribe(req *peerv1.SubscribeRequest) error {
	return checkText("node id", req.GetNode(), maxNodeBytes)
}

// CheckMembers checks the size of each field. The records are checked by package record.
func CheckMembers(req *peerv1.MembersRequest) error {
	return checkText("node id", req.GetNode(), maxNodeBytes)
}

// checkVersion rejects negative versions. A version that is too large needs no limit: what another party reports of a
// version is a hint; see entries.Bound.
func checkVersion(version int64) error {
	if version < 0 { //guard:negative-version-accepted
		return fmt.Errorf("the version is %d; want at least 0", version)
	}
	return nil
}

// CheckPong checks the size of each field.
func CheckPong(pong *peerv1.PingResponse) error {
	return checkText("node id", pong.GetNode(), maxNodeBytes)
}

// CheckReport checks the size of each field. The state is checked by the package that decodes it.
func CheckReport(r *peerv1.InspectResponse) error {
	return errors.Join(checkText("node id", r.GetNode(), maxNodeBytes), checkText("version", r.GetVersion(), maxVersionBytes))
}

// checkText rejects text that is too long, or could control a terminal or forge lines of a log.
func checkText(what, text string, most int) error {
	if err := checkLength(what, text, most); err != nil {
		return err
	}
	if printable.Text(text) != text {
		return fmt.Errorf("the %s has characters that are not printable", what)
	}
	return nil
}

// Feeds returns the names of live feeds in a message.
func Feeds(names []string) ([]string, error) {
	if len(names) > maxFeeds {
		return nil, fmt.Errorf("%d live feeds in one message; at most %d are allowed", len(names), maxFeeds)
	}
	for _, name := range names {
		if err := checkText("dataset's name", name, maxDatasetBytes); err != nil {
			return nil, err
		}
	}
	return names, nil
}

func checkInvalidation(i *peerv1.Invalidation) error {
	if err := checkVersion(i.GetVersion()); err != nil {
		return err
	}
	if i.GetPrefix() {
		return errors.Join(checkText("dataset's name", i.GetDataset(), maxDatasetBytes),
			checkLength("prefix", i.GetKey(), kv.MaxKeyBytes))
	}
	return checkNames(i.GetDataset(), i.GetKey())
}

func checkNames(dataset, key string) error {
	return errors.Join(checkText("dataset's name", dataset, maxDatasetBytes), kv.CheckEntryKey(key))
}

func checkLength(what, text string, most int) error {
	if len(text) > most {
		return fmt.Errorf("the %s has %d bytes; at most %d are allowed", what, len(text), most)
	}
	return nil
}
