package underlay

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	p2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"

	"github.com/kairos-io/kairos/overlay/identity"
)

// A certificate holds on every clock (fault O6: libp2p's own are refused by a clock that
// is more than an hour behind the one that they were made by).
func TestCertificateHoldsOnEveryClock(t *testing.T) {
	id, err := newCertificate(testKey(t))
	if err != nil {
		t.Fatal(err)
	}
	conf, _ := id.ConfigForPeer("")
	cert, err := x509.ParseCertificate(conf.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	for _, clock := range []time.Time{
		{}, time.Unix(0, 0), time.Unix(0, 0).Add(time.Minute), time.Date(1949, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), time.Now(), time.Now().Add(100 * 365 * 24 * time.Hour),
		time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(1<<31, 0), time.Unix(1<<32, 0), lastDay,
	} {
		// This is what libp2p does, with the clock that it has.
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: clock}); err != nil {
			t.Errorf("on %s: %v", clock, err)
		}
	}
}

// Two ends shake hands whatever their clocks say when they make their certificates, and
// whatever they say when they meet: the bubble's clock starts in 2000 and is moved.
func TestHandshakeOnEveryClock(t *testing.T) {
	// year is the clock's at each of four moments.
	tests := map[string]struct{ made, madeLater, met time.Duration }{
		"the clocks agree":             {0, 0, 0},
		"one is two hours ahead":       {0, 2 * time.Hour, 0},
		"one is ten years ahead":       {0, 10 * 365 * 24 * time.Hour, 0},
		"they meet fifty years later":  {0, 0, 50 * 365 * 24 * time.Hour},
		"both jump, by different ages": {365 * 24 * time.Hour, 20 * 365 * 24 * time.Hour, 100 * 365 * 24 * time.Hour},
	}
	now, key := testKey(t), testKey(t)
	today, err := newCertificate(now) // of this year, which is far ahead of the bubble's
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(tt.made)
				a, err := newCertificate(key)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(tt.madeLater)
				other := testKey(t)
				b, err := newCertificate(other)
				if err != nil {
					t.Fatal(err)
				}
				meet(t, a, b, other.ID())
				meet(t, a, today, now.ID())
				meet(t, today, a, key.ID())
				time.Sleep(tt.met)
				meet(t, b, a, key.ID())
				meet(t, today, b, other.ID())
			})
		})
	}
}

// meet shakes hands between two ends, of which the second one is want.
func meet(t *testing.T, client, server *p2ptls.Identity, want identity.ID) {
	t.Helper()
	near, far := net.Pipe()
	defer func() { _, _ = near.Close(), far.Close() }()
	h, answered := &handshake{dialled: true, want: want}, make(chan error, 1)
	go func() {
		server := tls.Server(far, (&handshake{}).config(server))
		answered <- errors.Join(server.Handshake(), far.Close())
	}()
	err := tls.Client(near, h.config(client)).Handshake()
	if err := errors.Join(err, <-answered); err != nil {
		t.Errorf("on %s: %v", time.Now().Format(time.DateOnly), err)
	}
	if h.peer != want {
		t.Errorf("met %s", h.peer.Short())
	}
}

// libp2p's own certificates fail this test: that it can fail is worth knowing.
func TestLibp2pCertificatesNeedClocks(t *testing.T) {
	private, err := privateKey(testKey(t))
	if err != nil {
		t.Fatal(err)
	}
	today, err := p2ptls.NewIdentity(private)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		conf, _ := today.ConfigForPeer("")
		ours, err := newCertificate(testKey(t))
		if err != nil {
			t.Fatal(err)
		}
		verify, _ := ours.ConfigForPeer("")
		if err := verify.VerifyPeerCertificate(conf.Certificates[0].Certificate, nil); err == nil {
			t.Error("a certificate of tomorrow is valid today: this library needs no care any more")
		}
	})
}
