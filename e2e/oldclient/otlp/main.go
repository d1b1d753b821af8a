// Command otlpclient sends metrics to a sidecar with the exporters of OpenTelemetry: otlpclient PROTOCOL ADDRESS HOST VALUE, where
// PROTOCOL is grpc or http. It sends the gauge cpu with the value of the resource host.name HOST, once.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "otlpclient:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 4 {
		return errors.New("want PROTOCOL ADDRESS HOST VALUE")
	}
	value, err := strconv.ParseFloat(args[3], 64)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	exporter, err := open(ctx, args[0], args[1])
	if err != nil {
		return err
	}
	provider := sdk.NewMeterProvider(
		sdk.WithResource(resource.NewSchemaless(attribute.String("host.name", args[2]))),
		sdk.WithReader(sdk.NewPeriodicReader(exporter, sdk.WithInterval(time.Hour), sdk.WithTimeout(2*time.Minute))))
	meter := provider.Meter("otlpclient")
	cpu, err := meter.Float64Gauge("cpu", metric.WithUnit("percent"))
	if err != nil {
		return err
	}
	other, err := meter.Float64Histogram("latency")
	if err != nil {
		return err
	}
	cpu.Record(ctx, value)
	other.Record(ctx, 1)
	err = provider.Shutdown(ctx) // it sends
	if err != nil && strings.Contains(err.Error(), "OTLP partial success") {
		fmt.Println(err) // the points that were not rejected are written
		return nil
	}
	return err
}

func open(ctx context.Context, protocol, address string) (sdk.Exporter, error) {
	switch protocol {
	case "grpc":
		return otlpmetricgrpc.New(ctx, otlpmetricgrpc.WithEndpoint(address), otlpmetricgrpc.WithInsecure(), otlpmetricgrpc.WithCompressor("gzip"))
	case "http":
		return otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpoint(address), otlpmetrichttp.WithInsecure(),
			otlpmetrichttp.WithCompression(otlpmetrichttp.GzipCompression))
	}
	return nil, fmt.Errorf("protocol %q is unknown", protocol)
}
