// Package admission reads admission reviews of pods from a stream. It keeps only the fields that inject.Patch uses, and bounds
// each of them while it reads, so that a review of any content costs little memory.
package admission

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"k8s.io/apimachinery/pkg/types"
)

// Request is the part of an admission request that the webhook uses.
type Request struct {
	UID       types.UID
	Namespace string
	DryRun    bool
	Pod       *Pod
}

// Rejection is a pod that the injector does not read to its end. The text is for the client that creates the pod.
type Rejection struct{ text string }

// Error implements error.
func (r *Rejection) Error() string { return r.text }

func rejectf(format string, args ...any) error { return &Rejection{fmt.Sprintf(format, args...)} }

// bufferSize is what a review that arrives slowly holds, besides the fields that have been read.
const bufferSize = 4 << 10

// maxName is the longest name of an object; maxUID is that of a review, which has 36 characters.
const maxName, maxUID = 253, 128

// Read reads a review. If it fails with a Rejection, the request is not nil and has the UID, if that came before the pod.
func Read(body io.Reader) (*Request, error) {
	s := &scanner{r: bufio.NewReaderSize(body, bufferSize)}
	var q *Request
	err := s.object(func(name string) error {
		if name != "request" {
			return s.skip()
		}
		q = new(Request)
		return readRequest(s, q)
	})
	var rejected *Rejection
	switch {
	case errors.As(err, &rejected):
		return q, err
	case err != nil:
		return nil, fmt.Errorf("decode the admission review: %w", err)
	case q == nil:
		return nil, errors.New("decode the admission review: it has no request")
	case q.Pod == nil:
		return nil, errors.New("decode the admission review: it has no object")
	}
	return q, nil
}

func readRequest(s *scanner, q *Request) error {
	var group, kind string
	err := s.object(func(name string) (err error) {
		switch name {
		case "uid":
			var uid string
			uid, err = s.string("the uid of the review", maxUID)
			q.UID = types.UID(uid)
		case "namespace":
			q.Namespace, err = s.string("the namespace", maxName)
		case "dryRun":
			q.DryRun, err = s.bool()
		case "kind":
			err = s.object(func(name string) (err error) {
				switch name {
				case "group":
					group, err = s.string("the group of the kind", maxName)
				case "kind":
					kind, err = s.string("the kind", maxName)
				default:
					err = s.skip()
				}
				return err
			})
		case "object":
			err = readObject(s, q)
		default:
			err = s.skip()
		}
		return err
	})
	if err == nil && (group != "" || kind != "Pod") {
		return fmt.Errorf("it is for a %s; this webhook handles pods only", kind)
	}
	return err
}

func readObject(s *scanner, q *Request) error {
	if null, err := s.null(); null || err != nil {
		return err
	}
	q.Pod = new(Pod)
	p := podReader{scanner: s, Pod: q.Pod}
	return p.read()
}
