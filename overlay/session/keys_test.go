package session

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestForgedPackets(t *testing.T) {
	a, b := agree2(t, AES256GCM)
	packet := seal(t, a, "hello")
	for i := range packet {
		bad := bytes.Clone(packet)
		bad[i] ^= 0x80
		if err := opens(b, bad, "hello"); !errors.Is(err, ErrPacket) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
	for n := range len(packet) {
		if err := opens(b, packet[:n], "hello"); !errors.Is(err, ErrPacket) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	far := bytes.Clone(packet)
	binary.BigEndian.PutUint64(far[8:], RejectAfterPackets-1)
	if err := opens(b, far, "hello"); !errors.Is(err, ErrPacket) {
		t.Errorf("a counter far ahead: %v", err)
	}
	if err := opens(b, packet, "hello"); err != nil {
		t.Errorf("the packet itself, after all of them: %v", err)
	}
	if err := opens(b, packet, "hello"); !errors.Is(err, ErrReplay) {
		t.Errorf("the packet twice: %v", err)
	}
}

func TestOpenInPlace(t *testing.T) {
	a, b := agree2(t, AES256GCM)
	buf := make([]byte, 0, 100)
	payload := append(buf[HeaderSize:HeaderSize], "in place"...)
	packet, err := a.Seal(buf, payload, 0)
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.Open(packet[HeaderSize:HeaderSize], packet)
	if err != nil || string(got) != "in place" || &got[0] != &packet[HeaderSize] {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestKeysEnd(t *testing.T) {
	a, b := agree2(t, AES256GCM)
	a.counter.Store(RejectAfterPackets - 1)
	if err := opens(b, seal(t, a, "last"), "last"); err != nil {
		t.Error(err)
	}
	if packet, err := a.Seal(nil, nil, 0); !errors.Is(err, ErrSpent) || len(packet) > 0 {
		t.Errorf("one more: %v", err)
	}
}

func TestKeysDoNotPrint(t *testing.T) {
	a, _ := agree2(t, AES256GCM)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, a); got != "(keys a1a2a3a4)" {
			t.Errorf("%s: %s", verb, got)
		}
	}
}

// The window agrees with a set of all counters, whatever order they come in.
func TestWindow(t *testing.T) {
	for name, step := range map[string]func(*rand.Rand, uint64) uint64{
		"in order":            func(_ *rand.Rand, top uint64) uint64 { return top + 1 },
		"reordered":           func(r *rand.Rand, top uint64) uint64 { return top + 1 - min(top, r.Uint64N(40)) },
		"far behind":          func(r *rand.Rand, top uint64) uint64 { return top + 1 - min(top, r.Uint64N(2*windowBits)) },
		"with leaps":          func(r *rand.Rand, top uint64) uint64 { return top + 1<<r.Uint64N(16) - min(top, r.Uint64N(windowBits)) },
		"with leaps to words": func(r *rand.Rand, top uint64) uint64 { return (top/wordBits + r.Uint64N(words+2)) * wordBits },
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			var w window
			seen, top, some := map[uint64]bool{}, uint64(0), false
			for range 50_000 {
				n := step(r, top)
				tooOld := some && n <= top && top+1-n > WindowSize
				want := !seen[n] && !tooOld
				if got := w.fresh(n); got != want {
					t.Fatalf("counter %d, the highest was %d: %v, want %v", n, top, got, want)
				}
				if want {
					w.mark(n)
					seen[n], top, some = true, max(top, n), true
				}
			}
		})
	}
}

// On the steady path nothing is allocated, nor for what is not ours.
func TestNoAllocations(t *testing.T) {
	for _, suites := range []Suites{AES256GCM, ChaCha20Poly1305} {
		a, b := agree2(t, suites)
		payload, packet, out := make([]byte, 1400), make([]byte, 0, 2000), make([]byte, 0, 2000)
		for what, f := range map[string]func(){
			"a packet": func() {
				p, err := a.Seal(packet, payload, 0)
				if err == nil {
					_, err = b.Open(out, p)
				}
				if err != nil {
					t.Fatal(err)
				}
			},
			"junk": func() {
				if _, err := b.Open(out, payload); err == nil {
					t.Fatal("opened")
				}
			},
		} {
			if n := testing.AllocsPerRun(100, f); n != 0 {
				t.Errorf("%v, %s: %v allocations", suites, what, n)
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	a, b := agree2(f, ChaCha20Poly1305)
	f.Add(seal(f, a, "hello"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, datagram []byte) {
		if payload, err := b.Open(nil, datagram); err == nil && string(payload) != "hello" {
			t.Errorf("opened %q", payload)
		}
	})
}

func BenchmarkSealOpen(b *testing.B) {
	for _, suites := range []Suites{AES256GCM, ChaCha20Poly1305} {
		for _, size := range []int{64, 1400} {
			b.Run(fmt.Sprintf("%v/%d", suites, size), func(b *testing.B) {
				from, to := agree2(b, suites)
				payload, packet, out := make([]byte, size), make([]byte, 0, 2000), make([]byte, 0, 2000)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					p, err := from.Seal(packet, payload, 0)
					if err == nil {
						_, err = to.Open(out, p)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
