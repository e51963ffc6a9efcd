package seed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/kairos-io/kairos/overlay/api"
	"github.com/kairos-io/kairos/overlay/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// machine is a member that serves images, honestly unless answer says otherwise.
type machine struct {
	Member
	index  Index
	answer func(ctx context.Context, raw []byte) (io.ReadCloser, error) // of a blob from its offset on
}

// site is the members that a client sees. It implements Peers.
type site struct {
	mu       sync.Mutex
	machines []*machine
	blobs    map[string][]byte
	asked    []string // member, path, offset
}

func (s *site) Get(ctx context.Context, from identity.ID, path string, offset int64) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.machines {
		if m.ID != from {
			continue
		}
		s.asked = append(s.asked, fmt.Sprintf("%s %s %d", m.Name, path[:min(len(path), len(BlobPath)+12)], offset))
		if strings.HasPrefix(path, IndexPath) {
			raw, _, err := m.index.Encode()
			return io.NopCloser(bytes.NewReader(raw)), err
		}
		raw, ok := s.blobs[strings.TrimPrefix(path, BlobPath)]
		if !ok {
			return nil, &api.Error{Message: "no such blob", Status: http.StatusNotFound}
		}
		if m.answer != nil {
			return m.answer(ctx, raw[offset:])
		}
		return io.NopCloser(bytes.NewReader(raw[offset:])), nil
	}
	return nil, errors.New("no route to host")
}

func (s *site) add(t *testing.T, name string, images ...Image) *machine {
	t.Helper()
	m := &machine{Member: Member{ID: id(byte(len(s.machines) + 1)), Name: name}, index: Index{Images: images}}
	var err error
	if _, m.Tag, err = m.index.Encode(); err != nil {
		t.Fatal(err)
	}
	s.machines = append(s.machines, m)
	return m
}

func (s *site) client() *Client {
	return NewClient(Options{Peers: s, Arch: "amd64", Members: func() (identity.ID, []Member) {
		var list []Member
		for _, m := range s.machines {
			list = append(list, m.Member)
		}
		return id(255), list
	}})
}

// put adds a blob and returns how to ask for it.
func (s *site) put(image string, raw []byte) Piece {
	sum := sha256.Sum256(raw)
	b := Piece{Image: image, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(raw))}
	if s.blobs == nil {
		s.blobs = map[string][]byte{}
	}
	s.blobs[b.Digest] = raw
	return b
}

// fetch reads a blob as its user does: verified, and tried again while there is somebody to blame.
func fetch(ctx context.Context, c *Client, b Piece) ([]byte, error) {
	for {
		body := c.Open(ctx, b, 0)
		raw, err := io.ReadAll(body)
		_ = body.Close()
		if err != nil {
			return nil, err
		}
		if sum := sha256.Sum256(raw); "sha256:"+hex.EncodeToString(sum[:]) == b.Digest {
			return raw, nil
		}
		if !c.Blame(b.Digest) {
			return nil, errors.New("wrong, and nobody else to ask")
		}
	}
}

// Ways to be a bad neighbour.
func lies(_ context.Context, raw []byte) (io.ReadCloser, error) {
	raw = bytes.Clone(raw)
	raw[len(raw)-1] ^= 1
	return io.NopCloser(bytes.NewReader(raw)), nil
}

func diesMidway(_ context.Context, raw []byte) (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(bytes.NewReader(raw[:len(raw)/2]), broken{})), nil
}

func endsEarly(_ context.Context, raw []byte) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(raw[:len(raw)/2])), nil
}

func liesAndDies(_ context.Context, raw []byte) (io.ReadCloser, error) {
	wrong := bytes.Repeat([]byte("x"), len(raw)/2)
	return io.NopCloser(io.MultiReader(bytes.NewReader(wrong), broken{})), nil
}

func refuses(context.Context, []byte) (io.ReadCloser, error) {
	return nil, &api.Error{Message: "busy", Status: http.StatusServiceUnavailable}
}

func sendsTooMuch(_ context.Context, raw []byte) (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(bytes.NewReader(raw), endless{})), nil
}

func stalls(ctx context.Context, raw []byte) (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(bytes.NewReader(raw[:1]), waits{ctx})), nil
}

// hangs does not even answer.
func hangs(ctx context.Context, _ []byte) (io.ReadCloser, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// drips is never silent for long, and never done.
func drips(ctx context.Context, raw []byte) (io.ReadCloser, error) {
	return io.NopCloser(&dripping{ctx, raw}), nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

type waits struct{ ctx context.Context }

func (w waits) Read([]byte) (int, error) {
	<-w.ctx.Done()
	return 0, w.ctx.Err()
}

type dripping struct {
	ctx context.Context
	raw []byte
}

func (d *dripping) Read(p []byte) (int, error) {
	select {
	case <-time.After(10 * time.Second):
	case <-d.ctx.Done():
		return 0, d.ctx.Err()
	}
	n := copy(p, d.raw[:min(len(d.raw), 100)])
	d.raw = d.raw[n:]
	return n, nil
}

// Whatever neighbours do, the blob comes as long as one of them is honest, and
// then it is the right one.
func TestBadNeighbours(t *testing.T) {
	img := testImage("r/a:1", digest("1"))
	for _, tc := range []struct {
		name  string
		bad   []func(context.Context, []byte) (io.ReadCloser, error)
		alone bool // nobody is honest
		limit time.Duration
	}{
		{"all honest", nil, false, 0},
		{"one lies", list(lies), false, 0},
		{"three lie", list(lies, lies, lies), false, 0},
		{"one dies midway", list(diesMidway), false, 0},
		{"one ends early", list(endsEarly), false, 0},
		{"one sends the wrong half and dies", list(liesAndDies), false, 0},
		{"three of them", list(liesAndDies, liesAndDies, liesAndDies), false, 0},
		{"one is busy", list(refuses), false, 0},
		{"one does not stop", list(sendsTooMuch), false, 0},
		{"one stalls", list(stalls), false, 16 * time.Second},
		{"one hangs", list(hangs), false, 16 * time.Second},
		{"one drips", list(drips), false, 21 * time.Second},
		{"the whole choir", list(lies, diesMidway, endsEarly, liesAndDies, refuses, stalls, hangs, drips, sendsTooMuch), false, 2 * time.Minute},
		{"a lone liar", list(lies), true, 0},
		{"two liars alone", list(lies, liesAndDies), true, 0},
		{"a lone member that is slow is better than nobody", list(drips), true, -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &site{}
				raw := bytes.Repeat([]byte("0123456789abcdef"), 8<<10)
				b := s.put(img.Digest, raw)
				for _, answer := range tc.bad {
					s.add(t, "bad", img).answer = answer
				}
				if !tc.alone {
					s.add(t, "honest", img).RTT = time.Second // so that the bad ones are asked first
					for _, m := range s.machines[:len(tc.bad)] {
						m.RTT = time.Millisecond
					}
				}
				c := s.client()
				if _, err := c.Find(t.Context(), "r/a:1", ""); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				got, err := fetch(t.Context(), c, b)
				if tc.limit >= 0 && tc.alone {
					if err == nil {
						t.Error("there was nobody to get it from")
					}
					return
				}
				if err != nil || !bytes.Equal(got, raw) {
					t.Fatalf("%d bytes, %v; asked %q", len(got), err, s.asked)
				}
				if d := time.Since(began); tc.limit >= 0 && d > tc.limit+time.Second {
					t.Errorf("it took %s", d)
				}
			})
		})
	}
}

func list[T any](v ...T) []T { return v }

// Who lied about a blob is not asked for it again, and who died is asked last.
func TestGrudges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		img := testImage("r/a:1", digest("1"))
		s := &site{}
		b := s.put(img.Digest, bytes.Repeat([]byte("x"), 1000))
		liar, flaky := s.add(t, "liar", img), s.add(t, "flaky", img)
		s.add(t, "honest", img)
		liar.answer, flaky.answer = lies, diesMidway
		c := s.client()
		if _, err := c.Find(t.Context(), "r/a:1", ""); err != nil {
			t.Fatal(err)
		}
		if _, err := fetch(t.Context(), c, b); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			s.asked = nil
			if _, err := fetch(t.Context(), c, b); err != nil {
				t.Fatal(err)
			}
			for _, a := range s.asked {
				if strings.HasPrefix(a, "liar ") && c.holds(c.liars, liar.ID, b.Digest) {
					t.Errorf("the liar was asked again: %q", s.asked)
				}
			}
		}
		time.Sleep(liarTime + time.Second) // the bubble's clock
		if c.holds(c.liars, liar.ID, b.Digest) || c.holds(c.shaky, flaky.ID, b.Digest) {
			t.Error("nothing is ever forgiven")
		}
	})
}

func TestTransferGoesOnFromAnOffset(t *testing.T) {
	img := testImage("r/a:1", digest("1"))
	s := &site{}
	raw := []byte("0123456789")
	b := s.put(img.Digest, raw)
	s.add(t, "a", img)
	c := s.client()
	c.refresh(t.Context())
	body := c.Open(t.Context(), b, 4)
	got, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil || string(got) != "456789" {
		t.Errorf("got %q, %v; asked %q", got, err, s.asked)
	}
}

// One question for each distinct index, and none to who has nothing.
func TestIndexesAreAskedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &site{}
		for range 30 {
			s.add(t, "same", testImage("r/a:1", digest("1")))
			s.add(t, "empty")
		}
		other := s.add(t, "other", testImage("r/b:1", digest("2")))
		c := s.client()
		for range 5 {
			offers, err := c.Offers(t.Context(), Index{})
			if err != nil || len(offers) != 2 {
				t.Fatalf("%+v, %v", offers, err)
			}
		}
		if len(s.asked) != 2 {
			t.Errorf("asked %q", s.asked)
		}
		// A tag that does not fit the index: nobody believes it, and nobody is pestered.
		other.Tag = tagOf([]byte("something else"))
		s.asked = nil
		for range 5 {
			if offers, err := c.Offers(t.Context(), Index{}); err != nil || len(offers) != 1 {
				t.Fatalf("%+v, %v", offers, err)
			}
		}
		if wait, ok := c.Missing(); len(s.asked) != 1 || !ok || wait != restTime {
			t.Errorf("asked %q, again in %s", s.asked, wait)
		}
		for range 20 {
			time.Sleep(maxRest) // the bubble's clock
			if _, err := c.Offers(t.Context(), Index{}); err != nil {
				t.Fatal(err)
			}
		}
		if wait, ok := c.Missing(); len(s.asked) != 21 || !ok || wait != maxRest {
			t.Errorf("asked %d times, again in %s", len(s.asked), wait)
		}
		_, other.Tag, _ = other.index.Encode() // as before
		time.Sleep(maxRest)
		if offers, err := c.Offers(t.Context(), Index{}); err != nil || len(offers) != 2 {
			t.Errorf("%+v, %v", offers, err)
		}
		if wait, ok := c.Missing(); ok {
			t.Errorf("all is known, and yet something is missing in %s", wait)
		}
	})
}

func TestFind(t *testing.T) {
	amd, arm := testImage("r/a:1", digest("1")), testImage("r/a:1", digest("2"))
	arm.Arch = "arm64"
	amd.Manifest, amd.ManifestSize = digest("3"), 77
	unnamed := testImage("", digest("4"))
	s := &site{}
	s.add(t, "a", amd, arm, unnamed)
	c := s.client()
	for _, tc := range []struct {
		name, ref, digest string
		want              string
		size              int64
	}{
		{"by name, this platform's", "r/a:1", "", digest("1"), 500},
		{"by digest", "", digest("1"), digest("1"), 500},
		{"by the manifest's digest", "x/y:z", digest("3"), digest("3"), 77},
		{"one without a name, by digest", "", digest("4"), digest("4"), 500},
		{"another platform's", "", digest("2"), "", 0},
		{"no such name", "r/a:2", "", "", 0},
		{"no name is not a name", "", "", "", 0},
		{"the digest counts, not the name", "r/a:1", digest("9"), "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := c.Find(t.Context(), tc.ref, tc.digest)
			if got.Digest != tc.want || got.Size != tc.size || (err != nil) != (tc.want == "") {
				t.Errorf("got %+v, %v", got, err)
			}
			if tc.want == "" && !errors.Is(err, ErrNobody) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestOffers(t *testing.T) {
	k3s := testImage("r/k3s:1", digest("5"))
	k3s.Use = ForK3s
	s := &site{}
	s.add(t, "a", testImage("r/a:1", digest("1")), testImage("r/b:1", digest("2")), k3s)
	s.add(t, "b", testImage("r/a:1", digest("1")), testImage("r/b:1", digest("3")), testImage("", digest("6")))
	offers, err := s.client().Offers(t.Context(), Index{})
	if len(offers) != 1 || offers[0].Name != "r/a:1" {
		t.Errorf("offers %+v: want what is agreed on, for pods, with a name", offers)
	}
	if !errors.Is(err, ErrDisagree) || !strings.Contains(err.Error(), "r/b:1") {
		t.Errorf("got %v", err)
	}
}
