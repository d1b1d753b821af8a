// Command client does through the sidecar of its pod what applications do: read, write on a condition, read a batch, and watch.
//
// Usage:
//
//	go run . get DATASET KEY
//	go run . replace DATASET KEY VALUE [ETAG]
//	go run . batch DATASET KEY...
//	go run . watch DATASET KEY
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// problem is an error of the sidecar (RFC 9457). Programs should rely on its type alone.
type problem struct {
	Type   string        `json:"type"`
	Detail string        `json:"detail"`
	after  time.Duration // Retry-After; 0 if a retry does not help
}

func (p *problem) Error() string { return "error " + p.name() + ": " + p.Detail }

// name is the type without the common prefix, such as "not-found".
func (p *problem) name() string { return strings.TrimPrefix(p.Type, "https://ringside.dev/problems/") }

// sidecar is the address of the sidecar.
var sidecar = cmp.Or(os.Getenv("RINGSIDE_HTTP"), "http://localhost:7070")

func urlOf(dataset, key string) string { return sidecar + "/v1/" + dataset + "/" + url.PathEscape(key) }

// send makes one request, without a retry. The timeout is longer than the sidecar takes to answer.
func send(method, url string, body []byte, header ...string) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= 300 {
		err = problemOf(response, answer)
	}
	return response, answer, err
}

func problemOf(response *http.Response, body []byte) error {
	p := &problem{Type: response.Status}
	if err := json.Unmarshal(body, p); err != nil {
		return fmt.Errorf("the response is not of a sidecar: %w", err)
	}
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil {
		p.after = time.Duration(seconds) * time.Second
	}
	return p
}

// maxRetries is how often a read is repeated while the sidecar or the database is unavailable.
const maxRetries = 30

// read repeats a read while the sidecar is overloaded or the database is down (429, 503), or the sidecar itself is restarting.
// Other errors do not change when they are repeated.
func read(url string) (*http.Response, []byte, error) {
	for try := 0; ; try++ {
		response, body, err := send(http.MethodGet, url, nil)
		var p *problem
		after := time.Second
		if errors.As(err, &p) {
			after = p.after
		}
		if err == nil || after == 0 || try == maxRetries {
			return response, body, err
		}
		fmt.Fprintf(os.Stderr, "unavailable, trying again in %v\n", after)
		time.Sleep(after)
	}
}

func get(dataset, key string) error {
	response, body, err := read(urlOf(dataset, key))
	var p *problem
	switch {
	case errors.As(err, &p) && p.name() == "not-found":
		fmt.Println("not found") // an answer like any other
	case err != nil:
		return err
	case response.Header.Get("Ringside-Stale") == "true": // the database is down: use it, and know its age
		fmt.Printf("stale, %s s old: %s\n", response.Header.Get("Age"), body)
	default:
		fmt.Printf("value: %s\n", body)
	}
	return nil
}

// replace writes a value if nobody else has changed the row since it was read, or since it had the given ETag. A write is not
// repeated: after a lost response, read the row to find out whether it was made, or send an Idempotency-Key.
func replace(dataset, key, value, etag string) error {
	if etag == "" {
		response, _, err := read(urlOf(dataset, key))
		if err != nil {
			return err
		}
		etag = response.Header.Get("ETag")
	}
	response, _, err := send(http.MethodPut, urlOf(dataset, key), []byte(value), "If-Match", etag, "Content-Type", "application/json")
	var p *problem
	switch {
	case errors.As(err, &p) && p.name() == "precondition-failed":
		fmt.Println("condition failed") // read it again, and decide again
	case err != nil:
		return err
	default:
		fmt.Println("written, version", response.Header.Get("Ringside-Version"))
	}
	return nil
}

// state is the result of one key of a batch, and a state event of a watch.
type state struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
	Stale bool            `json:"stale"`
	Error *problem        `json:"error"`
}

func (s state) String() string {
	switch {
	case s.Error != nil && s.Error.name() == "not-found":
		return s.Key + ": not found"
	case s.Error != nil:
		return s.Key + ": error " + s.Error.name()
	case s.Stale:
		return s.Key + ": stale: " + string(s.Value)
	}
	return s.Key + ": value: " + string(s.Value)
}

// batch reads many keys in one request. Each has a result of its own: some may fail.
func batch(dataset string, keys []string) error {
	body, err := json.Marshal(map[string][]string{"keys": keys})
	if err != nil {
		return err
	}
	_, answer, err := send(http.MethodPost, sidecar+"/v1/"+dataset+":batchGet", body, "Content-Type", "application/json")
	if err != nil {
		return err
	}
	var list struct{ Results []state }
	if err := json.Unmarshal(answer, &list); err != nil {
		return err
	}
	for _, one := range list.Results {
		fmt.Println(one)
	}
	return nil
}

// watch prints each change of a key, forever. After an interruption it resumes with the id of the last event: if the key has changed
// meanwhile, its state comes again.
func watch(dataset, key string) error {
	id := ""
	for {
		err := follow(sidecar+"/v1/"+dataset+":watch?key="+url.QueryEscape(key), &id)
		fmt.Fprintln(os.Stderr, "interrupted, resuming:", err)
		time.Sleep(time.Second)
	}
}

// idle is longer than the time between two heartbeats of the sidecar, which are lines with a colon alone.
const idle = 60 * time.Second

// follow prints server-sent events until the connection ends.
func follow(url string, id *string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if *id != "" {
		request.Header.Set("Last-Event-ID", *id)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	silent := time.AfterFunc(idle, cancel)
	defer silent.Stop()
	event := map[string]string{}
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		silent.Reset(idle)
		name, value, _ := strings.Cut(lines.Text(), ": ")
		if name != "" {
			event[name] = value
			continue
		}
		if event["id"] != "" {
			*id = event["id"]
		}
		show(event["event"], event["data"])
		clear(event)
	}
	return cmp.Or(lines.Err(), io.EOF)
}

func show(event, data string) {
	var s state
	switch {
	case event == "": // a heartbeat
	case event == "state" && json.Unmarshal([]byte(data), &s) == nil:
		fmt.Println(s)
	default: // current: all states were sent; reset: they come again
		fmt.Println(event)
	}
}

func main() {
	args := append(os.Args[1:], make([]string, 5)...)
	var err error
	switch n := len(os.Args) - 1; {
	case args[0] == "get" && n == 3:
		err = get(args[1], args[2])
	case args[0] == "replace" && (n == 4 || n == 5):
		err = replace(args[1], args[2], args[3], args[4])
	case args[0] == "batch" && n >= 3:
		err = batch(args[1], os.Args[3:])
	case args[0] == "watch" && n == 3:
		err = watch(args[1], args[2])
	default:
		err = errors.New("usage: client get|replace|batch|watch DATASET KEY…")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
