package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/ringside-cache/ringside/deploy/inject/cert"
	"go.uber.org/zap"
)

// members are the options of the certificate that sidecars share.
type members struct {
	namespaces              []string // empty: none
	secret, authority, name string
}

func (m *members) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVar(&m.namespaces, "members-namespace", nil,
		"namespace with sidecars, in whose Secret a certificate that they share is kept; may be repeated")
	flags.StringVar(&m.secret, "members-secret", "ringside-tls", "Secret in each --members-namespace")
	flags.StringVar(&m.authority, "members-authority", "ringside-members-ca",
		"Secret in --namespace for the authority of these certificates and its key")
	flags.StringVar(&m.name, "members-name", "ringside", "DNS name in these certificates, also followed by a dot and the namespace (peer_tls.name)")
}

// keepMembers returns the function that maintains the certificates of sidecars in the background.
func (o options) keepMembers(log *zap.Logger) (func(context.Context), error) {
	if len(o.members.namespaces) == 0 {
		return func(context.Context) {}, nil
	}
	if o.namespace == "" {
		return nil, errors.New("--members-namespace requires --namespace, where the authority is kept")
	}
	_, client, err := o.connect()
	if err != nil {
		return nil, err
	}
	m := &cert.Members{
		Authority: client.Secrets(o.namespace), AuthoritySecret: o.members.authority, Namespaces: map[string]cert.Secrets{},
		Secret: o.members.secret, Name: o.members.name, Log: log,
	}
	for _, namespace := range o.members.namespaces {
		m.Namespaces[namespace] = client.Secrets(namespace)
	}
	return m.Run, nil
}
