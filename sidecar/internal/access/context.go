package access

import "context"

type authorizationKey struct{}

// WithAuthorization returns a context of a request with that Authorization header, for code that is given a context only.
func WithAuthorization(ctx context.Context, authorization string) context.Context {
	if authorization == "" {
		return ctx
	}
	return context.WithValue(ctx, authorizationKey{}, authorization)
}

// AuthorizationFrom returns the Authorization header of a request, or "".
func AuthorizationFrom(ctx context.Context) string {
	s, _ := ctx.Value(authorizationKey{}).(string)
	return s
}
