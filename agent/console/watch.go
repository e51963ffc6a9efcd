package console

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/api"
)

// IssueFile is what agetty shows above its prompt, besides /etc/issue.
const IssueFile = "/run/issue.d/50-kairos.issue"

// Timing of Watch. What the network tells by itself is shown at once; the rest
// (addresses, files) has no such event.
const (
	settle   = time.Second      // between two screens: a prompt that flickers cannot be read
	hurry    = 2 * time.Second  // between two looks while the machine comes up
	pace     = 10 * time.Second // between two looks afterwards
	longPoll = 50 * time.Second // for the next change of the network
)

// Watcher keeps the screen true.
type Watcher struct {
	Look func(context.Context) Facts
	// Changes tells of a change at once; it may be nil.
	Changes <-chan struct{}
	// Show replaces the screen. Its error ends Run.
	Show func(issue []byte) error
}

// Run shows the screen now and whenever it changed, until ctx is done.
func (w Watcher) Run(ctx context.Context) error {
	last := ""
	for {
		facts := w.Look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if screen := Render(facts); screen != last {
			if err := w.Show(Issue(screen)); err != nil {
				return fmt.Errorf("show the console's text: %w", err)
			}
			last = screen
		}
		next := pace
		if !facts.Configured || facts.Overlay == nil || facts.Waiting != "" {
			next = hurry
		}
		if !sleep(ctx, settle, nil) || !sleep(ctx, next-settle, w.Changes) {
			return nil
		}
	}
}

// sleep returns after d, or earlier when something changed; false when ctx is done.
func sleep(ctx context.Context, d time.Duration, changes <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	case <-changes:
	}
	return true
}

// Changes follows the network's revision until ctx is done and tells of every
// new one. A change that nobody has taken yet stands for later ones too.
func Changes(ctx context.Context, overlay *api.Client) <-chan struct{} {
	out := make(chan struct{}, 1)
	go func() {
		var revision uint64
		for ctx.Err() == nil {
			list, err := overlay.Nodes(ctx, revision, longPoll)
			if err != nil || list.Revision == revision {
				sleep(ctx, hurry, nil)
				continue
			}
			revision = list.Revision
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out
}

// Show returns a Watcher's Show that writes file and then lets reload tell
// agetty. A reload that fails is passed to warn: the next prompt has the text.
func Show(file string, reload func() error, warn func(error)) func([]byte) error {
	return func(issue []byte) error {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := store.WriteFile(store.OS{}, file, issue); err != nil {
			return err
		}
		if err := reload(); err != nil {
			warn(err)
		}
		return nil
	}
}
