package api

import (
	"net"
	"net/http"
	"strings"
)

// guard stands before the TCP listener. A listener on loopback is reachable by
// every page that the user's browser shows: by a plain cross-site request, and
// by a foreign name that resolves to 127.0.0.1 (DNS rebinding), which makes the
// browser believe that our answers belong to the page. So a request must name
// us by a loopback name and our own port, must not come from another site, and
// must not be able to change anything.
type guard struct {
	port string
	next http.Handler
}

func (g guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	harden(w.Header())
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		WriteError(w, &Error{
			Message: "this listener is read-only",
			Hint:    "control requests go to the unix socket",
			Status:  http.StatusMethodNotAllowed,
		})
		return
	}
	if why := g.refuse(r); why != "" {
		WriteError(w, &Error{Message: why, Hint: "open http://localhost:" + g.port + " directly", Status: http.StatusForbidden})
		return
	}
	g.next.ServeHTTP(w, r)
}

// refuse returns why r must not be answered, or "".
func (g guard) refuse(r *http.Request) string {
	if !g.ownHost(r.Host) {
		return "the Host header does not name this listener"
	}
	for _, name := range []string{"Origin", "Referer"} {
		for _, v := range r.Header.Values(name) {
			if !g.ownOrigin(v) {
				return "the request comes from another site (" + name + ")"
			}
		}
	}
	for _, v := range r.Header.Values("Sec-Fetch-Site") {
		// same-site is not enough: another port of localhost is another program.
		if v != "same-origin" && v != "none" {
			return "the request comes from another site (Sec-Fetch-Site)"
		}
	}
	if len(r.Header.Values("Upgrade")) > 0 {
		return "protocol upgrades are not offered here"
	}
	if r.ContentLength != 0 {
		return "a read has no body"
	}
	return ""
}

func (g guard) ownHost(host string) bool {
	name, port, err := net.SplitHostPort(host)
	if err != nil || port != g.port {
		return false
	}
	// SplitHostPort takes the brackets off: "[::1]:8080" and only that gives "::1".
	return name == "localhost" || name == "127.0.0.1" || name == "::1"
}

// ownOrigin reports whether an Origin or Referer is one of our own pages. It
// compares text, not a parsed URL: what parses in two ways must not pass.
func (g guard) ownOrigin(v string) bool {
	rest, ok := strings.CutPrefix(v, "http://")
	if !ok {
		return false
	}
	host, _, _ := strings.Cut(rest, "/")
	return g.ownHost(host)
}

// harden sets the headers of every answer: nothing is a script, nothing is
// framed, nothing is kept, nothing is readable for other sites.
func harden(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
}
