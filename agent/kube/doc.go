// Package kube is what a server does to its cluster as an administrator, through
// the Kubernetes API: the lock that lets one server after the other upgrade, and
// taking a node out for good.
//
// Every call is one short exchange and can be repeated; what takes long (waiting
// for pods to end) is a loop of the caller's.
package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// API is the Kubernetes API with an administrator's rights; k3s.Probe implements it.
type API interface {
	// Do sends one request and returns any status that came back; an error means
	// that none did. A PATCH is a merge patch.
	Do(ctx context.Context, method, path string, body []byte) (status int, answer []byte, err error)
}

// StatusError is an answer of the API that nobody expected.
type StatusError struct {
	Verb    string // what was being done
	Status  int
	Message string // the API's own, may be empty
}

// Error implements error.
func (e *StatusError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("%s: the Kubernetes API answered %d %s", e.Verb, e.Status, http.StatusText(e.Status))
	}
	return fmt.Sprintf("%s: %s", e.Verb, e.Message)
}

// unexpected makes a StatusError of an answer, which is a v1.Status normally.
func unexpected(verb string, status int, answer []byte) error {
	var s struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(answer, &s) != nil {
		s.Message = "" // not from Kubernetes itself
	}
	return &StatusError{Verb: verb, Status: status, Message: s.Message}
}

// call is one exchange with bodies as Go values; in and out may be nil. Only a
// 2xx is decoded.
func call(ctx context.Context, api API, x exchange) (status int, raw []byte, err error) {
	var body []byte
	if x.in != nil {
		if body, err = json.Marshal(x.in); err != nil {
			return 0, nil, fmt.Errorf("%s: encode the request: %w", x.verb, err)
		}
	}
	status, raw, err = api.Do(ctx, x.method, x.path, body)
	if err != nil {
		return 0, nil, fmt.Errorf("%s: %w", x.verb, err)
	}
	if status/100 == 2 && x.out != nil {
		if err := json.Unmarshal(raw, x.out); err != nil {
			return 0, nil, fmt.Errorf("%s: decode the answer: %w", x.verb, err)
		}
	}
	return status, raw, nil
}

type exchange struct {
	verb, method, path string
	in, out            any
}
