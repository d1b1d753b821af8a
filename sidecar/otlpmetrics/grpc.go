package otlpmetrics

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	metricsv1 "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/protobuf/proto"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

// prefixBytes come before each message of gRPC: whether it is compressed, and its size.
const prefixBytes = 5

// ServeGRPC answers a call over HTTP/2: Export of MetricsService is unary, so that it is one request and one response with a trailer
// (gRPC over HTTP2, in the documentation of gRPC). A server of grpc-go would unpack and decode a request before anybody could take
// the memory for it.
func (r *Receiver) ServeGRPC(w http.ResponseWriter, q *http.Request) {
	if !strings.HasPrefix(q.Header.Get("Content-Type"), "application/grpc") {
		w.WriteHeader(http.StatusUnsupportedMediaType) // OTLP/HTTP clients speak HTTP/1.1 without TLS
		return
	}
	response, err := r.exportGRPC(q)
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	h["Trailer"] = []string{"Grpc-Status", "Grpc-Message", "Grpc-Status-Details-Bin"}
	if err != nil {
		w.WriteHeader(http.StatusOK)
		r.setStatus(h, r.errorOf(err))
		return
	}
	h.Set(ackHeader, r.ack())
	message := encode(response, typeProtobuf)
	_, _ = w.Write(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)) // fails only if the client has gone
	h.Set("Grpc-Status", "0")
}

func (r *Receiver) exportGRPC(q *http.Request) (*metricsv1.ExportMetricsServiceResponse, error) {
	if q.URL.Path != metricsv1.MetricsService_Export_FullMethodName {
		return nil, apierror.New(apierror.NoSuchRoute, "this listener has "+metricsv1.MetricsService_Export_FullMethodName+" only")
	}
	memory := &loan{receiver: r}
	defer memory.close()
	framed, err := r.readAll(q.Body, memory)
	switch {
	case err != nil:
		return nil, err
	case len(framed) < prefixBytes, int64(binary.BigEndian.Uint32(framed[1:])) != int64(len(framed)-prefixBytes), framed[0] > 1:
		return nil, apierror.New(apierror.MalformedRequest, "the call has not exactly one message")
	}
	message := framed[prefixBytes:]
	if framed[0] == 1 {
		coding := q.Header.Get("Grpc-Encoding")
		if coding == "" || coding == "identity" {
			return nil, apierror.New(apierror.MalformedRequest, "the message is compressed, but grpc-encoding does not say how")
		}
		if message, err = r.read(io.NopCloser(bytes.NewReader(message)), coding, memory); err != nil {
			return nil, err
		}
	}
	o, err := r.export(q.Context(), message, memory)
	return o.response(), err
}

// setStatus sets the trailer of a call that has failed.
func (r *Receiver) setStatus(h http.Header, e *apierror.Error) {
	s := statusOf(e)
	h.Set("Grpc-Status", strconv.Itoa(int(s.GetCode())))
	h.Set("Grpc-Message", percentEncoded(s.GetMessage()))
	if details, err := proto.Marshal(s); err == nil {
		h.Set("Grpc-Status-Details-Bin", base64.RawStdEncoding.EncodeToString(details))
	}
}

func percentEncoded(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
