package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"github.com/ringside-cache/ringside/sidecar/cmd/ringside/cli"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

const (
	// maxBatchBytes is the size of a request of :batchPut.
	maxBatchBytes = kv.MaxValueBytes
	// batchFrame is what a request has around its rows.
	batchFrame = len(`{"rows":[]}`)
)

// rowLine is one line of a file of rows: a row of :batchPut.
type rowLine struct {
	Key            *string         `json:"key"`
	Value          json.RawMessage `json:"value"`
	ValueBase64    *string         `json:"valueBase64"`
	Delete         bool            `json:"delete"`
	IfVersion      json.Number     `json:"ifVersion"`
	IfMatch        string          `json:"ifMatch"`
	IfNoneMatch    string          `json:"ifNoneMatch"`
	IdempotencyKey string          `json:"idempotencyKey"`
}

// parseLine returns an error unless a line is a row. A document with another line in it would fail as a whole.
func parseLine(line []byte) (row rowLine, err error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&row); err != nil {
		return row, fmt.Errorf("not a row: %w", err)
	}
	_, end := d.Token()
	switch {
	case end != io.EOF: //guard:line-with-two-objects-is-sent
		return row, errors.New("not a row: there is something after the object")
	case row.Key == nil:
		return row, errors.New(`not a row: it has no "key"`)
	case len(row.Value) == 0 && row.ValueBase64 == nil && !row.Delete:
		return row, errors.New(`not a row: it has none of "value", "valueBase64" and "delete"`)
	}
	return row, nil
}

// loader writes the rows of a file, batch by batch.
type loader struct {
	sidecar *cli.Listener
	dataset string
	name    string    // of the file, in messages
	failing io.Writer // gets a line for each row that was not written

	body []byte // the rows of the batch
	rows []lineOf
	seen map[string]bool // keys and ids of the batch

	written, failed int
}

// lineOf is a row of a batch.
type lineOf struct {
	number int
	key    string
}

// load reads all lines. An error ends it, and says which lines were not sent.
func (l *loader) load(ctx context.Context, r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxBatchBytes-batchFrame)
	number := 0
	for lines.Scan() {
		number++
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		row, err := parseLine(line)
		if err != nil {
			l.fail(lineOf{number: number}, err)
			continue
		}
		if err := l.add(ctx, number, row, line); err != nil {
			return err
		}
	}
	if err := l.flush(ctx); err != nil {
		return err
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%s:%d: %w; neither this line nor later ones were sent", l.name, number+1, err)
	}
	return nil
}

// add adds a row to the batch, or to the next one.
func (l *loader) add(ctx context.Context, number int, row rowLine, line []byte) error {
	key, id := "k"+*row.Key, "i"+row.IdempotencyKey
	again := l.seen[key] || row.IdempotencyKey != "" && l.seen[id] //guard:line-with-the-key-of-another-fails-its-batch
	if again || len(l.rows) == kv.MaxBatchWrites || batchFrame+len(l.body)+len(",")+len(line) > maxBatchBytes {
		if err := l.flush(ctx); err != nil {
			return err
		}
	}
	if len(l.rows) > 0 {
		l.body = append(l.body, ',')
	}
	l.body, l.rows = append(l.body, line...), append(l.rows, lineOf{number, *row.Key})
	l.seen[key], l.seen[id] = true, true
	return nil
}

func (l *loader) fail(at lineOf, err error) {
	l.failed++
	where := fmt.Sprintf("%s:%d: ", l.name, at.number)
	if at.key != "" {
		where += at.key + ": "
	}
	fmt.Fprintln(l.failing, cli.ForReader(l.failing, where+err.Error()))
}

// flush sends the batch.
func (l *loader) flush(ctx context.Context) error {
	rows := l.rows
	if len(rows) == 0 {
		return nil
	}
	body := append(append([]byte(`{"rows":[`), l.body...), "]}"...)
	l.body, l.rows, l.seen = l.body[:0], nil, map[string]bool{}
	resp, err := l.sidecar.Do(ctx, cli.Request{Method: http.MethodPost, Path: "/v1/" + url.PathEscape(l.dataset) + ":batchPut", Body: body})
	span := fmt.Sprintf("%s:%d-%d", l.name, rows[0].number, rows[len(rows)-1].number)
	var usage cli.UsageError
	switch {
	case errors.Is(err, cli.ErrNoListener) || errors.As(err, &usage):
		return err
	case err != nil:
		return fmt.Errorf("%s: outcome unknown, these rows may have been written: %w; no later line was sent", span, err)
	case resp.Status != http.StatusOK:
		return fmt.Errorf("%s: %w; neither these lines nor later ones were written", span, resp.Err())
	}
	var answer struct {
		Results []struct {
			Error json.RawMessage `json:"error"`
		} `json:"results"`
	}
	if err := json.Unmarshal(resp.Body, &answer); err != nil || len(answer.Results) != len(rows) {
		return fmt.Errorf("%s: outcome unknown: the response does not have the results of %d rows", span, len(rows))
	}
	for i, r := range answer.Results {
		if r.Error == nil {
			l.written++
			continue
		}
		l.fail(rows[i], cli.Response{Status: resp.Status, Body: r.Error}.Err())
	}
	return nil
}

// loaded is the result of a file, as printed by -o json.
type loaded struct {
	Dataset string `json:"dataset"`
	Written int    `json:"written"`
	Failed  int    `json:"failed"`
}

// putFile writes the rows of a file; - is stdin.
func putFile(cmd *cobra.Command, sidecar *cli.Listener, out *cli.Output, dataset, file string) error {
	l := &loader{sidecar: sidecar, dataset: dataset, name: "stdin", failing: cmd.ErrOrStderr(), seen: map[string]bool{}}
	input := cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		l.name, input = file, f
	}
	failure := l.load(cmd.Context(), input)
	var err error
	switch {
	case failure != nil && l.written+l.failed == 0: // there is nothing to report
	case out.JSON():
		err = cli.PrintJSON(cmd.OutOrStdout(), loaded{dataset, l.written, l.failed})
	default:
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "written %d rows, failed %d\n", l.written, l.failed)
	}
	switch {
	case failure != nil:
		return failure
	case err != nil:
		return err
	case l.failed > 0: //guard:failed-rows-of-a-file-exit-with-0
		return fmt.Errorf("%s: %d of %d rows were not written", dataset, l.failed, l.failed+l.written)
	}
	return nil
}
