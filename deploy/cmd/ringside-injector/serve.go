package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	admissionregistration "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	core "k8s.io/client-go/kubernetes/typed/core/v1"
	eventsclient "k8s.io/client-go/kubernetes/typed/events/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ringside-cache/ringside/deploy/inject"
	"github.com/ringside-cache/ringside/deploy/inject/cert"
	"github.com/ringside-cache/ringside/deploy/inject/event"
	"github.com/ringside-cache/ringside/deploy/inject/webhook"
	"github.com/ringside-cache/ringside/sidecar/logging"
	"go.uber.org/zap"
)

// options are the flags of serve.
type options struct {
	template, listen, metrics  string
	certDir                    string // empty: generate a certificate
	publishCA                  bool   // of certDir
	publishDelay               time.Duration
	kubeconfig                 string // empty: in-cluster configuration
	namespace, secret, webhook string
	service                    string // in namespace
	hosts                      []string
	clientCA                   string   // empty: any client may send reviews
	clientNames                []string // empty: any certificate of clientCA
	members                    members
	events                     bool
	drain                      time.Duration
	logFormat, logLevel        string
}

func newServe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the admission webhook",
		Long: `Serve the admission webhook until SIGTERM.

Without --cert-dir it generates a certificate, keeps it in a Secret that all replicas share, and writes it into the webhook
configuration, so that the API server trusts it. With --cert-dir and --publish-ca, another program renews the certificate.`,
		Args: cobra.NoArgs,
	}
	o := options{}
	flags := cmd.Flags()
	flags.StringVar(&o.template, "template", "/etc/ringside-injector/template.yaml", "template of the injected container")
	flags.StringVar(&o.listen, "listen", ":8443", "address of the webhook (HTTPS)")
	flags.StringVar(&o.metrics, "metrics", ":8080", "address of /metrics, /livez and /readyz (HTTP)")
	flags.StringVar(&o.certDir, "cert-dir", "", "directory with tls.crt and tls.key, renewed by another program")
	flags.BoolVar(&o.publishCA, "publish-ca", false, "with --cert-dir: add its ca.crt to the webhook configuration before its certificate is "+
		"served, and keep the previous ones there until they expire")
	flags.DurationVar(&o.publishDelay, "publish-delay", 10*time.Second,
		"how long a renewed certificate is only published before it is served, until every API server knows it")
	flags.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file, outside a pod")
	flags.StringVar(&o.namespace, "namespace", os.Getenv("POD_NAMESPACE"), "namespace of the Secret (env POD_NAMESPACE)")
	flags.StringVar(&o.secret, "secret", "ringside-injector", "Secret for the certificate")
	flags.StringVar(&o.webhook, "webhook", "inject.ringside.dev",
		"MutatingWebhookConfiguration to write the certificate into")
	flags.StringVar(&o.service, "service", "", "Service in --namespace by which the API server reaches this server")
	flags.StringSliceVar(&o.hosts, "host", nil, "name or address of this server that the API server uses; may be repeated")
	flags.StringVar(&o.clientCA, "client-ca", "",
		"file with the CAs of clients; the API server must then present a certificate (see deploy/README.md)")
	flags.StringSliceVar(&o.clientNames, "client-name", nil,
		"common name or DNS name that the certificate of a client must have; may be repeated")
	o.members.flags(cmd)
	flags.BoolVar(&o.events, "events", false, "publish warnings about pods as Events; needs permission to create them (env POD_NAME)")
	flags.DurationVar(&o.drain, "drain", 5*time.Second, "how long to keep serving after SIGTERM")
	flags.StringVar(&o.logFormat, "log-format", "json", "format of the log: json or console")
	flags.StringVar(&o.logLevel, "log-level", "info", "level of the log: debug, info, warn or error")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		log, err := logging.New(o.logFormat, o.logLevel, cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		defer func() { _ = log.Sync() }() // some kinds of stderr cannot be synced
		return serve(cmd.Context(), o, log)
	}
	return cmd
}

func readTemplate(path string) (*inject.Template, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the template: %w", err)
	}
	return inject.ParseTemplate(text)
}

// certificate is a tls.Config.GetCertificate.
type certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error)

func serve(ctx context.Context, o options, log *zap.Logger) error {
	template, err := readTemplate(o.template)
	if err != nil {
		return err
	}
	limitMemory(log)
	source, keep, err := o.certificate(log)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), expiry(source))
	recorder, err := o.recorder(log, registry)
	if err != nil {
		return err
	}
	reviews := webhook.New(template, recorder, log, registry)
	var leaving atomic.Bool
	ready := func() error {
		if leaving.Load() {
			return errors.New("stopping")
		}
		_, err := source(nil)
		return err
	}
	tlsConfig := &tls.Config{GetCertificate: source, MinVersion: tls.VersionTLS13}
	if o.clientCA != "" {
		if err := cert.RequireClients(tlsConfig, o.clientCA, o.clientNames); err != nil {
			return err
		}
	} else if len(o.clientNames) > 0 {
		return errors.New("--client-name requires --client-ca")
	}
	closed := closedConnections(registry)
	servers := []server{
		{newServer(o.listen, reviews.Handler(), tlsConfig), maxConnections, closed.WithLabelValues("webhook")},
		{newServer(o.metrics, observed(registry, ready), nil), maxMetricsConnections, closed.WithLabelValues("metrics")},
	}
	background := func(ctx context.Context) {
		var tasks sync.WaitGroup
		if recorder != nil {
			tasks.Go(func() { recorder.Run(ctx) })
		}
		keep(ctx)
		tasks.Wait()
	}
	return runUntilDone(ctx, servers, background, func() {
		leaving.Store(true)
		time.Sleep(o.drain) // until this replica is removed from the endpoints of the Service
	}, log)
}

// recorder returns what publishes warnings as events; nil without --events.
func (o options) recorder(log *zap.Logger, registry prometheus.Registerer) (*event.Recorder, error) {
	if !o.events {
		return nil, nil
	}
	config, _, err := o.connect()
	if err != nil {
		return nil, err
	}
	client, err := eventsclient.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("create a client of the API server: %w", err)
	}
	return event.New(client, os.Getenv("POD_NAME"), log, registry), nil
}

// certificate returns the source of the certificate, and the function that maintains it in the background.
func (o options) certificate(log *zap.Logger) (certificate, func(context.Context), error) {
	if o.certDir != "" {
		return o.certificateFromFiles(log)
	}
	if o.publishCA {
		return nil, nil, errors.New("--publish-ca requires --cert-dir, where the authority is")
	}
	hosts := o.hosts
	if o.service != "" {
		hosts = append(hosts, o.service+"."+o.namespace+".svc")
	}
	if o.namespace == "" || len(hosts) == 0 {
		return nil, nil, errors.New("--namespace, and --service or --host, are required without --cert-dir")
	}
	config, coreClient, err := o.connect()
	if err != nil {
		return nil, nil, err
	}
	webhooks, err := webhooksOf(config)
	if err != nil {
		return nil, nil, err
	}
	r := &cert.Rotator{
		Secrets: coreClient.Secrets(o.namespace), Webhooks: webhooks,
		Secret: o.secret, Webhook: o.webhook, Hosts: hosts, Delay: o.publishDelay, Log: log,
	}
	keepMembers, err := o.keepMembers(log)
	return r.Get, both(r.Run, keepMembers), err
}

// certificateFromFiles is certificate for one that another program renews.
func (o options) certificateFromFiles(log *zap.Logger) (certificate, func(context.Context), error) {
	keepMembers, err := o.keepMembers(log)
	if err != nil || !o.publishCA {
		return cert.FromFiles(o.certDir), keepMembers, err
	}
	config, _, err := o.connect()
	if err != nil {
		return nil, nil, err
	}
	webhooks, err := webhooksOf(config)
	if err != nil {
		return nil, nil, err
	}
	f := &cert.Files{Dir: o.certDir, Webhooks: webhooks, Webhook: o.webhook, Delay: o.publishDelay, Log: log}
	return f.Get, both(f.Run, keepMembers), nil
}

func webhooksOf(config *rest.Config) (cert.Webhooks, error) {
	client, err := admissionregistration.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("create a client of the API server: %w", err)
	}
	return client.MutatingWebhookConfigurations(), nil
}

// both runs two tasks until both have ended.
func both(a, b func(context.Context)) func(context.Context) {
	return func(ctx context.Context) {
		var tasks sync.WaitGroup
		tasks.Go(func() { a(ctx) })
		b(ctx)
		tasks.Wait()
	}
}

func (o options) connect() (*rest.Config, core.CoreV1Interface, error) {
	config, err := clientConfig(o.kubeconfig)
	if err != nil {
		return nil, nil, fmt.Errorf("load the client configuration of the API server: %w", err)
	}
	client, err := core.NewForConfig(config)
	if err != nil {
		return nil, nil, fmt.Errorf("create a client of the API server: %w", err)
	}
	return config, client, nil
}

// clientConfig returns that of a file, of the pod, or of kubectl.
func clientConfig(file string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = file
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{}).ClientConfig()
}

// expiry is a gauge for an alert: without renewal, all injection stops.
func expiry(source certificate) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "ringside_injector_certificate_expiry_timestamp_seconds",
		Help: "Expiry of the serving certificate in Unix time, 0 if there is none.",
	}, func() float64 {
		pair, err := source(nil)
		if err != nil {
			return 0
		}
		return float64(pair.Leaf.NotAfter.Unix())
	})
}

// observed serves the probes and metrics. Liveness depends on nothing, readiness on a certificate.
func observed(registry *prometheus.Registry, ready func() error) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: maxScrapes,
	}))
	mux.HandleFunc("GET /livez", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	return mux
}

// Limits of both listeners. The API server waits 5 s for a review: the chart sets timeoutSeconds.
const (
	headerTimeout = 5 * time.Second // and for the TLS handshake
	readTimeout   = 5 * time.Second
	writeTimeout  = 10 * time.Second
	idleTimeout   = 90 * time.Second
	closeTimeout  = 5 * time.Second

	maxHeader             = 16 << 10
	maxConnections        = 128 // of the webhook; each holds one review, of at most 100 KB with TLS and buffers
	maxMetricsConnections = 32
	maxScrapes            = 4
)

// newServer returns a server of HTTP/1.1 only. With HTTP/2 one connection would hold many reviews, and net/http keeps what a
// connection closed with open streams used until IdleTimeout (Go 1.26: closeStream starts the stopped timer again).
func newServer(address string, handler http.Handler, config *tls.Config) *http.Server {
	server := &http.Server{
		Addr: address, Handler: useful(handler), TLSConfig: config, ConnContext: withConn, Protocols: new(http.Protocols),
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader, ErrorLog: zap.NewStdLog(zap.NewNop()),
	}
	server.Protocols.SetHTTP1(true)
	return server
}

// useful marks connections that have completed a request.
func useful(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		markUseful(r.Context())
	})
}

func closedConnections(registry *prometheus.Registry) *prometheus.CounterVec {
	closed := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "ringside_injector_connections_closed_total",
		Help: "Connections closed to make room for a new one, because all connections of a listener were in use.",
	}, []string{"listener"})
	registry.MustRegister(closed)
	return closed
}

// limitMemory makes Go collect garbage before the process reaches the memory limit of its container.
func limitMemory(log *zap.Logger) {
	_, err := memlimit.Set()
	if err != nil && !errors.Is(err, memlimit.ErrNoCgroup) && !errors.Is(err, memlimit.ErrNoLimit) {
		log.Warn("the memory limit of the container is unknown; set GOMEMLIMIT", zap.Error(err))
	}
}

// server is a server with its limit of connections.
type server struct {
	*http.Server
	limit  int
	closed prometheus.Counter
}

// runUntilDone runs servers and keep until parent is done or a server fails. Then it calls leave and stops them.
func runUntilDone(
	parent context.Context, servers []server, keep func(context.Context), leave func(), log *zap.Logger,
) error {
	ctx, fail := context.WithCancelCause(parent)
	defer fail(nil)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	for _, server := range servers {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", server.Addr)
		if err != nil {
			return fmt.Errorf("listen on %s: %w", server.Addr, err)
		}
		defer server.Close()
		log.Info("listening", zap.Stringer("address", listener.Addr()), zap.Bool("tls", server.TLSConfig != nil))
		tasks.Go(func() {
			bounded := &connections{Listener: listener, limit: server.limit, closed: server.closed}
			if err := serveOn(bounded, server.Server); !errors.Is(err, http.ErrServerClosed) {
				fail(err)
			}
		})
	}
	tasks.Go(func() { keep(background) })
	<-ctx.Done()
	if parent.Err() == nil { //guard:sigterm-is-success
		return context.Cause(ctx)
	}
	leave()
	return shutdown(servers)
}

func serveOn(listener net.Listener, server *http.Server) error {
	if server.TLSConfig != nil {
		return server.ServeTLS(listener, "", "")
	}
	return server.Serve(listener)
}

func shutdown(servers []server) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var errs []error
	for _, server := range servers {
		errs = append(errs, server.Shutdown(ctx))
	}
	return errors.Join(errs...)
}
