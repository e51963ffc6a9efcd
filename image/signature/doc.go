// Package signature signs releases and checks their signatures with a plain key
// pair: no service is asked, so that a machine without the internet can check.
//
// The form is cosign's, so that either side may be cosign itself:
//
//	cosign sign --key cosign.key --tlog-upload=false REF     signs in a registry
//	image sign --layout DIR --key key.pem                    signs in a layout
//
// A signature is an OCI image under the tag sha256-DIGEST.sig of the same
// repository. Each layer is a payload in simple-signing form, which names the
// digest; the signature of the payload's bytes is an annotation of the layer.
// What counts is the digest in a payload that a known key signed: where the
// signature lies and what it says of itself proves nothing.
//
// References: cosign's specs/SIGNATURE_SPEC.md; containers-signature(5).
package signature
