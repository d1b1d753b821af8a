package apierror_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func ignore(error) string { return "id" }

func TestEveryKindHasAType(t *testing.T) {
	for kind := kv.KindInternal; kind <= kv.KindUnknown; kind++ {
		typ := apierror.TypeOf(kind)
		if typ.Status < 400 || typ.Name == "" || typ.Title == "" || typ.Code == codes.OK || typ.Reason == "" {
			t.Errorf("kind %d: %+v", kind, typ)
		}
	}
}

// Texts of databases name hosts, accounts, databases and tables.
func TestTextOfFailureIsInTheLogAndNotShown(t *testing.T) {
	secret := errors.New("member m at 10.0.0.9:7072: user=canary host=canary.example SQLSTATE 42P01 table canary")
	for kind := kv.KindInternal; kind <= kv.KindUnknown; kind++ {
		var failed error = &kv.Error{Kind: kind, Err: fmt.Errorf("dataset a: %w", secret)}
		if kind == kv.KindInternal {
			failed = fmt.Errorf("read: %w", secret) // without a kind
		}
		var lines []apierror.Line
		log := apierror.NewLog(func(l apierror.Line) { lines = append(lines, l) })
		e := apierror.From(failed, log.Report)
		detail, shown := e.Detail, []string{string(e.JSON()), e.GRPCStatus().String(), fmt.Sprint(e.GRPCStatus().Details()), e.Error()}
		switch kind {
		case kv.KindInvalidKey, kv.KindInvalidValue, kv.KindVersion: // about the client's own input
			continue
		case kv.KindNotCached, kv.KindReadOnly, kv.KindIDReused, kv.KindConflict: // no failure
			if e.ID != "" || len(lines) != 0 {
				t.Errorf("kind %d: got id %q, lines %v, want none", kind, e.ID, lines)
			}
		default:
			if len(lines) != 1 || lines[0] != (apierror.Line{ID: e.ID, Kind: kind, Text: failed.Error()}) || len(e.ID) != 16 {
				t.Errorf("kind %d: got id %q, lines %v, want one line with the id and the text", kind, e.ID, lines)
			}
			if e.Problem().ID != e.ID || !strings.Contains(shown[2], `request_id:"`+e.ID) || !strings.Contains(shown[2], `key:"id"`) {
				t.Errorf("kind %d: the id %s is not in %q", kind, e.ID, shown)
			}
		}
		if len(detail) < 20 {
			t.Errorf("kind %d: got detail %q, want a sentence", kind, detail)
		}
		for _, s := range shown {
			if strings.Contains(s, "canary") || strings.Contains(s, "10.0.0.9") {
				t.Errorf("kind %d: shown: %s", kind, s)
			}
		}
	}
}

func TestReasonOfInvalidKeyIsShownWithoutTheNamesAroundIt(t *testing.T) {
	for want, err := range map[string]error{
		"invalid key: it is too long": fmt.Errorf("dataset a: %w", fmt.Errorf("origin canary: %w",
			fmt.Errorf("%w: it is too long", origin.ErrInvalidKey))),
		"not a number":     &kv.Error{Kind: kv.KindInvalidKey, Err: fmt.Errorf("member canary at 10.0.0.1:1: %w", errors.New("not a number"))},
		"the key is empty": kv.CheckKey(""),
		"a [2Jb":           &kv.Error{Kind: kv.KindInvalidKey, Err: errors.New("a\x1b[2Jb")},
	} {
		if got := apierror.From(err, ignore); got.Detail != want || got.Type.Name != "invalid-key" {
			t.Errorf("got %q, type %s, want %q", got.Detail, got.Type.Name, want)
		}
	}
}

func TestDefectsAreCountedAlsoIfTheyShareALine(t *testing.T) {
	log := apierror.NewLog(func(apierror.Line) {})
	for range 3 {
		log.Report(errors.New("panic: x"))
	}
	log.Report(&kv.Error{Kind: kv.KindUnavailable, Err: errors.New("connection refused")})
	log.Report(context.DeadlineExceeded)
	if n := log.Defects(); n != 3 {
		t.Errorf("counted %d, want 3", n)
	}
}

func TestErrorsWithTheSameTextShareALine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines []apierror.Line
		log := apierror.NewLog(func(l apierror.Line) { lines = append(lines, l) })
		same := errors.New("connection refused")
		first := log.Report(same)
		for range 1000 {
			if id := log.Report(same); id != first {
				t.Fatalf("got id %s, want %s, which is in the log", id, first)
			}
		}
		for i := range 1000 {
			log.Report(fmt.Errorf("error %d", i))
		}
		panicked := func(stack string) string { return log.Report(errors.New("panic: x\n" + stack)) }
		if panicked("goroutine 1") != panicked("goroutine 2") {
			t.Error("two panics with the same text have different ids")
		}
		if len(lines) != 21 {
			t.Errorf("got %d lines in one window, want 20 and one for all further errors", len(lines))
		}
		ids := map[string]bool{}
		for _, l := range lines {
			ids[l.ID] = true
		}
		if !ids[log.Report(errors.New("one more"))] {
			t.Error("the id of an error without a line is not in the log")
		}
		time.Sleep(10 * time.Second)
		next := log.Report(same)
		if last := lines[len(lines)-1]; next == first || last.ID != next || last.Repeated != 2004-21 {
			t.Errorf("got %+v in the next window, want another line, after %d errors without one", last, 2004-21)
		}
	})
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
	if s.Code() != codes.InvalidArgument || s.Message() != e.Detail {
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

func TestDataErrorNamesItsCause(t *testing.T) {
	a := kv.Answer{DataError: origin.SeveralRows}
	e := apierror.From(a.Err("users"), ignore)
	p := e.Problem()
	if p.Status != 500 || p.Cause != "several-rows" || e.RetryAfter != 0 || e.ID != "" || !strings.Contains(p.Detail, "several rows") {
		t.Errorf("got %+v", p)
	}
	info := e.GRPCStatus().Details()[0].(*errdetails.ErrorInfo)
	if info.GetReason() != "DATA_ERROR" || info.GetMetadata()["cause"] != "several-rows" {
		t.Errorf("got %v", info)
	}
}

// sidecar/local/API.md lists the types of errors for users.
func TestEveryKindIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../local/API.md")
	if err != nil {
		t.Fatal(err)
	}
	for kind := kv.KindInternal; kind <= kv.KindNoAppend; kind++ {
		typ := apierror.TypeOf(kind)
		code := strings.ToUpper(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(typ.Code.String(), "${1}_${2}"))
		row := fmt.Sprintf("| %d | `%s` | %s | %s |", typ.Status, typ.Name, code, typ.Reason)
		if !strings.Contains(string(page), row) {
			t.Errorf("API.md has no row %s", row)
		}
	}
}
