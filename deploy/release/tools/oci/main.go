// Command oci makes the container images and the chart of a release as OCI archives, without a container engine. Equal input gives
// equal bytes.
//
//	oci debian ARCH DIR                              extract the pinned Debian packages of an image
//	oci image -config JSON -out FILE PLATFORM=DIR…   make an image of the root filesystem of each platform
//	oci chart -out FILE CHART.tgz                    make the artifact that `helm install oci://…` expects
//
// The last two print the digest of what they made.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "oci:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("want debian, image or chart")
	}
	flags := flag.NewFlagSet("oci "+args[0], flag.ContinueOnError)
	out := flags.String("out", "", "the archive to write")
	text := flags.String("config", "{}", "the settings of the image, in the form of the OCI image specification's config object")
	annotations := pairs{}
	flags.Var(annotations, "annotation", "KEY=VALUE of the index of the archive; may be repeated")
	created := flags.Int64("created", 0, "when the source was committed, in seconds since 1970")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	a := archive{out: *out, annotations: annotations, created: time.Unix(*created, 0).UTC()}
	switch rest := flags.Args(); {
	case args[0] == "debian" && len(rest) == 2:
		return extractPackages(ctx, rest[0], rest[1])
	case args[0] == "image" && len(rest) > 0 && a.out != "":
		var config v1.Config
		if err := json.Unmarshal([]byte(*text), &config); err != nil {
			return fmt.Errorf("-config: %w", err)
		}
		return a.image(config, rest)
	case args[0] == "chart" && len(rest) == 1 && a.out != "":
		return a.chart(rest[0])
	}
	return fmt.Errorf("%s: wrong number of arguments, or no -out", args[0])
}

// pairs is a flag of KEY=VALUE.
type pairs map[string]string

func (p pairs) String() string { return "" }

func (p pairs) Set(s string) error {
	key, value, ok := strings.Cut(s, "=")
	if !ok {
		return errors.New("want KEY=VALUE")
	}
	p[key] = value
	return nil
}
