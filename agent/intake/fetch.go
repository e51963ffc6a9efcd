package intake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/kairos-io/kairos/agent/config"
)

// Limits of a fetch.
const (
	maxText      = 1 << 20 // bytes; package config takes no more
	maxRedirects = 5
	attempt      = 20 * time.Second // for one request, from dialling to the last byte
	patience     = 15 * time.Second // for all requests, where an earlier boot's text is there
	firstPause   = time.Second      // between requests, doubled each time
	longestPause = 30 * time.Second
)

// Fetcher reads the URL of the kernel argument.
type Fetcher struct {
	HTTP *http.Client
	// Wait pauses; it returns early, with an error, only when ctx is done.
	Wait func(ctx context.Context, d time.Duration) error
	// Tell says what is being waited for, in one line.
	Tell func(line string)
}

// NewFetcher returns a Fetcher of the real network, without a proxy: nothing
// has configured one yet.
func NewFetcher(tell func(line string)) Fetcher {
	transport := &http.Transport{
		TLSHandshakeTimeout:   attempt / 2,
		ResponseHeaderTimeout: attempt,
		DisableKeepAlives:     true, // the route may be another one next time
	}
	return Fetcher{
		HTTP: &http.Client{Transport: transport, CheckRedirect: checkRedirect, Timeout: attempt},
		Wait: func(ctx context.Context, d time.Duration) error {
			t := time.NewTimer(d)
			defer t.Stop()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-t.C:
				return nil
			}
		},
		Tell: tell,
	}
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return errors.New("it redirects from https to " + req.URL.Scheme)
	}
	return nil
}

// Fetch reads the URL until it gave a good text, and takes that in. Where an
// earlier boot has had one, it gives up after some seconds and that text
// counts; otherwise it goes on until ctx ends: without its configuration the
// machine could take a wrong part. changed says that the text is not the one
// this boot began with.
func (m Machine) Fetch(ctx context.Context, f Fetcher, u *url.URL) (changed bool, err error) {
	before := m.readText(fromArgument)
	raw, err := m.try(ctx, f, u, before != nil)
	if err != nil {
		if before == nil || ctx.Err() != nil {
			return false, err
		}
		f.Tell(fmt.Sprintf("%v: what an earlier boot read of it counts", err))
		return false, nil
	}
	if err := m.remove(kept(u) + ".new"); err != nil {
		return false, err
	}
	if err := m.forgetOthers(u); err != nil {
		return false, err
	}
	if err := m.write(kept(u), raw); err != nil {
		return false, err
	}
	return !bytes.Equal(before, bytes.TrimSpace(raw)), m.write(fromArgument, raw)
}

func (m Machine) try(ctx context.Context, f Fetcher, u *url.URL, have bool) ([]byte, error) {
	limited := ctx
	if have {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	pause := firstPause
	for {
		raw, err := m.once(limited, f, u)
		if err == nil {
			return raw, nil
		}
		if limited.Err() == nil {
			f.Tell(fmt.Sprintf("waiting for %v", err))
		}
		if f.Wait(limited, pause) != nil {
			return nil, err
		}
		pause = min(2*pause, longestPause)
	}
}

// once makes one request and checks the answer.
func (m Machine) once(ctx context.Context, f Fetcher, u *url.URL) ([]byte, error) {
	raw, err := f.Read(ctx, u)
	if err != nil {
		return nil, err
	}
	draft := kept(u) + ".new"
	if err := m.write(draft, raw); err != nil {
		return nil, err
	}
	var r Report
	if err := config.CheckPart(m.path(draft), m.ID()); err != nil {
		if err := m.refuse(&r, shown(u), err); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("a good configuration: %s", r.Refused[0])
	}
	return raw, nil
}

// Read makes one request. Its errors name the URL without what may be secret in it.
func (f Fetcher) Read(ctx context.Context, u *url.URL) ([]byte, error) {
	raw, err := get(ctx, f.HTTP, u)
	if err != nil {
		return nil, fmt.Errorf("the configuration of %s: %w", shown(u), err)
	}
	return raw, nil
}

func get(ctx context.Context, client *http.Client, u *url.URL) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "kairos")
	resp, err := client.Do(req)
	if err != nil {
		var inner *url.Error // quotes the whole URL
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer was %s", resp.Status)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxText+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if len(raw) > maxText {
		return nil, fmt.Errorf("the answer is larger than %d bytes", maxText)
	}
	return raw, nil
}

// kept is where the text of a URL is kept. Another URL's must not be taken for it.
func kept(u *url.URL) string { return keptDir + "/url-" + hash([]byte(u.String()))[:16] + ".yaml" }

// forgetOthers removes what other URLs gave: it holds secrets, and will not be asked for.
func (m Machine) forgetOthers(u *url.URL) error {
	all, err := filepath.Glob(m.path(keptDir + "/url-*"))
	if err != nil {
		return fmt.Errorf("list what other URLs gave: %w", err)
	}
	for _, file := range all {
		if file == m.path(kept(u)) {
			continue
		}
		if err := os.Remove(file); err != nil {
			return fmt.Errorf("forget what another URL gave: %w", err)
		}
	}
	return nil
}
