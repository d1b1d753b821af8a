package apierror_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func ignore(error) {}

func TestEveryKindHasAType(t *testing.T) {
	for kind := kv.KindInternal; kind <= kv.KindUnknown; kind++ {
		typ := apierror.TypeOf(kind)
		if typ.Status < 400 || typ.Name == "" || typ.Title == "" || typ.Code == codes.OK || typ.Reason == "" {
			t.Errorf("kind %d: %+v", kind, typ)
		}
	}
}

func TestErrorWithoutAKindIsReportedAndNotShown(t *testing.T) {
	secret := errors.New("postgres://canary-secret")
	var reported error
	e := apierror.From(fmt.Errorf("read: %w", secret), func(err error) { reported = err })
	if !errors.Is(reported, secret) {
		t.Errorf("reported %v, want %v", reported, secret)
	}
	for _, shown := range []string{string(e.JSON()), e.GRPCStatus().String(), e.Error()} {
		if strings.Contains(shown, "canary") {
			t.Errorf("shown: %s", shown)
		}
	}
}

func TestTemporaryErrorsSayWhenToRetry(t *testing.T) {
	for kind, want := range map[kv.Kind]int64{
		kv.KindOverloaded: 1, kv.KindUnavailable: 1, kv.KindCanceled: 1, kv.KindUnknown: 1,
		kv.KindDeadline: 0, kv.KindConflict: 0,
	} {
		e := apierror.From(&kv.Error{Kind: kind, Err: errors.New("x")}, ignore)
		if got := e.RetrySeconds(); got != want {
			t.Errorf("kind %d: retry after %d s, want %d", kind, got, want)
		}
	}
	e := &apierror.Error{RetryAfter: 1100 * time.Millisecond}
	if got := e.RetrySeconds(); got != 2 {
		t.Errorf("1.1 s: %d, want 2", got)
	}
}

func TestProblemDocument(t *testing.T) {
	wrong := &origin.ValueError{Column: "unit", Reason: "too long"}
	e := apierror.From(&kv.Error{Kind: kv.KindInvalidValue, Err: fmt.Errorf("dataset a: %w", wrong)}, ignore)
	w := httptest.NewRecorder()
	e.Write(w)
	var got apierror.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if w.Code != 422 || w.Header().Get("Content-Type") != apierror.ContentType || w.Header().Get("Retry-After") != "" {
		t.Errorf("status %d, header %v", w.Code, w.Header())
	}
	if got.Type != apierror.BaseURI+"invalid-value" || got.Status != 422 || got.Detail != "column unit: too long" ||
		len(got.Errors) != 1 || got.Errors[0] != (apierror.Violation{Column: "unit", Detail: "too long"}) {
		t.Errorf("got %s", w.Body)
	}
	w = httptest.NewRecorder()
	(&apierror.Error{Type: apierror.TooManyConnections, RetryAfter: time.Second}).Write(w)
	if got := w.Header().Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After: %q, want 1", got)
	}
}

func TestGRPCStatus(t *testing.T) {
	e := apierror.From(&kv.Error{Kind: kv.KindIDReused, Err: errors.New("used before")}, ignore)
	e.RetryAfter, e.Datasets = time.Second, []string{"a", "b"}
	s := status.Convert(e.At("idempotency_id"))
	if s.Code() != codes.InvalidArgument || s.Message() != "used before" {
		t.Errorf("got %v", s)
	}
	var info *errdetails.ErrorInfo
	var retry *errdetails.RetryInfo
	var bad *errdetails.BadRequest
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = d
		case *errdetails.BadRequest:
			bad = d
		}
	}
	if info.GetReason() != "INVALID_VALUE" || info.GetDomain() != apierror.Domain || info.GetMetadata()["near"] != "a,b" {
		t.Errorf("ErrorInfo: %v", info)
	}
	if retry.GetRetryDelay().AsDuration() != time.Second {
		t.Errorf("RetryInfo: %v", retry)
	}
	if v := bad.GetFieldViolations(); len(v) != 1 || v[0].GetField() != "idempotency_id" || v[0].GetReason() != "INVALID_VALUE" {
		t.Errorf("BadRequest: %v", bad)
	}
	conflict := apierror.New(apierror.TypeOf(kv.KindConflict), "x")
	if got := conflict.At("key"); len(got.Violations) != 0 {
		t.Errorf("an error that is not about an argument names the field %v", got.Violations)
	}
}

// sidecar/local/API.md lists the types of errors for users.
func TestEveryKindIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../local/API.md")
	if err != nil {
		t.Fatal(err)
	}
	for kind := kv.KindInternal; kind <= kv.KindUnknown; kind++ {
		typ := apierror.TypeOf(kind)
		code := strings.ToUpper(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(typ.Code.String(), "${1}_${2}"))
		row := fmt.Sprintf("| %d | `%s` | %s | %s |", typ.Status, typ.Name, code, typ.Reason)
		if !strings.Contains(string(page), row) {
			t.Errorf("API.md has no row %s", row)
		}
	}
}
