package intake

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// web is a server whose answers are given, one for each request; the last stays.
type web struct {
	*httptest.Server
	answers []http.HandlerFunc
	asked   int
}

func newWeb(t testing.TB, answers ...http.HandlerFunc) *web {
	w := &web{answers: answers}
	w.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		a := w.answers[min(w.asked, len(w.answers)-1)]
		w.asked++
		a(rw, r)
	}))
	t.Cleanup(w.Close)
	return w
}

func (w *web) url(t testing.TB) *url.URL {
	t.Helper()
	u, err := url.Parse(w.URL + "/config.yaml?key=SECRET")
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func says(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, s) }
}

// fetcher waits for nothing, and for ever after so many pauses.
func fetcher(told *[]string, pauses int) Fetcher {
	f := NewFetcher(func(line string) { *told = append(*told, line) })
	f.Wait = func(context.Context, time.Duration) error {
		if pauses--; pauses < 0 {
			return context.DeadlineExceeded
		}
		return nil
	}
	return f
}

func TestFetchTakesTheFirstGoodAnswer(t *testing.T) {
	good := goodText(t)
	w := newWeb(t,
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		says("<html>log in here</html>"),
		says("#cloud-config\nkairos: {rolle: worker}\n"),
		says(strings.Repeat("x", maxText+1)),
		says(good))
	m, u := newMachine(t, nil), w.url(t)
	var told []string
	changed, err := m.Fetch(t.Context(), fetcher(&told, 4), u)
	if err != nil || !changed {
		t.Fatalf("%v, %v", changed, err)
	}
	want := []string{
		"waiting for the configuration of " + w.URL + "/config.yaml: the answer was 503 Service Unavailable",
		"waiting for a good configuration: " + w.URL + "/config.yaml:1: is not a cloud-config: the first line must be #cloud-config",
		"waiting for a good configuration: " + w.URL + "/config.yaml:2: kairos.rolle: unknown key; did you mean role?",
		"waiting for the configuration of " + w.URL + "/config.yaml: the answer is larger than 1048576 bytes",
	}
	if strings.Join(told, "\n") != strings.Join(want, "\n") {
		t.Errorf("told:\n%s\nwant:\n%s", strings.Join(told, "\n"), strings.Join(want, "\n"))
	}
	if text(t, m, fromArgument) != good || text(t, m, kept(u)) != good || mode(t, m, kept(u)) != 0o600 || text(t, m, kept(u)+".new") != "-" {
		t.Error("not taken in, or not kept, or others may read it")
	}
}

// The next boot has the text before there is a network, and goes on with it
// when the server is gone.
func TestFetchedTextIsKept(t *testing.T) {
	good := goodText(t)
	w := newWeb(t, says(good))
	u := w.url(t)
	m := newMachine(t, map[string]string{"proc/cmdline": "kairos.config=" + u.String()})
	var told []string
	if _, err := m.Fetch(t.Context(), fetcher(&told, 0), u); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := m.remove(fromArgument); err != nil { // the reboot
		t.Fatal(err)
	}
	if gather(t, m); text(t, m, fromArgument) != good {
		t.Error("not there before the network")
	}
	changed, err := m.Fetch(t.Context(), fetcher(&told, 1), u)
	if err != nil || changed || text(t, m, fromArgument) != good {
		t.Errorf("%v, %v, %q", changed, err, text(t, m, fromArgument))
	}
	if last := told[len(told)-1]; !strings.Contains(last, "refused: what an earlier boot read of it counts") {
		t.Errorf("told %q", last)
	}
}

func TestFetchAgain(t *testing.T) {
	first, second := goodText(t), goodText(t)
	w := newWeb(t, says(first), says(first), says(second))
	m, u := newMachine(t, nil), w.url(t)
	var told []string
	for i, want := range []bool{true, false, true} {
		if changed, err := m.Fetch(t.Context(), fetcher(&told, 0), u); err != nil || changed != want {
			t.Errorf("fetch %d: changed %v, %v", i, changed, err)
		}
	}
	other := newWeb(t, says(first)).url(t)
	if _, err := m.Fetch(t.Context(), fetcher(&told, 0), other); err != nil {
		t.Fatal(err)
	}
	if text(t, m, kept(u)) != "-" || text(t, m, kept(other)) != first {
		t.Error("what the other URL gave is still there")
	}
}

func TestFetchWithoutAnEarlierTextGoesOn(t *testing.T) {
	w := newWeb(t, says("no"))
	m := newMachine(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var told []string
	f := fetcher(&told, 0)
	f.Wait = func(context.Context, time.Duration) error {
		if len(told) == 7 {
			cancel()
		}
		return ctx.Err()
	}
	_, err := m.Fetch(ctx, f, w.url(t))
	if err == nil || len(told) < 7 || text(t, m, fromArgument) != "-" {
		t.Errorf("gave up after %d: %v", len(told), err)
	}
	if changed, err := m.Fetch(t.Context(), fetcher(&told, 0), w.url(t)); err == nil || changed {
		t.Errorf("no text at all counts as an earlier one: %v, %v", changed, err)
	}
	if strings.Contains(strings.Join(told, "")+err.Error(), "SECRET") {
		t.Errorf("the URL's key is told: %q", told)
	}
}

func TestFetchErrorsKeepTheURLToThemselves(t *testing.T) {
	w := newWeb(t, says("x"))
	u := w.url(t)
	u.User = url.UserPassword("me", "SECRET")
	w.Close()
	_, err := get(t.Context(), http.DefaultClient, u)
	if err == nil || strings.Contains(err.Error()+shown(u), "SECRET") {
		t.Errorf("told: %v %s", err, shown(u))
	}
}

func TestRedirects(t *testing.T) {
	request := func(s string) *http.Request {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return &http.Request{URL: u}
	}
	secure, plain := request("https://a/"), request("http://a/")
	tests := []struct {
		name string
		to   *http.Request
		via  int
		from *http.Request
		ok   bool
	}{
		{"to https", secure, 1, plain, true},
		{"within https", secure, 1, secure, true},
		{"down to http", plain, 1, secure, false},
		{"too many", plain, maxRedirects, plain, false},
	}
	for _, tt := range tests {
		via := []*http.Request{}
		for range tt.via {
			via = append(via, tt.from)
		}
		if err := checkRedirect(tt.to, via); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if NewFetcher(nil).HTTP.Timeout == 0 {
		t.Error("a request has no deadline")
	}
}

// Waiting really ends with the context.
func TestWait(t *testing.T) {
	f := NewFetcher(nil)
	if err := f.Wait(t.Context(), time.Nanosecond); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Wait(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
