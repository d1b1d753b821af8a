// Command oldclient is an application of the key-value cache that preceded Ringside, with its own copy of the stub and without
// code of Ringside. It finds servers with the resolver of etcd's client, and connects without TLS.
//
// Each line of its input is a group and a key. For each it prints a line with the gRPC code and the value or the message.
//
// Usage: oldclient [-service GroupCache] ENDPOINT
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/resolver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"example.com/oldclient/groupcachepb"
)

func main() {
	service := flag.String("service", "GroupCache", "name that the servers have in etcd")
	flag.Parse()
	if err := run(flag.Arg(0), *service, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "oldclient:", err)
		os.Exit(1)
	}
}

func run(endpoint, service string, in io.Reader, out io.Writer) error {
	etcd, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 5 * time.Second})
	if err != nil {
		return fmt.Errorf("connect to etcd: %w", err)
	}
	defer etcd.Close()
	builder, err := resolver.NewBuilder(etcd)
	if err != nil {
		return fmt.Errorf("make a resolver: %w", err)
	}
	conn, err := grpc.NewClient("etcd:///"+service, grpc.WithResolvers(builder),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("make a client of %s: %w", service, err)
	}
	defer conn.Close()
	return answer(groupcachepb.NewGroupCacheClient(conn), in, out)
}

func answer(stub groupcachepb.GroupCacheClient, in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		group, key, _ := strings.Cut(lines.Text(), " ")
		code, text := get(stub, group, key)
		if _, err := fmt.Fprintln(out, code, text); err != nil {
			return fmt.Errorf("write an answer: %w", err)
		}
	}
	return lines.Err()
}

func get(stub groupcachepb.GroupCacheClient, group, key string) (codes.Code, string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	got, err := stub.Get(ctx, &groupcachepb.GetRequest{Group: group, Key: key})
	if err != nil {
		return status.Code(err), status.Convert(err).Message()
	}
	return codes.OK, string(got.GetValue())
}
