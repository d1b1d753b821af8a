package client

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ringside-cache/ringside/sidecar/internal/h2/header"
)

// response is a header or a trailer while it is decoded and afterwards.
type response struct {
	limit, size                         int
	status, contentType                 string // :status and content-type
	grpcStatus, grpcMessage, grpcDetail string
	malformed                           bool
	regular                             bool // a regular field was seen
}

func (h *response) reset(limit int) { *h = response{limit: limit} }

// add takes the next field.
func (h *response) add(f hpack.HeaderField) {
	if h.size += int(f.Size()); h.size > h.limit { //guard:header-of-response-without-limit
		return
	}
	if f.IsPseudo() {
		h.malformed = h.malformed || f.Name != ":status" || h.status != "" || h.regular
		h.status = f.Value
		return
	}
	h.regular = true
	switch f.Name {
	case "content-type":
		h.contentType = f.Value
	case "grpc-status":
		h.grpcStatus = f.Value
	case "grpc-message":
		h.grpcMessage = f.Value
	case "grpc-status-details-bin":
		h.grpcDetail = f.Value
	}
}

func (h *response) wrong() bool { return h.malformed || h.size > h.limit }

func (h *response) informational() bool { return len(h.status) == 3 && h.status[0] == '1' }

// header checks a header that no trailer follows at once.
func (h *response) header() error {
	switch {
	case h.status != "200":
		return status.Errorf(httpCode(h.status), "unexpected HTTP status %q", h.status)
	case !strings.HasPrefix(h.contentType, header.ContentTypeGRPC):
		return status.Errorf(codes.Unknown, "unexpected content type %q", h.contentType)
	}
	return nil
}

// only returns the status of a response that is a trailer only; one without a message is not OK for a unary call.
func (h *response) only() error {
	if h.grpcStatus == "" {
		if err := h.header(); err != nil {
			return err
		}
	}
	return h.trailer()
}

// trailer returns the status that a trailer has.
func (h *response) trailer() error {
	code, err := strconv.ParseUint(h.grpcStatus, 10, 8)
	if err != nil {
		return status.Errorf(codes.Internal, "the response has the gRPC status %q", h.grpcStatus)
	}
	if codes.Code(code) == codes.OK {
		return nil
	}
	text, err := url.PathUnescape(h.grpcMessage)
	if err != nil {
		text = h.grpcMessage
	}
	if detailed := h.detailed(); detailed != nil && detailed.GetCode() == int32(code) {
		return status.ErrorProto(detailed)
	}
	return status.Error(codes.Code(code), text)
}

// detailed decodes grpc-status-details-bin; nil if there is none, or an invalid one.
func (h *response) detailed() *spb.Status {
	if h.grpcDetail == "" {
		return nil
	}
	data, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(h.grpcDetail, "="))
	s := new(spb.Status)
	if err != nil || proto.Unmarshal(data, s) != nil {
		return nil
	}
	return s
}

// httpCode is the code of a response without gRPC status (doc/http-grpc-status-mapping.md of grpc).
func httpCode(httpStatus string) codes.Code {
	code, _ := strconv.Atoi(httpStatus) // 0 has no code
	switch code {
	case http.StatusBadRequest:
		return codes.Internal
	case http.StatusUnauthorized:
		return codes.Unauthenticated
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.Unimplemented
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return codes.Unavailable
	}
	return codes.Unknown
}
