package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
)

// echoVariable turns the test program into the gRPC server, so that client and server are separate processes.
const echoVariable = "RINGSIDE_BENCH_ECHO"

func TestMain(m *testing.M) {
	if address := os.Getenv(echoVariable); address != "" {
		fmt.Fprintln(os.Stderr, serveEcho(address))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// echo responds to every request with a constant of the same size as the sidecar's response.
type echo struct {
	ringsidev1.UnimplementedCacheServer
	answer *ringsidev1.GetResponse
}

func (e echo) Get(context.Context, *ringsidev1.GetRequest) (*ringsidev1.GetResponse, error) {
	return e.answer, nil
}

func serveEcho(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	ringsidev1.RegisterCacheServer(server, echo{answer: &ringsidev1.GetResponse{
		Value: []byte(value),
		Meta: &ringsidev1.Meta{
			Version: 1, Age: durationpb.New(time.Second), TimeLeft: durationpb.New(time.Hour), Etag: `"0123456789ab"`,
			Source: ringsidev1.Source_SOURCE_HIT,
		},
	}})
	return server.Serve(l)
}

// startEcho runs this test program again as the server.
func startEcho(b *testing.B) (address string) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	address = l.Addr().String()
	l.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), echoVariable+"="+address)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return address
}

func grpcGet(b *testing.B, address, dataset, key string) func(int) (exchange, error) {
	request := &ringsidev1.GetRequest{Dataset: dataset, Key: key}
	return func(int) (exchange, error) {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, err
		}
		b.Cleanup(func() { conn.Close() })
		client := ringsidev1.NewCacheClient(conn)
		ready := grpc.WaitForReady(true)
		return func() error {
			answer, err := client.Get(context.Background(), request, ready)
			if err == nil && len(answer.Value) != len(value) {
				err = fmt.Errorf("got a value of %d bytes, want %d", len(answer.Value), len(value))
			}
			return err
		}, nil
	}
}
