package otlpmetrics

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"

	metricsv1 "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

// Path is where HTTP clients send metrics (OTLP/HTTP Request in the specification of OTLP).
const Path = "/v1/metrics"

// ackHeader is in each response to points that were taken: committed or accepted.
const ackHeader = "Ringside-Ack"

const typeProtobuf, typeJSON = "application/x-protobuf", "application/json"

func (r *Receiver) ack() string {
	if r.config.Accepted {
		return "accepted"
	}
	return "committed"
}

// PostOnly reports whether a path has operations with POST only.
func (r *Receiver) PostOnly(path string) bool { return path == Path }

// ServeHTTP implements http.Handler. Its caller has checked the source of the request.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	contentType, _, _ := mime.ParseMediaType(q.Header.Get("Content-Type"))
	response, err := r.exportHTTP(q, contentType)
	if contentType != typeJSON {
		contentType = typeProtobuf
	}
	w.Header().Set("Content-Type", contentType)
	if err == nil {
		w.Header().Set(ackHeader, r.ack())
		_, _ = w.Write(encode(response, contentType)) // the server sends it
		return
	}
	e := r.errorOf(err)
	if seconds := e.RetrySeconds(); seconds > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	if e.Challenge != "" {
		w.Header().Set("WWW-Authenticate", e.Challenge)
	}
	w.WriteHeader(e.Type.Status)
	_, _ = w.Write(encode(statusOf(e), contentType)) // OTLP/HTTP Response: a google.rpc.Status
}

func (r *Receiver) exportHTTP(q *http.Request, contentType string) (*metricsv1.ExportMetricsServiceResponse, error) {
	switch {
	case q.URL.Path != Path:
		return nil, apierror.New(apierror.NoSuchRoute, "this listener takes metrics with POST "+Path)
	case q.Method != http.MethodPost:
		return nil, apierror.New(apierror.WrongMethod, "metrics are sent with POST")
	case contentType != typeProtobuf && contentType != typeJSON:
		return nil, apierror.New(apierror.UnsupportedMediaType, "want Content-Type: "+typeProtobuf+" or "+typeJSON)
	}
	memory := &loan{receiver: r}
	defer memory.close()
	message, err := r.read(q.Body, q.Header.Get("Content-Encoding"), memory)
	if err != nil {
		return nil, err
	}
	if contentType == typeJSON {
		if message, err = fromJSON(message, memory); err != nil {
			return nil, err
		}
	}
	o, err := r.export(q.Context(), message, memory)
	return o.response(), err
}

// response is partial if points were rejected.
func (o *outcome) response() *metricsv1.ExportMetricsServiceResponse {
	response := &metricsv1.ExportMetricsServiceResponse{}
	if o.rejected > 0 {
		response.PartialSuccess = &metricsv1.ExportMetricsPartialSuccess{
			RejectedDataPoints: o.rejected, ErrorMessage: o.reasons.String()}
	}
	return response
}

func (r *Receiver) errorOf(err error) *apierror.Error {
	return apierror.From(err, r.config.Errors.Report)
}

func encode(m proto.Message, contentType string) []byte {
	marshal := proto.Marshal
	if contentType == typeJSON {
		marshal = protojson.Marshal
	}
	b, err := marshal(m)
	if err != nil {
		return nil // a text that is not UTF-8: the status says what is important
	}
	return b
}

// read reads a request, whose compression is that of Content-Encoding or grpc-encoding.
func (r *Receiver) read(from io.Reader, coding string, memory *loan) ([]byte, error) {
	switch coding {
	case "", "identity":
	case "gzip":
		zipped, err := gzip.NewReader(from)
		if err != nil {
			return nil, arrivalError(err)
		}
		from = zipped
	default:
		return nil, &apierror.Error{Type: apierror.UnsupportedMediaType, Detail: "compress with gzip, or not at all"}
	}
	return r.readAll(from, memory)
}

const readStep = 32 << 10

// readAll takes the memory of a request before it reads it: what a client announces costs nothing, and what a few bytes are
// unpacked to is limited.
func (r *Receiver) readAll(from io.Reader, memory *loan) ([]byte, error) {
	var b []byte
	for most := r.MaxRequest(); ; {
		if len(b) == cap(b) {
			step := min(max(readStep, len(b)), most+1-len(b)) // the buffer doubles
			if err := memory.grow(int64(requestCost * step)); err != nil {
				return nil, err
			}
			b = append(make([]byte, 0, len(b)+step), b...)
		}
		n, err := from.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case len(b) > most: //guard:request-is-unpacked-without-limit
			return nil, apierror.New(apierror.BodyTooLarge, fmt.Sprintf("the request has more than %d bytes when it is unpacked; "+
				"let the exporter send fewer points at a time, or raise otlp.memory and client_memory", most))
		case errors.Is(err, io.EOF):
			return b, nil
		case err != nil:
			return nil, arrivalError(err)
		}
	}
}

// arrivalError is the error of a request that is not complete or not compressed as it says. The server responds to one that does not
// arrive.
func arrivalError(err error) error {
	return apierror.New(apierror.MalformedRequest, fmt.Sprintf("the request cannot be read: %v", err))
}

// The memory that the generated types take for each object, and for each element of a list, of JSON.
const objectCost, elementCost = 300, 32

// fromJSON turns a request in JSON into its protobuf form.
func fromJSON(text []byte, memory *loan) ([]byte, error) {
	cost := objectCost*bytes.Count(text, []byte("{")) + elementCost*bytes.Count(text, []byte(","))
	if err := memory.grow(int64(cost)); err != nil { //guard:empty-objects-of-json-use-up-the-memory
		return nil, err
	}
	m := &metricsv1.ExportMetricsServiceRequest{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, m); err != nil {
		return nil, apierror.New(apierror.MalformedRequest, fmt.Sprintf("the request is not OTLP in JSON: %v", err))
	}
	message, err := proto.Marshal(m)
	if err != nil {
		return nil, apierror.New(apierror.MalformedRequest, fmt.Sprintf("the request is not OTLP in JSON: %v", err))
	}
	return message, nil
}

// statusOf returns an error as OTLP has it.
func statusOf(e *apierror.Error) *status.Status {
	s := e.GRPCStatus().Proto()
	switch {
	case s.GetCode() != int32(codes.OK):
	case e.Type.Name == apierror.BodyTooLarge.Name:
		s.Code = int32(codes.ResourceExhausted) // without RetryInfo: not to be sent again
	case e.Type.Name == apierror.NoSuchRoute.Name, e.Type.Name == apierror.UnsupportedMediaType.Name:
		s.Code = int32(codes.Unimplemented)
	default:
		s.Code = int32(codes.InvalidArgument)
	}
	return s
}
