package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ringside-cache/ringside/e2e/rig"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
)

// echoArgument turns the test program into a server, so that client and server are separate processes: echo KIND ADDRESS.
const echoArgument = "echo"

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == echoArgument {
		fmt.Fprintln(os.Stderr, serveEcho(os.Args[2], os.Args[3]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// echo starts this test program again as a server that responds to every request with a constant.
func echo(kind string) func(*testing.B) server {
	return func(b *testing.B) server {
		b.Helper()
		address := rig.FreeAddress(b)
		return tcp(rig.RivalProgram(b, "", address, echoArgument, kind, address))
	}
}

// echoes are the servers: a gRPC server with the library of Ringside, and the least that a server of HTTP/2 and of bytes can do.
var echoes = map[string]func(net.Listener) error{
	"grpc": serveGRPC,
	"h2":   func(l net.Listener) error { return serveEach(l, serveH2) },
	"tcp":  func(l net.Listener) error { return serveEach(l, serveTCP) },
}

func serveEcho(kind, address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return echoes[kind](l)
}

// serveEach serves connections one goroutine each.
func serveEach(l net.Listener, serve func(net.Conn) error) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			_ = serve(conn) // fails when the client has closed
		}()
	}
}

// constant is the response of the gRPC servers, as a sidecar would send it.
var constant = &ringsidev1.GetResponse{
	Value: []byte(value),
	Meta: &ringsidev1.Meta{
		Version: 1, Age: durationpb.New(time.Second), TimeLeft: durationpb.New(time.Hour), Etag: `"0123456789ab"`,
		Source: ringsidev1.Source_SOURCE_HIT,
	},
}

type grpcEcho struct {
	ringsidev1.UnimplementedCacheServer
}

func (grpcEcho) Get(context.Context, *ringsidev1.GetRequest) (*ringsidev1.GetResponse, error) {
	return constant, nil
}

func serveGRPC(l net.Listener) error {
	s := grpc.NewServer()
	ringsidev1.RegisterCacheServer(s, grpcEcho{})
	return s.Serve(l)
}

// tcpRequest and tcpResponse are about as long as a request and a response of HTTP.
const tcpRequest = 64

var tcpResponse = value + strings.Repeat("h", 256)

// serveTCP counts bytes and answers all complete requests with one write. The responses are bytes: to write a string, a net.Conn
// copies it first.
func serveTCP(conn net.Conn) error {
	in, has := make([]byte, 64<<10), 0
	responses := bytes.Repeat([]byte(tcpResponse), 64)
	for {
		n, err := conn.Read(in)
		if err != nil {
			return err
		}
		has += n
		if _, err := conn.Write(responses[:has/tcpRequest*len(tcpResponse)]); err != nil {
			return err
		}
		has %= tcpRequest
	}
}

// serveH2 answers every DATA frame that ends a stream with the same three frames. It reads no header and no window: the client
// is this benchmark's.
func serveH2(conn net.Conn) error {
	frames, err := h2Response()
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return err
	}
	var control bytes.Buffer
	framer := http2.NewFramer(&control, nil)
	_ = framer.WriteSettings() // a bytes.Buffer does not fail
	in, has := make([]byte, 64<<10), 0
	out := control.Bytes()
	for {
		if len(out) > 0 {
			if _, err := conn.Write(out); err != nil {
				return err
			}
			out = out[:0]
		}
		n, err := conn.Read(in[has:])
		if err != nil {
			return err
		}
		has += n
		rest := in[:has]
		for len(rest) >= 9 && len(rest) >= 9+frameLength(rest) {
			kind, flags, id := http2.FrameType(rest[3]), http2.Flags(rest[4]), binary.BigEndian.Uint32(rest[5:])
			if kind == http2.FrameData && flags.Has(http2.FlagDataEndStream) {
				out = frames.appendTo(out, id)
			}
			rest = rest[9+frameLength(rest):]
		}
		has = copy(in, rest)
	}
}

func frameLength(b []byte) int { return int(b[0])<<16 | int(b[1])<<8 | int(b[2]) }

// h2Frames are the frames of a response, and where the ids of their stream are.
type h2Frames struct {
	bytes []byte
	ids   []int
}

func (f h2Frames) appendTo(b []byte, id uint32) []byte {
	at := len(b)
	b = append(b, f.bytes...)
	for _, offset := range f.ids {
		binary.BigEndian.PutUint32(b[at+offset:], id)
	}
	return b
}

func h2Response() (f h2Frames, err error) {
	message, err := proto.Marshal(constant)
	if err != nil {
		return f, err
	}
	var b bytes.Buffer
	framer := http2.NewFramer(&b, nil)
	add := func(write func() error) {
		f.ids = append(f.ids, b.Len()+5)
		if err == nil {
			err = write()
		}
	}
	add(func() error {
		return framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: block(":status", "200", "content-type", "application/grpc")})
	})
	add(func() error {
		return framer.WriteData(1, false, append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...))
	})
	add(func() error {
		return framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, EndStream: true, BlockFragment: block("grpc-status", "0")})
	})
	f.bytes = b.Bytes()
	return f, err
}

// block encodes fields without the dynamic table, so that each stream may have the same bytes.
func block(fields ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	e.SetMaxDynamicTableSizeLimit(0)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // a bytes.Buffer does not fail
	}
	return b.Bytes()
}
