package api

import (
	"context"
	"fmt"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"time"
)

func (s *Server) readRoutes() routes {
	rt := routes{}
	get := func(path string, h http.HandlerFunc) { rt[path] = methods{http.MethodGet: h} }
	get("/api/v1/status", func(w http.ResponseWriter, _ *http.Request) { WriteJSON(w, http.StatusOK, s.cfg.View.Status()) })
	get("/api/v1/peers", func(w http.ResponseWriter, _ *http.Request) { WriteJSON(w, http.StatusOK, orEmpty(s.cfg.View.Peers())) })
	get("/api/v1/records", func(w http.ResponseWriter, _ *http.Request) {
		WriteJSON(w, http.StatusOK, orEmpty(s.cfg.View.Records()))
	})
	get("/api/v1/nodes", s.serveNodes)
	get("/api/v1/cluster", s.serveCluster)
	if s.cfg.Metrics != nil {
		get("/metrics", s.cfg.Metrics.ServeHTTP)
	}
	get("/healthz", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "ok\n") })
	get("/readyz", s.serveReady)
	get("/", s.serveIndex)
	return rt
}

// serveNodes answers at once, or with ?after=REVISION&wait=DURATION once there is something newer.
func (s *Server) serveNodes(w http.ResponseWriter, r *http.Request) {
	after, wait, err := parseWait(r)
	if err != nil {
		WriteError(w, &Error{Message: err.Error(), Hint: "?after=12&wait=30s", Status: http.StatusBadRequest})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	if wait == 0 {
		after = 0
	}
	list := s.cfg.View.Nodes(ctx, after)
	list.Nodes = orEmpty(list.Nodes)
	WriteJSON(w, http.StatusOK, list)
}

func parseWait(r *http.Request) (after uint64, wait time.Duration, err error) {
	q := r.URL.Query()
	if v := q.Get("after"); v != "" {
		if after, err = strconv.ParseUint(v, 10, 64); err != nil {
			return 0, 0, fmt.Errorf("after must be a revision number, not %q", v)
		}
	}
	if v := q.Get("wait"); v != "" {
		if wait, err = time.ParseDuration(v); err != nil || wait < 0 {
			return 0, 0, fmt.Errorf("wait must be a duration of at most %s, not %q", MaxWait, v)
		}
	}
	return after, min(wait, MaxWait), nil
}

func (s *Server) serveCluster(w http.ResponseWriter, _ *http.Request) {
	c, err := s.cfg.View.Cluster()
	if err != nil {
		WriteError(w, err)
		return
	}
	WriteJSON(w, http.StatusOK, c)
}

func (s *Server) serveReady(w http.ResponseWriter, _ *http.Request) {
	if err := s.cfg.Ready(); err != nil {
		writeText(w, http.StatusServiceUnavailable, "not ready: "+err.Error()+"\n")
		return
	}
	writeText(w, http.StatusOK, "ok\n")
}

func (s *Server) serveIndex(w http.ResponseWriter, _ *http.Request) {
	paths := make([]string, 0, len(s.read))
	for p := range s.read {
		paths = append(paths, p)
	}
	sort.Strings(paths)
	st := s.cfg.View.Status()
	writeText(w, http.StatusOK, fmt.Sprintf("kairos overlay %s on %s\n\n%s\n", st.Name, st.Interface, strings.Join(paths, "\n")))
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // the caller went away: nobody to tell
}

// orEmpty makes an empty list out of none, so that JSON says [] and not null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
