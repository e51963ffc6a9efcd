package upgrade

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/kairos-io/kairos/agent/oci"
	"github.com/kairos-io/kairos/image/release"
	"github.com/kairos-io/kairos/image/signature"
	"github.com/kairos-io/kairos/image/slots"
)

// ErrSignature: the release is not signed with the key that the machine asks for.
var ErrSignature = errors.New("the signature is not good")

// Options say where to look and what to insist on.
type Options struct {
	Ref  oci.Ref
	OCI  oci.Options      // mirrors and limits
	Key  crypto.PublicKey // that must have signed it; nil: signatures are not looked at
	Arch string           // GOARCH; empty: this program's
}

// Offer is a release that could be put on this machine. It is a slots.Source.
type Offer struct {
	Image  string // the reference, as it was written
	Digest string // of the index: what is compared, recorded and signed
	From   string // source that answered
	Signed bool   // by the key of the options
	Config release.Config
	Parts  release.Manifest
	reader *oci.Reader
}

// Find resolves a reference and checks all that is known before the parts are
// fetched. Its errors wrap release.ErrInvalid, ErrSignature or those of package oci.
func Find(ctx context.Context, o Options) (*Offer, error) {
	if o.Arch == "" {
		o.Arch = runtime.GOARCH
	}
	r := oci.NewReader(o.Ref, o.OCI)
	root, err := r.Root(ctx)
	if err != nil {
		return nil, err
	}
	offer := &Offer{Image: o.Ref.String(), Digest: root.Digest, From: root.Source, reader: r}
	// First of all, so that nothing of an unsigned release is believed.
	if o.Key != nil {
		if err := checkSignature(ctx, o, root.Digest); err != nil {
			return nil, fmt.Errorf("check the signature of %s: %w", o.Ref, err)
		}
		offer.Signed = true
	}
	if err := offer.read(ctx, root.Raw, o.Arch); err != nil {
		return nil, fmt.Errorf("read %s: %w", o.Ref, err)
	}
	return offer, nil
}

// read goes from the index to the configuration.
func (o *Offer) read(ctx context.Context, index []byte, arch string) error {
	desc, err := release.Select(index, arch)
	if err != nil {
		return err
	}
	raw, err := o.reader.Small(ctx, blobOf(desc))
	if err != nil {
		return err
	}
	if o.Parts, err = release.ParseManifest(raw); err != nil {
		return err
	}
	if raw, err = o.reader.Small(ctx, blobOf(o.Parts.Config)); err != nil {
		return err
	}
	if o.Config, err = release.ParseConfig(raw); err != nil {
		return err
	}
	if o.Config.Arch != arch {
		return fmt.Errorf("%w: its index says it is for %s, its configuration %s", release.ErrInvalid, arch, o.Config.Arch)
	}
	return nil
}

// checkSignature looks for one good signature of the digest.
func checkSignature(ctx context.Context, o Options, digest string) error {
	r := oci.NewReader(o.Ref.WithTag(oci.SignatureTag(digest)), o.OCI)
	root, err := r.Root(ctx)
	if errors.Is(err, oci.ErrNotFound) {
		return fmt.Errorf("%w: there is no signature (%s)", ErrSignature, oci.SignatureTag(digest))
	}
	if err != nil {
		return err
	}
	if len(root.Raw) > release.MaxIndex {
		return fmt.Errorf("%w: a list of signatures of %d bytes", ErrSignature, len(root.Raw))
	}
	candidates, err := signature.Candidates(root.Raw)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	found := fmt.Errorf("%w: there is no signature in %s", ErrSignature, oci.SignatureTag(digest))
	for _, c := range candidates {
		raw, err := r.Small(ctx, blobOf(c.Payload))
		if err == nil {
			err = signature.Check(o.Key, raw, c.Signature, digest)
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		found = fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return found
}

func blobOf(d v1.Descriptor) oci.Blob {
	return oci.Blob{MediaType: string(d.MediaType), Digest: d.Digest.String(), Size: d.Size}
}

// part returns the descriptor of what a slot holds.
func (o *Offer) part(p slots.Part) v1.Descriptor {
	switch p {
	case slots.Root:
		return o.Parts.Root
	case slots.Verity:
		return o.Parts.Verity
	}
	return o.Parts.UKI
}

// Release describes the offer for a plan. now is the wall clock, which is shown only.
func (o *Offer) Release(now time.Time) slots.Release {
	rel := slots.Release{Image: o.Image, Digest: o.Digest, At: now.UTC().Truncate(time.Second), Config: o.Config, Pieces: map[slots.Part]slots.Piece{}}
	for _, p := range []slots.Part{slots.Root, slots.Verity, slots.Kernel} {
		d := o.part(p)
		rel.Pieces[p] = slots.Piece{Size: d.Size, Digest: d.Digest.String()}
	}
	return rel
}

// Fetch implements slots.Source.
func (o *Offer) Fetch(ctx context.Context, p slots.Part, write func(io.Reader) error) error {
	return o.reader.Stream(ctx, blobOf(o.part(p)), write)
}

// News is what an offer is to a machine.
type News string

// What an offer can be.
const (
	New     News = "new"
	Current News = "current" // it runs
	Waiting News = "staged"  // it is in the other slot and boots next
	Earlier News = "earlier" // it is in the other slot: the way back
	Again   News = "failed"  // it was tried, and failed
	Older   News = "older"   // than what runs, and in neither slot
)

// NewsOf compares an offer with the slots, by what they hold.
func (o *Offer) NewsOf(st slots.Status) News {
	if o.Config.RootHash == st.Booted.RootHash {
		return Current
	}
	if o.Config.RootHash == st.Other.RootHash {
		switch st.Other.State {
		case slots.Staged:
			return Waiting
		case slots.Rollback:
			return Earlier
		case slots.Failed:
			return Again
		}
	}
	if o.OlderThanRuns(st) {
		return Older
	}
	return New
}
