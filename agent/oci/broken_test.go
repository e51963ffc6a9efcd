package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Registries and layouts that misbehave.

// hang makes the first n requests whose path holds part send half an answer and then nothing.
func hang(n int64, part string) func(http.Handler) http.Handler {
	var seen atomic.Int64
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, part) || seen.Add(1) > n {
				next.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Length", "4000")
			_, _ = w.Write(make([]byte, 10))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done() // the other side gives up
		})
	}
}

// The uplink went away in the middle and nobody said so.
func TestStalledTransferIsGivenUp(t *testing.T) {
	for _, tc := range []struct {
		name, part string
		count      int64
		want       error
	}{
		{"a layer, once: tried again", "/blobs/", 1, nil},
		{"a layer, always", "/blobs/", 1 << 30, ErrStalled},
		{"the manifest, once", "/manifests/", 1, nil},
		{"the manifest, always", "/manifests/", 1 << 30, ErrStalled},
	} {
		t.Run(tc.name, func(t *testing.T) {
			host := serve(t, hang(tc.count, tc.part))
			push(t, host+"/k3s:v1", testImage(t, "amd64"))
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := Pull(ctx, mustRef(t, host+"/k3s:v1"), newMemory(), Options{Arch: "amd64", Attempts: 2, Stall: 100 * time.Millisecond})
			if !errors.Is(err, tc.want) || ctx.Err() != nil {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// A registry that sends a request round in circles is left at once.
func TestRedirectsInCircles(t *testing.T) {
	var asked atomic.Int64
	var circles atomic.Bool
	host := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !circles.Load() || !strings.Contains(r.URL.Path, "/blobs/") {
				next.ServeHTTP(w, r)
				return
			}
			asked.Add(1)
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		})
	})
	push(t, host+"/k3s:v1", testImage(t, "amd64"))
	circles.Store(true)
	_, err := Pull(t.Context(), mustRef(t, host+"/k3s:v1"), newMemory(), Options{Arch: "amd64", Attempts: 1})
	if err == nil || !strings.Contains(err.Error(), "stopped after 10 redirects") || asked.Load() != maxRedirects+1 {
		t.Errorf("got %v after %d requests", err, asked.Load())
	}
}

// A slow transfer is no stalled one, however long it takes.
func TestWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tc := range []struct {
			name  string
			each  time.Duration
			times int
			want  error
		}{
			{"slow", 59 * time.Second, 100, nil},
			{"stalled", 61 * time.Second, 1, ErrStalled},
		} {
			err := watched(t.Context(), time.Minute, func(ctx context.Context, alive func()) error {
				for range tc.times {
					select {
					case <-ctx.Done():
						return ctx.Err()
					case <-time.After(tc.each):
						alive()
					}
				}
				return nil
			})
			if !errors.Is(err, tc.want) || errors.Is(err, context.Canceled) {
				t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
			}
		}
	})
}

// What is tried again, and what another try cannot mend.
func TestRetry(t *testing.T) {
	for _, tc := range []struct {
		name  string
		err   error
		tries int
	}{
		{"works", nil, 1},
		{"connection lost", io.ErrUnexpectedEOF, 4},
		{"stalled", ErrStalled, 4},
		{"wrong content", fmt.Errorf("x: %w", ErrDigest), 1},
		{"wrong platform", ErrPlatform, 1},
		{"not there", ErrNotFound, 1},
		{"too large", ErrTooLarge, 1},
		{"given up by the caller", context.Canceled, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tries, begin := 0, time.Now()
				err := retry(t.Context(), Options{}.withDefaults(), func(context.Context, func()) error { tries++; return tc.err })
				if !errors.Is(err, tc.err) || tries != tc.tries {
					t.Errorf("%d tries, %v; want %d", tries, err, tc.tries)
				}
				want := firstPause * time.Duration(1<<(tc.tries-1)-1) // 0.5 s + 1 s + 2 s
				if took := time.Since(begin); took != want {
					t.Errorf("took %s, want %s", took, want)
				}
			})
		})
	}
}

// Manifests that would cost too much, or cannot be run.
func TestParseManifest(t *testing.T) {
	sha := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("ab", 32)}
	layer := func(size int64, mt types.MediaType) v1.Descriptor {
		return v1.Descriptor{MediaType: mt, Digest: sha, Size: size}
	}
	good := func() *v1.Manifest {
		return &v1.Manifest{SchemaVersion: 2, Config: v1.Descriptor{Digest: sha, Size: 10}, Layers: []v1.Descriptor{layer(10, types.OCILayer)}}
	}
	for _, tc := range []struct {
		name string
		edit func(*v1.Manifest)
		want string
	}{
		{"good", func(*v1.Manifest) {}, ""},
		{"no layers", func(m *v1.Manifest) { m.Layers = nil }, "no configuration or no layers"},
		{"too many layers", func(m *v1.Manifest) { m.Layers = slices.Repeat(m.Layers, maxLayers+1) }, "129 layers"},
		{"a huge layer", func(m *v1.Manifest) { m.Layers[0].Size = maxImage + 1 }, ErrTooLarge.Error()},
		{"a layer of less than nothing", func(m *v1.Manifest) { m.Layers[0].Size = -1 }, ErrTooLarge.Error()},
		{"layers that are huge together", func(m *v1.Manifest) {
			m.Layers = []v1.Descriptor{layer(maxImage-1, types.OCILayer), layer(maxImage-1, types.OCILayer)}
		}, ErrTooLarge.Error()},
		{"a layer that may not be passed on", func(m *v1.Manifest) { m.Layers[0].MediaType = types.DockerForeignLayer }, "is not distributable"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := good()
			tc.edit(m)
			raw, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			_, err = parseManifest(raw)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	for _, raw := range []string{"<html>", "{}", `{"layers":[]}`} {
		if _, err := parseManifest([]byte(raw)); err == nil {
			t.Errorf("%s was taken for a manifest", raw)
		}
	}
}

// A layout that was half copied, or is none.
func TestLayoutsThatAreNone(t *testing.T) {
	for _, tc := range []struct {
		name, index string
		want        string
	}{
		{"empty directory", "", ErrNotFound.Error()},
		{"index cut short", `{"manifests":[`, "decode index.json"},
		{"index of nothing", `{"manifests":[]}`, ErrPlatform.Error()},
		{"manifest is not there", `{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":3,"digest":"sha256:` + strings.Repeat("ab", 32) + `"}]}`, "blob sha256:abab"},
		{"manifest of a silly size", `{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":99999999999,"digest":"sha256:` + strings.Repeat("ab", 32) + `"}]}`, ErrTooLarge.Error()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if tc.index != "" {
				if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte(tc.index), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := Resolve(t.Context(), mustRef(t, "oci:"+dir), Options{Attempts: 1})
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// A store that fails is told as such, and the source is not blamed.
func TestStoreThatFails(t *testing.T) {
	host := serve(t, nil)
	push(t, host+"/k3s:v1", testImage(t, "amd64"))
	full := errors.New("no space left on device")
	_, err := Pull(t.Context(), mustRef(t, host+"/k3s:v1"), failing{full}, Options{Arch: "amd64", Attempts: 1})
	if !errors.Is(err, full) || !strings.Contains(err.Error(), "fetch sha256:") {
		t.Errorf("got %v", err)
	}
}

type failing struct{ err error }

func (failing) Has(context.Context, Blob) (bool, error) { return false, nil }

func (f failing) Write(context.Context, Blob, io.Reader) error { return f.err }
