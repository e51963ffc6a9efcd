package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/kairos-io/kairos/image/signature"
)

func runSign(_ context.Context, args []string) error {
	fs := flag.NewFlagSet("sign", flag.ContinueOnError)
	layout := fs.String("layout", "", "OCI layout; the signature is added to it")
	key := fs.String("key", "", "private key in PEM (ECDSA P-256, Ed25519 or RSA), without a password")
	name := fs.String("name", "", "which of several images (default: the only one)")
	if err := parse(fs, args, "layout", "key"); err != nil {
		return err
	}
	raw, err := os.ReadFile(*key)
	if err != nil {
		return fmt.Errorf("read the key: %w", err)
	}
	signer, err := signature.ParseKey(raw)
	if err != nil {
		return err
	}
	digest, err := signature.SignLayout(*layout, *name, signer)
	return report(os.Stdout, digest, err)
}
