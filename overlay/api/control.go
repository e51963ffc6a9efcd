package api

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
)

// controlPrefix begins every path that only the unix socket serves.
const controlPrefix = "/control/v1/"

func (s *Server) controlRoutes() routes {
	rt := routes{}
	add := func(method, name string, h http.HandlerFunc) { rt[controlPrefix+name] = methods{method: h} }
	add(http.MethodPut, "annotations", handle(func(in map[string]string) (any, error) {
		return nil, s.cfg.Control.SetAnnotations(in)
	}))
	add(http.MethodPut, "routes", handle(func(in Routes) (any, error) {
		return nil, s.cfg.Control.SetRoutes(in)
	}))
	add(http.MethodPost, "pin", handle(func(struct{}) (any, error) {
		return nil, s.cfg.Control.Pin()
	}))
	add(http.MethodPost, "sign", handle(s.sign))
	add(http.MethodPost, "certificate", handle(func(in CertificateRequest) (any, error) {
		chain, err := s.cfg.Control.Certificate(in.PublicKey)
		return CertificateAnswer{Chain: chain}, err
	}))
	add(http.MethodPut, "documents/cluster", handle(func(in Cluster) (any, error) {
		return nil, s.cfg.SetCluster(in)
	}))
	for name, h := range s.cfg.Extra {
		add(anyMethod, name, h.ServeHTTP)
	}
	return rt
}

func (s *Server) sign(in SignRequest) (any, error) {
	if !strings.HasPrefix(in.Context, ContextPrefix) {
		return nil, &Error{
			Message: "sign: the context must start with " + ContextPrefix,
			Status:  http.StatusForbidden,
		}
	}
	sig, err := s.cfg.Control.Sign(in.Context, in.Message)
	return SignAnswer{Signature: sig}, err
}

// handle decodes the body into T, calls f and writes what it answers. Unknown
// fields are ignored: overlay and agent may be of different versions during an upgrade.
func handle[T any](f func(T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in T
		if err := decodeBody(r.Body, &in); err != nil {
			WriteError(w, err)
			return
		}
		out, err := f(in)
		if err != nil {
			WriteError(w, err)
			return
		}
		if out == nil {
			out = struct{}{}
		}
		WriteJSON(w, http.StatusOK, out)
	}
}

func decodeBody(body io.Reader, out any) error {
	b, err := io.ReadAll(body)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return &Error{Message: "the request is too large", Status: http.StatusRequestEntityTooLarge}
	}
	if err != nil {
		return &Error{Message: "read the request: " + err.Error(), Status: http.StatusBadRequest}
	}
	if err := json.Unmarshal(b, out); err != nil {
		return &Error{Message: "decode the request: " + err.Error(), Status: http.StatusBadRequest}
	}
	return nil
}
