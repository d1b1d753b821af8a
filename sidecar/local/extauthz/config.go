// Package extauthz answers the checks of Envoy's filter ext_authz over gRPC (envoy.service.auth.v3.Authorization) from a dataset: a
// request is allowed if the dataset has the key in one of its header fields.
package extauthz

// Config says where decisions come from.
type Config struct {
	// Dataset is the name of a dataset, and Header the header field of a request that has the key: a name in lower case, or :path,
	// :method or :authority.
	Dataset, Header string
}
