package admin

import (
	"encoding/json"
	"net/http"
)

// problem is one kind of failure (RFC 9457). The names are those of the applications' listener.
type problem struct {
	status      int
	name, title string
}

var (
	problemKey       = problem{http.StatusBadRequest, "invalid-key", "Invalid key"}
	problemCrossSite = problem{http.StatusForbidden, "cross-site", "Request from another web site"}
	problemNoRoute   = problem{http.StatusNotFound, "no-such-route", "No such route"}
	problemDataset   = problem{http.StatusNotFound, "unknown-dataset", "Unknown dataset"}
	problemMethod    = problem{http.StatusMethodNotAllowed, "method-not-allowed", "Method not allowed"}
	problemHost      = problem{http.StatusMisdirectedRequest, "wrong-host", "Wrong Host"}
	problemInternal  = problem{http.StatusInternalServerError, "internal", "Internal error"}
)

func (p problem) write(w http.ResponseWriter, detail string) {
	body, _ := json.Marshal(struct { // of strings and a number: cannot fail
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{"https://ringside.dev/problems/" + p.name, p.title, p.status, detail})
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.status)
	_, _ = w.Write(append(body, '\n'))
}
