package seed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/kairos-io/kairos/overlay/api"
)

// transfer reads one blob from one member, and goes on with the next one where
// that one broke off.
type transfer struct {
	client *Client
	ctx    context.Context
	blob   Piece
	at     int64    // next byte wanted
	left   []Member // still to be asked, best first
	gave   []Member // sent something, the last of them last
	errs   []error

	body   io.ReadCloser // of the member asked at present; nil: none
	from   Member
	began  bool // it has sent something
	inner  context.Context
	cancel context.CancelCauseFunc
	// Of this member: time spent waiting for it and bytes sent, since the last look.
	spent time.Duration
	got   int64
}

// errStalled: a member sends nothing, or hardly anything.
var errStalled = errors.New("it hardly sends anything")

// Read implements io.Reader.
func (t *transfer) Read(p []byte) (int, error) {
	if t.at == t.blob.Size {
		return 0, io.EOF
	}
	for {
		if t.body == nil {
			if err := t.next(); err != nil {
				return 0, err
			}
		}
		n, err := t.read(p[:min(int64(len(p)), t.blob.Size-t.at)])
		if n > 0 {
			if !t.began {
				t.gave, t.began = append(t.gave, t.from), true
			}
			t.at += int64(n)
		}
		if err == nil && t.slow() {
			err = errStalled
		}
		if err != nil && t.at < t.blob.Size {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			t.leave(err)
		}
		if n > 0 || t.ctx.Err() != nil {
			return n, t.ctx.Err()
		}
	}
}

// read reads from the present member, which must not take longer than the stall time.
func (t *transfer) read(p []byte) (int, error) {
	began := t.client.Now()
	timer := time.AfterFunc(t.client.Stall, func() { t.cancel(errStalled) })
	n, err := t.body.Read(p)
	timer.Stop()
	if err != nil && errors.Is(context.Cause(t.inner), errStalled) {
		err = errStalled // rather than talk of a cancelled context
	}
	t.spent += t.client.Now().Sub(began)
	t.got += int64(n)
	return n, err
}

// slow looks, after each stall time spent in waiting, at what came for it.
func (t *transfer) slow() bool {
	if t.spent < t.client.Stall {
		return false
	}
	enough := t.got >= slow
	t.spent, t.got = 0, 0
	return !enough && len(t.left) > 0 // slow is better than nobody
}

// next asks members until one answers.
func (t *transfer) next() error {
	for len(t.left) > 0 && t.ctx.Err() == nil {
		t.from, t.left = t.left[0], t.left[1:]
		if err := t.client.pace.Wait(t.ctx); err != nil {
			return err
		}
		ctx, cancel := context.WithCancelCause(t.ctx)
		timer := time.AfterFunc(t.client.Stall, func() { cancel(errStalled) })
		body, err := t.client.Peers.Get(ctx, t.from.ID, BlobPath+t.blob.Digest, t.at)
		timer.Stop()
		if err == nil {
			t.body, t.inner, t.cancel, t.began, t.spent, t.got = body, ctx, cancel, false, 0, 0
			return nil
		}
		cancel(nil)
		t.failed(err)
	}
	return errors.Join(t.ctx.Err(), ErrNobody, errors.Join(t.errs...))
}

// leave gives the present member up.
func (t *transfer) leave(err error) {
	if cause := context.Cause(t.ctx); cause == nil && t.body != nil {
		t.failed(err)
	}
	t.close()
}

func (t *transfer) failed(err error) {
	t.errs = append(t.errs, fmt.Errorf("%s: %w", t.from.Name, err))
	var answer *api.Error
	if errors.As(err, &answer) && (answer.Status == http.StatusServiceUnavailable || answer.Status == http.StatusTooManyRequests) {
		return // busy is no fault
	}
	t.client.resent(t.client.shaky, grudge{t.from.ID, t.blob.Digest}, shakyTime)
	t.client.Log.Debug("a member broke off", "peer", t.from.ID, "digest", t.blob.Digest, "at", t.at, "err", err)
}

func (t *transfer) close() {
	if t.body == nil {
		return
	}
	t.cancel(nil)
	_ = t.body.Close() // a stream that was read
	t.body = nil
}

// Close implements io.Closer.
func (t *transfer) Close() error {
	t.close()
	t.client.ended(t)
	return nil
}
