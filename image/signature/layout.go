package signature

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kairos-io/kairos/agent/oci"
)

// RefName names an entry of a layout's index (OCI image specification, annotations).
const RefName = "org.opencontainers.image.ref.name"

// ParseKey reads a private key: PKCS #8, or SEC 1 as `openssl ecparam` writes it.
func ParseKey(raw []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, errors.New("read the key: it is not in PEM")
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "PUBLIC KEY":
		return nil, errors.New("read the key: it is the public one, which only checks")
	default:
		return nil, fmt.Errorf("read the key: it is of type %q, want PRIVATE KEY without a password\nhint: openssl ecparam -name prime256v1 -genkey -noout -out key.pem", block.Type)
	}
	if err != nil {
		return nil, errors.New("read the key: it is damaged") // never with its bytes
	}
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		if k.Curve != elliptic.P256() {
			return nil, fmt.Errorf("read the key: it is on %s, want P-256", k.Curve.Params().Name)
		}
		return k, nil
	case ed25519.PrivateKey:
		return k, nil
	case *rsa.PrivateKey:
		return k, nil
	}
	return nil, errors.New("read the key: it is of a kind that is not supported")
}

// Images returns the entries of a layout's index that are not signatures.
func Images(list []v1.Descriptor) []v1.Descriptor {
	var out []v1.Descriptor
	for _, d := range list {
		if !oci.IsSignatureTag(d.Annotations[RefName]) {
			out = append(out, d)
		}
	}
	return out
}

// Only returns the one image, or index of images, among the entries of a layout's index;
// its signatures do not count.
func Only(list []v1.Descriptor) (v1.Descriptor, error) {
	images := Images(list)
	if len(images) != 1 {
		return v1.Descriptor{}, fmt.Errorf("it holds %d images, want one", len(images))
	}
	return images[0], nil
}

// SignLayout signs what is in a layout: its one image or index, or the one with
// this name. Signatures that are there stay. It returns the digest.
func SignLayout(dir, name string, key crypto.Signer) (v1.Hash, error) {
	path, err := layout.FromPath(dir)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("open layout %s: %w", dir, err)
	}
	index, err := path.ImageIndex()
	if err != nil {
		return v1.Hash{}, fmt.Errorf("open layout %s: %w", dir, err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		return v1.Hash{}, fmt.Errorf("read layout %s: %w", dir, err)
	}
	what, err := pick(Images(list.Manifests), name)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("sign layout %s: %w", dir, err)
	}
	tag := oci.SignatureTag(what.Digest.String())
	old, err := existing(index, list, tag)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("read layout %s: %w", dir, err)
	}
	signed, err := addSignature(old, what, key)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("sign layout %s: %w", dir, err)
	}
	if err := path.ReplaceImage(signed, match.Annotation(RefName, tag), layout.WithAnnotations(map[string]string{RefName: tag})); err != nil {
		return v1.Hash{}, fmt.Errorf("write layout %s: %w", dir, err)
	}
	return what.Digest, nil
}

func pick(list []v1.Descriptor, name string) (v1.Descriptor, error) {
	var names []string
	for _, d := range list {
		n := d.Annotations[RefName]
		if name != "" && n == name {
			return d, nil
		}
		names = append(names, n)
	}
	if name == "" && len(list) == 1 {
		return list[0], nil
	}
	return v1.Descriptor{}, fmt.Errorf("it holds %q\nhint: say which one with --name", names)
}

// existing returns the signatures that are there already.
func existing(index v1.ImageIndex, list *v1.IndexManifest, tag string) (v1.Image, error) {
	for _, d := range list.Manifests {
		if d.Annotations[RefName] == tag {
			return index.Image(d.Digest)
		}
	}
	return mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), nil
}

// addSignature appends a layer with the payload.
func addSignature(to v1.Image, what v1.Descriptor, key crypto.Signer) (v1.Image, error) {
	raw, err := newPayload(what.Digest.String(), strings.TrimSpace(what.Annotations[RefName]))
	if err != nil {
		return nil, err
	}
	sig, err := sign(key, raw)
	if err != nil {
		return nil, err
	}
	return mutate.Append(to, mutate.Addendum{
		Layer:       static.NewLayer(raw, payloadType),
		MediaType:   payloadType,
		Annotations: map[string]string{annotation: base64.StdEncoding.EncodeToString(sig)},
	})
}
