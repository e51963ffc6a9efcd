package admission

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/kairos-io/kairos/overlay/identity"
	"github.com/kairos-io/kairos/overlay/internal/link"
	"github.com/kairos-io/kairos/overlay/token"
)

const site = "192.0.2.1"

func TestGatesAgree(t *testing.T) {
	l := newNode(t, door(1, 1), func(c *Config) {
		c.Terms = func() Terms { return Terms{Features: 3, Run: Run{99}} }
	})
	d := newNode(t, door(1, 1), func(c *Config) { c.Run = Run{2} })
	atL, atD := admitted(t.Context(), l, d, site)
	if atL.err != nil || atD.err != nil {
		t.Fatalf("listener: %v, dialler: %v", atL.err, atD.err)
	}
	if atL.adm.Peer != d.id || atD.adm.Peer != l.id || atL.adm.Session != atD.adm.Session || atL.adm.Standing != Member {
		t.Errorf("listener: %+v, dialler: %+v", atL.adm, atD.adm)
	}
	if !bytes.Equal(atL.adm.PSK.Bytes(), atD.adm.PSK.Bytes()) {
		t.Error("the ends have different keys")
	}
	if atL.adm.Run != (Run{2}) || atD.adm.Run != (Run{1}) || atD.adm.Terms.Features != 3 {
		t.Errorf("the ends know each other's terms as %+v and %+v", atL.adm.Terms, atD.adm.Terms)
	}
	if a, b := l.Stats(), d.Stats(); a != (Stats{Admitted: 1}) || b != (Stats{Admitted: 1}) {
		t.Errorf("counted %+v and %+v", a, b)
	}
}

// Whoever closes the stream second may be told that it is gone. Both have
// proven the token by then, and both say so.
func TestEitherEndMayCloseFirst(t *testing.T) {
	gone := errors.New("close called for canceled stream")
	for name, closing := range map[string][2]error{
		"neither notices": {nil, nil}, "the dialler was faster": {gone, nil}, "the listener was faster": {nil, gone},
	} {
		t.Run(name, func(t *testing.T) {
			l, d := newNode(t, door(1, 1), nil), newNode(t, door(1, 1), nil)
			atL, atD := connect(l.id, d.id, site)
			atL.closing, atD.closing = closing[0], closing[1]
			if a, b := run(t.Context(), l, d, atL, atD); a.err != nil || b.err != nil {
				t.Errorf("listener: %v, dialler: %v", a.err, b.err)
			}
		})
	}
}

// Another token is told from a lost connection at both ends, whether or not the
// transport carries the reason.
func TestAnotherToken(t *testing.T) {
	for name, wrong := range map[string]token.Door{"another token": door(2, 2), "half of this one": door(1, 0), "another join key": door(1, 3)} {
		t.Run(name, func(t *testing.T) {
			l, d := newNode(t, door(1, 1), nil), newNode(t, wrong, nil)
			a, b := admitted(t.Context(), l, d, site)
			if !errors.Is(a.err, ErrProof) || !errors.Is(b.err, ErrRefused) {
				t.Errorf("listener: %v, dialler: %v; want ErrProof and ErrRefused", a.err, b.err)
			}
			if a, b := l.Stats(), d.Stats(); a != (Stats{RefusedProof: 1}) || b != (Stats{RefusedByPeer: 1}) {
				t.Errorf("counted %+v and %+v", a, b)
			}
		})
	}
}

// A listener that has the find half alone is refused by the dialler.
func TestThiefThatListens(t *testing.T) {
	thief, d := newNode(t, door(1, 0), nil), newNode(t, door(1, 1), nil)
	atThief, atD := connect(thief.id, d.id, site)
	go func() { // it cannot check the credential, and answers all the same
		s := &fakeStream{atThief}
		if _, err := s.Write(make([]byte, HelloSize)); err != nil {
			return
		}
		proof := make([]byte, ProofSize)
		if _, err := io.ReadFull(s, proof); err != nil {
			return
		}
		tr := transcript{version: Version, dialler: d.id, listener: thief.id, nonceD: Nonce(proof[:nonceSize])}
		h2 := tr.start(proof[nonceSize : nonceSize+selectorSize]).after(proof[nonceSize+selectorSize:])
		_, _ = s.Write(sealWith(t, h2, door(1, 0), roleListener, nil))
	}()
	if _, err := d.Admit(t.Context(), atD, Dialled); !errors.Is(err, ErrProof) {
		t.Errorf("error %v, want ErrProof", err)
	}
	if s := d.Stats(); s != (Stats{RefusedProof: 1}) {
		t.Errorf("counted %+v", s)
	}
}

// A dialler that is cut off at any point was not refused, and a listener was not lied to.
func TestLeavingIsNotAnotherToken(t *testing.T) {
	l, other := newNode(t, door(1, 1), nil), newNode(t, door(1, 1), nil)
	for _, said := range []int{0, 1, ProofSize - 1} {
		end, _, ended := hello(t, l, other.id, site)
		if _, err := end.out.Write(make([]byte, said)); err != nil {
			t.Fatal(err)
		}
		_ = end.Close(link.ReasonReplaced)
		if err := wait(t, ended); !errors.Is(err, ErrLeft) {
			t.Errorf("after %d bytes: %v, want ErrLeft", said, err)
		}
	}
	if s := l.Stats(); s != (Stats{Left: 3}) {
		t.Errorf("counted %+v", s)
	}
	for _, reason := range []link.Reason{link.ReasonNone, link.ReasonShutdown, link.ReasonRefused} {
		atL, atD := connect(l.id, other.id, site)
		atD.tells = true
		go func() {
			s := &fakeStream{atL}
			_, _ = s.Write(make([]byte, HelloSize))
			_, _ = io.ReadFull(s, make([]byte, ProofSize))
			_ = atL.Close(reason)
		}()
		want := ErrLeft
		if reason == link.ReasonRefused {
			want = ErrRefused
		}
		if _, err := other.Admit(t.Context(), atD, Dialled); !errors.Is(err, want) {
			t.Errorf("closed by the listener with %s: %v, want %v", reason, err, want)
		}
	}
	if s := other.Stats(); s != (Stats{Left: 2, RefusedByPeer: 1}) {
		t.Errorf("counted %+v", s)
	}
}

func TestWhatIsToldAtTheEnd(t *testing.T) {
	t.Run("a dial is given up", func(t *testing.T) {
		l, d := newNode(t, door(1, 1), nil), newNode(t, door(1, 1), nil)
		_, atD := connect(l.id, d.id, site)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := d.Admit(ctx, atD, Dialled); !errors.Is(err, context.Canceled) || atD.reason != link.ReasonReplaced {
			t.Errorf("%v, closed with %s", err, atD.reason)
		}
	})
	t.Run("silence", func(t *testing.T) {
		l := newNode(t, door(1, 1), func(c *Config) { c.Deadline = 10 * time.Millisecond })
		end, _, ended := hello(t, l, identity.ID{1}, site)
		if err := wait(t, ended); !errors.Is(err, ErrTimeout) || end.reason != link.ReasonNone {
			t.Errorf("%v, closed with %s", err, end.reason)
		}
	})
	t.Run("itself", func(t *testing.T) {
		l := newNode(t, door(1, 1), nil)
		atL, _ := connect(l.id, l.id, site)
		if _, err := l.Admit(t.Context(), atL, Accepted); !errors.Is(err, ErrSelf) || atL.reason != link.ReasonNone {
			t.Errorf("%v, closed with %s", err, atL.reason)
		}
	})
}

// A refused dialler that does not leave is left.
func TestRefusalDoesNotWaitForEver(t *testing.T) {
	l := newNode(t, door(1, 1), nil)
	begin := time.Now()
	end, _, ended := hello(t, l, identity.ID{1}, site)
	if _, err := end.out.Write(make([]byte, ProofSize)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(&fakeStream{end})
	if len(got) > 0 {
		t.Errorf("a stranger is told %x (%v)", got, err)
	}
	if err := wait(t, ended); !errors.Is(err, ErrProof) || end.reason != link.ReasonRefused {
		t.Errorf("%v, closed with %s", err, end.reason)
	}
	if took := time.Since(begin); took > 10*linger {
		t.Errorf("the refusal took %s", took)
	}
}

// A node dials all addresses of another at once and drops all connections but the first
// that is admitted. None of that is charged to it, whoever else is behind its address.
func TestLostRacesAreFree(t *testing.T) {
	l := newNode(t, door(1, 1), func(c *Config) { c.Limits = Limits{Failures: 1, Refill: time.Hour} })
	for range 10 {
		d := newNode(t, door(1, 1), nil)
		type racer struct {
			end   *fakeConn
			ended <-chan error
		}
		var racers []racer
		for range 8 {
			end, _, ended := hello(t, l, d.id, site)
			racers = append(racers, racer{end, ended})
		}
		if a, b := admitted(t.Context(), l, d, site); a.err != nil || b.err != nil {
			t.Fatalf("listener: %v, dialler: %v", a.err, b.err)
		}
		for _, r := range racers {
			_ = r.end.Close(link.ReasonReplaced)
			if err := wait(t, r.ended); !errors.Is(err, ErrLeft) {
				t.Fatalf("a lost race: %v", err)
			}
		}
	}
	if s := l.Stats(); s.RefusedLimit+s.RefusedProof+s.RefusedTimeout != 0 || s.Admitted != 10 {
		t.Errorf("counted %+v", s)
	}
	if tokens := l.budget.spendersLocked(addrOf(site))[0].tokens; tokens < 1 {
		t.Errorf("the site has %v of 1 failure left", tokens)
	}
}

// A known member comes in however many strangers fail or wait behind its address.
func TestKnownMembersAreOutsideOfTheBudget(t *testing.T) {
	member := newNode(t, door(1, 1), nil)
	l := newNode(t, door(1, 1), func(c *Config) {
		c.Limits = Limits{Failures: 8, Refill: time.Hour, Pending: 4, PendingPerAddr: 4}
		c.Known = func(id identity.ID) bool { return id == member.id }
	})
	var open []*fakeConn
	for i := range 4 {
		end, _, _ := hello(t, l, identity.ID{1, byte(i)}, site)
		open = append(open, end)
	}
	defer func() {
		for _, end := range open {
			_ = end.Close(link.ReasonNone)
		}
	}()
	comes := func(what string) {
		t.Helper()
		if a, b := admitted(t.Context(), l, member, site); a.err != nil || b.err != nil {
			t.Errorf("%s: listener: %v, dialler: %v", what, a.err, b.err)
		}
	}
	comes("strangers wait")
	if a, _ := admitted(t.Context(), l, newNode(t, door(1, 1), nil), "198.51.100.1"); !errors.Is(a.err, ErrLimit) {
		t.Errorf("a fifth stranger: %v, want ErrLimit", a.err)
	}
	_ = open[0].Close(link.ReasonNone)
	for tries := 0; l.budget.allowedNow(site); tries++ {
		if tries == 1000 {
			t.Fatal("strangers fail for nothing")
		}
		admitted(t.Context(), l, newNode(t, door(2, 2), nil), site)
	}
	comes("strangers failed")
	if !l.Allow(addrOf(site)) {
		t.Error("a member's address is refused before anybody knows who calls")
	}
	for range 100 { // lost races, wrong proofs and silence of a member
		end, _, ended := hello(t, l, member.id, site)
		_ = end.Close(link.ReasonReplaced)
		_ = wait(t, ended)
	}
	comes("it left often")
}

// A member's own attempts are bounded, too.
func TestAttemptsOfOnePeer(t *testing.T) {
	l := newNode(t, door(1, 1), func(c *Config) {
		c.Limits = Limits{PendingPerPeer: 2}
		c.Known = func(identity.ID) bool { return true }
	})
	var open []*fakeConn
	for range 2 {
		end, _, _ := hello(t, l, identity.ID{1}, site)
		open = append(open, end)
	}
	atL, _ := connect(l.id, identity.ID{1}, site)
	if _, err := l.Admit(t.Context(), atL, Accepted); !errors.Is(err, ErrLimit) || atL.reason != link.ReasonNone {
		t.Errorf("a third: %v, closed with %s", err, atL.reason)
	}
	for _, end := range open {
		_ = end.Close(link.ReasonNone)
	}
}
