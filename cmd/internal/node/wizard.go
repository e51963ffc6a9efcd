package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	agentapi "github.com/kairos-io/kairos/agent/api"
	"github.com/kairos-io/kairos/agent/config"
	"github.com/kairos-io/kairos/cmd/internal/cli"
	"github.com/kairos-io/kairos/image/install"
)

// asker asks a person several things one after the other: whoever reads lines
// from a stream has to be one, or what is typed ahead is lost.
type asker struct {
	env   *cli.Env
	lines chan typed
}

type typed struct {
	line string
	err  error
}

func newAsker(env *cli.Env) *asker { return &asker{env: env} }

// line prints a prompt and returns the next line without its end. The read
// outlives a context that ends: a terminal's cannot be interrupted, and the
// process is about to end.
func (a *asker) line(ctx context.Context, prompt string) (string, error) {
	if a.lines == nil {
		a.lines = make(chan typed)
		go func() {
			r := bufio.NewReader(a.env.Stdin)
			for {
				line, err := r.ReadString('\n')
				a.lines <- typed{line, err}
				if err != nil {
					return
				}
			}
		}()
	}
	_, _ = fmt.Fprintf(a.env.Stderr, "%s: %s", a.env.Program, agentapi.Printable(prompt)) // nobody is left to tell
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case t := <-a.lines:
		if errors.Is(t.err, io.EOF) {
			return "", errDeclined
		}
		return strings.TrimSpace(t.line), t.err
	}
}

// wizard asks for everything. Its prompts and the lines before them are what
// the tests of the installation medium wait for.
func (i *installer) wizard(ctx context.Context, from string) error {
	if !interactive(i.env) {
		return cli.WithHint(cli.Usagef("which disk?"), "name it: `kairos install --config config.yaml /dev/sda`")
	}
	if err := i.look(ctx); err != nil {
		return err
	}
	i.env.Say("this installs kairos mesh %s on a disk of this machine", cli.RunningVersion())
	disk, err := i.askDisk(ctx)
	if err != nil {
		return err
	}
	text, err := i.askConfig(ctx, from)
	if err != nil {
		return err
	}
	if err := i.confirm(ctx, disk); err != nil {
		return err
	}
	return i.install(ctx, disk, text)
}

// askDisk shows the disks until one is chosen. A stick that is plugged in
// meanwhile is on the next list.
func (i *installer) askDisk(ctx context.Context) (install.Disk, error) {
	for {
		usable := i.listDisks()
		prompt := "there is no disk to install on; connect one and press Enter: "
		if usable > 0 {
			prompt = fmt.Sprintf("which disk? [1-%d, Enter lists them again] ", usable)
		}
		answer, err := i.ask.line(ctx, prompt)
		if err != nil {
			return install.Disk{}, err
		}
		if n, err := strconv.Atoi(answer); err == nil && n >= 1 && n <= usable {
			return i.disks[n-1], nil // those that can be used come first
		}
		if answer != "" {
			d, err := i.disk(answer)
			if err == nil {
				return d, nil
			}
			i.env.Fail(err)
		}
		if err := i.look(ctx); err != nil {
			return install.Disk{}, err
		}
	}
}

// listDisks says what there is and returns how many can be used.
func (i *installer) listDisks() int {
	usable := 0
	for n, d := range i.disks {
		if d.Refused == "" {
			usable++
			i.env.Say("  %d  %s  %s", n+1, d, d.Content)
			continue
		}
		i.env.Say("  -  %s: %s", d, d.Refused)
	}
	return usable
}

// none is the answer for no configuration.
const none = "none"

// askConfig asks until it has a good configuration, or none is wanted.
func (i *installer) askConfig(ctx context.Context, from string) ([]byte, error) {
	found := i.offer(ctx)
	preset := none
	switch {
	case from != "":
		preset = from
	case len(found) > 0:
		preset = found[0].where
	}
	for {
		answer, err := i.ask.line(ctx, fmt.Sprintf("configuration: a file, a URL or %s? [%s] ", none, preset))
		if err != nil {
			return nil, err
		}
		if answer == "" {
			answer = preset
		}
		if answer == none {
			return nil, nil
		}
		for _, f := range found {
			if f.where == answer {
				return f.text, nil
			}
		}
		text, err := i.config(ctx, answer)
		if err == nil {
			return text, nil
		}
		i.env.Fail(err)
	}
}

// offered is a configuration that lies on a medium.
type offered struct {
	where string
	text  []byte
}

// offer looks for configurations where people put them: on the medium's own
// ESP and on volumes for cloud-init. A wrong one is told and not offered.
func (i *installer) offer(ctx context.Context) []offered {
	places := [][2]string{} // device, file
	if i.machine.Live {
		if esp, err := i.tools.esp(ctx, i.machine); err == nil {
			places = append(places, [2]string{esp, "config.yaml"})
		}
	}
	volumes, err := i.listing.Volumes("cidata")
	if err != nil {
		i.env.Say("%v", err)
	}
	for _, v := range volumes {
		places = append(places, [2]string{v, "user-data"})
	}
	var out []offered
	for _, p := range places {
		text, err := i.tools.text(p[0], p[1])
		if err != nil {
			continue // most media have none
		}
		where := p[0] + ":" + p[1]
		loaded, err := config.CheckText(where, text)
		if err != nil {
			i.env.Fail(configError(err))
			continue
		}
		i.env.Say("found a configuration: %s", where)
		tellWarnings(i.env, loaded.Warnings)
		out = append(out, offered{where, text})
	}
	return out
}
