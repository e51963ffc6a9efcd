package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/kairos-io/kairos/agent/oci"
	"github.com/kairos-io/kairos/image/signature"
)

func runPush(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("push", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprintln(fs.Output(), "usage: image push LAYOUT registry/name:tag\ncredentials are those of `docker login`")
	}
	if err := fs.Parse(args); err != nil {
		return errUsage
	}
	if fs.NArg() != 2 {
		fs.Usage()
		return errUsage
	}
	digest, err := push(ctx, os.Stderr, fs.Arg(0), fs.Arg(1))
	return report(os.Stdout, digest, err)
}

// push copies what is in a layout to a registry, with its signatures, and returns its
// reference with the digest. The tag comes last: whoever sees it finds everything.
func push(ctx context.Context, log io.Writer, dir, ref string) (string, error) {
	tag, err := name.NewTag(ref)
	if err == nil && strings.Contains(ref, "://") { // "https:" would be the registry
		err = fmt.Errorf("%q is a URL", ref)
	}
	if err != nil {
		return "", fmt.Errorf("read the reference: %w\nhint: write it like registry.example.org/name:tag; the digest follows from the content", err)
	}
	path, err := layout.FromPath(dir)
	if err != nil {
		return "", fmt.Errorf("open layout %s: %w\nhint: make it with `image release` or `image cli`", dir, err)
	}
	index, err := path.ImageIndex()
	if err != nil {
		return "", fmt.Errorf("open layout %s: %w", dir, err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		return "", fmt.Errorf("read layout %s: %w", dir, err)
	}
	what, err := signature.Only(list.Manifests)
	if err != nil {
		return "", fmt.Errorf("read layout %s: %w", dir, err)
	}
	from := pushed{index, log}
	sigTag := oci.SignatureTag(what.Digest.String())
	for _, d := range list.Manifests {
		if d.Annotations[signature.RefName] == sigTag {
			if err := from.upload(ctx, d, tag.Context().Tag(sigTag)); err != nil {
				return "", fmt.Errorf("push the signature: %w", err)
			}
		}
	}
	if err := from.upload(ctx, what, tag); err != nil {
		return "", fmt.Errorf("push %s: %w", dir, err)
	}
	return tag.Name() + "@" + what.Digest.String(), nil
}

// pushed is the index of a layout, and where to tell how far it is.
type pushed struct {
	index v1.ImageIndex
	log   io.Writer
}

// upload copies one entry of the index to where the tag says.
func (p pushed) upload(ctx context.Context, what v1.Descriptor, to name.Tag) error {
	content, err := p.open(what)
	if err != nil {
		return err
	}
	updates, ended, told := make(chan v1.Update, 100), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(told)
		tellUpload(p.log, to, updates, ended)
	}()
	err = remote.Push(to, content, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithUserAgent("kairos-image"), remote.WithProgress(updates))
	close(ended)
	<-told
	return explainPush(to, err)
}

// open returns an image or an index of the layout.
func (p pushed) open(what v1.Descriptor) (remote.Taggable, error) {
	if what.MediaType.IsIndex() {
		return p.index.ImageIndex(what.Digest)
	}
	return p.index.Image(what.Digest)
}

// tellUpload writes a line for each tenth that has arrived, until the updates or the
// upload have ended: one that fails early leaves the channel open.
func tellUpload(log io.Writer, to name.Tag, updates <-chan v1.Update, ended <-chan struct{}) {
	tenth := int64(0)
	for {
		select {
		case u, more := <-updates:
			if !more {
				return
			}
			if u.Total <= 0 {
				continue // an error, with which the upload ends
			}
			if now := u.Complete * 10 / u.Total; now > tenth {
				tenth = now
				fmt.Fprintf(log, "%s: %d%% of %d MB\n", to, tenth*10, (u.Total+1<<20-1)>>20)
			}
		case <-ended:
			return
		}
	}
}

// explainPush adds what to do next.
func explainPush(to name.Tag, err error) error {
	var answer *transport.Error
	host := to.RegistryStr()
	switch {
	case err == nil || errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden):
		return fmt.Errorf("%w\nhint: `docker login %s` keeps credentials where this looks for them; they must allow writing %s", err, host, to.RepositoryStr())
	case errors.As(err, &answer):
		return err
	}
	return fmt.Errorf("%w\nhint: is %s the registry, and reachable from here?", err, host)
}
