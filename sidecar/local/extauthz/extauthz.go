//go:build !noxds

package extauthz

import (
	"context"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/ringside-cache/ringside/sidecar/internal/httpview"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// Service implements envoy.service.auth.v3.Authorization. Errors are gRPC errors: what they mean for a request is configured in Envoy
// (failure_mode_allow, status_on_error).
type Service struct {
	authv3.UnimplementedAuthorizationServer
	backend *api.Backend
	config  Config
}

// Register adds the service.
func Register(to grpc.ServiceRegistrar, backend *api.Backend, c Config) {
	authv3.RegisterAuthorizationServer(to, &Service{backend: backend, config: c})
}

// Check implements envoy.service.auth.v3.Authorization.
func (s *Service) Check(ctx context.Context, q *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	d, e := s.backend.Dataset(s.config.Dataset)
	if e != nil {
		return nil, e
	}
	key := headerOf(q.GetAttributes().GetRequest().GetHttp(), s.config.Header)
	if kv.CheckKey(key) != nil {
		return denied(d.View), nil // no row can have it
	}
	a, err := api.NewGuarded(d, nil).Get(ctx, key, kv.ReadOptions{}) //guard:check-without-permission-to-read
	switch {
	case err == nil && a.NotFound, kv.KindOf(err) == kv.KindInvalidKey && err != nil:
		return denied(d.View), nil
	case err != nil:
		return nil, s.backend.Error(err)
	}
	ok, err := allowed(d.View, a.Value)
	if err != nil {
		return nil, api.NoHeaders()
	}
	return ok, nil
}

// headerOf returns a header field of the request, which Envoy sends in one of two forms; several lines are joined, as a key that no row
// should have.
func headerOf(r *authv3.AttributeContext_HttpRequest, name string) string {
	if value, ok := r.GetHeaders()[name]; ok {
		return value
	}
	var values []string
	for _, h := range r.GetHeaderMap().GetHeaders() {
		if strings.EqualFold(h.GetKey(), name) {
			values = append(values, h.GetValue()+string(h.GetRawValue()))
		}
	}
	return strings.Join(values, ",")
}

// allowed lets a request pass with the columns of the row as header fields. A field without a column is removed, so that the upstream
// never takes what the client has sent for what the row has.
func allowed(v *httpview.View, row []byte) (*authv3.CheckResponse, error) {
	ok := new(authv3.OkHttpResponse)
	for i := range v.Headers() {
		value, has, err := v.AppendHeader(nil, row, i)
		switch {
		case err != nil:
			return nil, err
		case !has: //guard:client-sends-the-field-of-a-column
			ok.HeadersToRemove = append(ok.HeadersToRemove, v.HeaderName(i))
		default:
			ok.Headers = append(ok.Headers, header(v.HeaderName(i), string(value)))
		}
	}
	return &authv3.CheckResponse{
		Status: &statuspb.Status{Code: int32(codes.OK)}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok},
	}, nil
}

// denied rejects a request with the status 403, and with the body that the dataset has for absent keys.
func denied(v *httpview.View) *authv3.CheckResponse {
	absent := v.Absent()
	no := &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode_Forbidden}, Body: absent.Body}
	if absent.ContentType != "" {
		no.Headers = append(no.Headers, header("Content-Type", absent.ContentType))
	}
	return &authv3.CheckResponse{
		Status:       &statuspb.Status{Code: int32(codes.PermissionDenied), Message: "the dataset has no such key"},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: no},
	}
}

func header(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}
