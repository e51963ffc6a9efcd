package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Names of cosign's form.
const (
	payloadType = "application/vnd.dev.cosign.simplesigning.v1+json"
	annotation  = "dev.cosignproject.cosign/signature"
	critical    = "cosign container image signature"
)

// Limits of what is read of a stranger's signatures.
const (
	MaxPayload    = 16 << 10 // bytes
	maxSignatures = 32
	maxBase64     = 4 << 10 // bytes of one signature
)

// ErrInvalid: no signature by the key vouches for the digest.
var ErrInvalid = errors.New("it is not signed with the configured key")

// payload is the part of a simple-signing payload that counts.
type payload struct {
	Critical struct {
		Identity struct {
			Reference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			Digest string `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
	Optional map[string]any `json:"optional"`
}

// newPayload returns the bytes to be signed for a digest.
func newPayload(digest, reference string) ([]byte, error) {
	var p payload
	p.Critical.Image.Digest, p.Critical.Identity.Reference, p.Critical.Type = digest, reference, critical
	return json.Marshal(p)
}

// Candidate is a layer of a signature image: it may be a signature.
type Candidate struct {
	Payload   v1.Descriptor
	Signature []byte
}

// Candidates reads the manifest of a signature image. Layers of other kinds are
// passed over.
func Candidates(raw []byte) ([]Candidate, error) {
	var m v1.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, errors.New("decode the signatures: the manifest is not one")
	}
	var out []Candidate
	for _, d := range m.Layers {
		if d.MediaType != payloadType || d.Size <= 0 || d.Size > MaxPayload || len(d.Annotations[annotation]) > maxBase64 || len(out) == maxSignatures {
			continue
		}
		sig, err := base64.StdEncoding.DecodeString(d.Annotations[annotation])
		if err != nil || len(sig) == 0 {
			continue
		}
		out = append(out, Candidate{d, sig})
	}
	return out, nil
}

// Check reports whether the signature of the payload is the key's and vouches
// for digest; nil: it does. key is *ecdsa.PublicKey, ed25519.PublicKey or *rsa.PublicKey.
func Check(key crypto.PublicKey, raw, sig []byte, digest string) error {
	if !verify(key, raw, sig) {
		return ErrInvalid
	}
	var p payload
	if err := json.Unmarshal(raw, &p); err != nil {
		return fmt.Errorf("%w: what the key signed is not about an image", ErrInvalid)
	}
	switch {
	case p.Critical.Type != critical:
		return fmt.Errorf("%w: what the key signed is not about an image", ErrInvalid)
	case p.Critical.Image.Digest != digest:
		return fmt.Errorf("%w: the key signed another image", ErrInvalid)
	}
	return nil
}

func verify(key crypto.PublicKey, raw, sig []byte) bool {
	sum := sha256.Sum256(raw)
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, sum[:], sig)
	case ed25519.PublicKey:
		return ed25519.Verify(k, raw, sig)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], sig) == nil
	}
	return false
}

// sign is the reverse of verify.
func sign(key crypto.Signer, raw []byte) ([]byte, error) {
	if _, ok := key.Public().(ed25519.PublicKey); ok {
		return key.Sign(rand.Reader, raw, crypto.Hash(0))
	}
	sum := sha256.Sum256(raw)
	return key.Sign(rand.Reader, sum[:], crypto.SHA256)
}
