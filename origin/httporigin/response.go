package httporigin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/origin"
)

// drained is how much of a body that is not a value is read, in bytes, so that its connection can be used again.
const drained = 4 << 10

func discard(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, drained)
	_ = body.Close()
}

// valueOf returns the value of a response.
func (d *dataset) valueOf(resp *http.Response) (origin.Value, error) {
	switch status := resp.StatusCode; {
	case slices.Contains(d.notFound, status):
		return origin.Value{}, origin.ErrNotFound
	case slices.Contains(d.invalid, status):
		return origin.Value{}, invalidKey(fmt.Sprintf("the server rejects it with the status %d", status))
	case status != http.StatusOK && status != http.StatusNonAuthoritativeInfo: //guard:part-of-a-body-is-a-value
		return origin.Value{}, d.unavailable(resp)
	}
	if encoding := resp.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") { //guard:compressed-body-is-a-value
		return origin.Value{}, errors.New("the response is compressed although the request asks for none: switch compression off in the server")
	}
	data, err := readBody(resp, d.config.MaxValueBytes)
	if err != nil {
		return origin.Value{}, err
	}
	v := origin.Value{Data: data, Content: contentOf(resp.Header.Get("Content-Type"), data)}
	if v.Content == origin.ContentJSON && !json.Valid(data) { //guard:cut-json-replaces-a-value
		return origin.Value{}, errors.New("the body is not JSON, although its Content-Type is")
	}
	if d.prometheus != nil {
		return d.prometheus.value(data)
	}
	return v, nil
}

// unavailable returns the error of a status that says nothing about the key.
func (d *dataset) unavailable(resp *http.Response) error {
	status := resp.StatusCode
	text := fmt.Sprintf("the server answers with the status %d %s", status, http.StatusText(status))
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		text += ": check token_file, or username and password_file, and what they permit"
	case 300 <= status && status < 400:
		text += ": redirects are not followed; set dsn and url to where the values are"
	}
	if wait := retryAfter(resp.Header, time.Now()); wait > 0 {
		d.waitUntil.Store(time.Now().Add(wait).UnixNano())
	}
	return errors.New(text)
}

// minAllocation is the size of the smallest allocation of a value; see renewals.remember.
const minAllocation = 16

// readBody returns the whole body, in an allocation of its own, or a data error if it has more than limit bytes.
func readBody(resp *http.Response, limit int) ([]byte, error) {
	errTooLarge := origin.NewDataError(origin.TooLarge, "the body has more than %d bytes: request less, or leave the key out", limit)
	if resp.ContentLength > int64(limit) {
		return nil, errTooLarge
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the body: %w", err)
	case len(body) > limit: //guard:endless-body
		return nil, errTooLarge
	}
	return append(make([]byte, 0, max(len(body), minAllocation)), body...), nil
}

// contentOf says what a body is. Text that is no UTF-8 is bytes.
func contentOf(contentType string, body []byte) origin.Content {
	media, _, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil:
		return origin.ContentUnknown
	case media == "application/json" || strings.HasSuffix(media, "+json"):
		return origin.ContentJSON
	case strings.HasPrefix(media, "text/") && utf8.Valid(body):
		return origin.ContentText
	}
	return origin.ContentBytes
}
