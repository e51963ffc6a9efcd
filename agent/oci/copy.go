package oci

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// firstPause is the wait before the second try.
const firstPause = 500 * time.Millisecond

// job is the transfer of one blob.
type job struct {
	src      source
	store    Store
	desc     v1.Descriptor
	blob     Blob
	progress progress
}

type progress struct {
	report      func(done, total int64)
	base, total int64
}

func (p progress) at(n int64) {
	if p.report != nil {
		p.report(p.base+n, p.total)
	}
}

func copyBlob(ctx context.Context, j job, opts Options) error {
	return retry(ctx, opts, func(ctx context.Context, alive func()) error {
		ok, err := j.store.Has(ctx, j.blob)
		if err != nil || ok {
			return err
		}
		rc, err := j.src.open(ctx, j.desc)
		if err != nil {
			return err
		}
		v := newVerifier(rc, j.desc)
		v.progress, v.alive = j.progress, alive
		err = j.store.Write(ctx, j.blob, v)
		// What the source did wrong explains more than the store's view of it.
		if v.err != nil && !errors.Is(v.err, io.EOF) {
			err = v.err
		}
		return blame(j.src, j.blob, errors.Join(err, rc.Close()))
	})
}

// blame lets a source that is several machines know that one of them sent wrong
// content. Another try is then some use.
func blame(src source, b Blob, err error) error {
	p, ok := src.(*placeSource)
	if !ok || !errors.Is(err, ErrDigest) || !p.place.Blame(b) {
		return err
	}
	return fmt.Errorf("%w: %s", errOther, err)
}

func writeManifest(ctx context.Context, store Store, b Blob, raw []byte) error {
	if ok, err := store.Has(ctx, b); err != nil || ok {
		return err
	}
	return store.Write(ctx, b, bytes.NewReader(raw))
}

// readSmall reads a manifest or a configuration into memory, verified.
func readSmall(ctx context.Context, src source, d v1.Descriptor, opts Options) ([]byte, error) {
	if d.Size > maxManifest {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, d.Size)
	}
	var raw []byte
	err := retry(ctx, opts, func(ctx context.Context, _ func()) error {
		rc, err := src.open(ctx, d)
		if err != nil {
			return err
		}
		raw, err = io.ReadAll(newVerifier(rc, d))
		return blame(src, Blob{MediaType: string(d.MediaType), Digest: d.Digest.String(), Size: d.Size}, errors.Join(err, rc.Close()))
	})
	return raw, err
}

// verifier passes a blob through and fails, instead of reporting its end, when
// its size or digest is not what the descriptor promised.
type verifier struct {
	r        io.Reader
	want     v1.Descriptor
	sum      hash.Hash
	n        int64
	part     bool // the beginning was passed over: the digest is the store's to check
	err      error
	progress progress
	alive    func() // called whenever something arrives
}

func newVerifier(r io.Reader, d v1.Descriptor) *verifier {
	return &verifier{r: r, want: d, sum: sha256.New(), alive: func() {}}
}

// Read implements io.Reader. It never hands out more bytes than promised.
func (v *verifier) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.r.Read(p)
	v.alive()
	if v.n+int64(n) > v.want.Size {
		v.err = fmt.Errorf("%w: more than %d bytes", ErrDigest, v.want.Size)
		return 0, v.err
	}
	_, _ = v.sum.Write(p[:n]) // a hash never fails
	v.n += int64(n)
	v.progress.at(v.n)
	switch {
	case errors.Is(err, io.EOF):
		err = v.finish()
	case err != nil && v.n == v.want.Size:
		// The source may verify too, with an error of its own kind; ours tells that another try is no use.
		if own := v.finish(); errors.Is(own, ErrDigest) {
			err = own
		}
	}
	v.err = err
	return n, err
}

// Seek implements io.Seeker, forwards only: to where a store's unfinished blob
// ends. A source that cannot seek is read up to there.
func (v *verifier) Seek(offset int64, whence int) (int64, error) {
	if whence != io.SeekStart || offset < v.n {
		return v.n, errors.New("seek backwards in a transfer")
	}
	s, ok := v.r.(io.Seeker)
	if !ok {
		_, err := io.CopyN(io.Discard, v, offset-v.n)
		return v.n, err
	}
	n, err := s.Seek(offset, whence)
	if err == nil {
		v.part, v.n = v.part || n > v.n, n
	}
	return n, err
}

func (v *verifier) finish() error {
	if v.n != v.want.Size {
		return fmt.Errorf("%w: %d bytes instead of %d", io.ErrUnexpectedEOF, v.n, v.want.Size)
	}
	if v.part {
		return io.EOF
	}
	if got := hex.EncodeToString(v.sum.Sum(nil)); got != v.want.Digest.Hex || v.want.Digest.Algorithm != "sha256" {
		return fmt.Errorf("%w: wanted %s, got sha256:%s", ErrDigest, v.want.Digest, got)
	}
	return io.EOF
}

func hashOf(raw []byte) v1.Hash {
	sum := sha256.Sum256(raw)
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

func checkBytes(raw []byte, want v1.Hash) error {
	if got := hashOf(raw); got != want {
		return fmt.Errorf("%w: wanted %s, got %s", ErrDigest, want, got)
	}
	return nil
}

// retry calls f up to opts.Attempts times with doubling pauses. Errors that
// another try cannot mend end it at once.
func retry(ctx context.Context, opts Options, f func(ctx context.Context, alive func()) error) error {
	pause := firstPause
	for i := 1; ; i++ {
		err := watched(ctx, opts.Stall, f)
		if err == nil || i >= opts.Attempts || !temporary(err) {
			return err
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return errors.Join(ctx.Err(), err)
		case <-t.C:
		}
		pause *= 2
	}
}

// watched calls f and cancels its context when f did not call alive for limit:
// a connection that was forgotten on the way ends in no other way.
func watched(ctx context.Context, limit time.Duration, f func(ctx context.Context, alive func()) error) error {
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(limit, func() { cancel(ErrStalled) })
	defer timer.Stop()
	err := f(inner, func() { timer.Reset(limit) })
	if err != nil && errors.Is(context.Cause(inner), ErrStalled) {
		return fmt.Errorf("%w for %s", ErrStalled, limit) // instead of talk of a cancelled context
	}
	return err
}

// temporary reports whether asking again may help.
func temporary(err error) bool {
	switch {
	case errors.Is(err, errOther):
		return true
	case errors.As(err, new(*writeError)), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, ErrDigest), errors.Is(err, ErrPlatform), errors.Is(err, ErrTooLarge), errors.Is(err, ErrNotFound), errors.Is(err, ErrUnproven):
		return false
	}
	var te *transport.Error
	if errors.As(err, &te) {
		return te.Temporary() || te.StatusCode == http.StatusTooManyRequests || te.StatusCode >= 500
	}
	return true
}
