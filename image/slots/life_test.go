package slots

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var (
	seed  = flag.Uint64("seed", 0, "of the random choices of TestPowerCutsOfALife; 0: by the clock")
	lives = flag.Int("lives", 40, "how many machines TestPowerCutsOfALife follows")
)

// life is a machine whose power fails again and again, at any operation of what its
// systems, its boot loader and the service that ends a trial do to the disk.
type life struct {
	*testing.T
	*machine
	rnd     *rand.Rand
	known   []system
	running string   // root hash
	next    []string // root hashes of what may boot next
	story   []string // what happened, for people
}

// Power fails at any moment of a machine's life: upgrades, ways back, the boot
// loader's counting of boots, the end of a trial, one after the other and over what
// earlier cuts have left. What boots is always a whole system, the one that ran or the
// one that was asked for, and the machine can be upgraded further.
func TestPowerCutsOfALife(t *testing.T) {
	chosen := *seed
	if chosen == 0 {
		chosen = uint64(time.Now().UnixNano())
	}
	t.Logf("RESULT repeat these choices with -seed %d", chosen)
	rnd := rand.New(rand.NewPCG(chosen, 0))
	known := []system{newSystem("v1"), newSystem("v2"), newSystem("v3")}
	last := newSystem("v4")
	newest := flashed(t, known[0])
	cuts := 0
	for range *lives {
		l := &life{T: t, machine: newest.clone(), rnd: rnd, known: append(slices.Clone(known), last), running: known[0].Config.RootHash}
		for range 12 {
			cuts += l.change()
			l.start()
		}
		for l.trial() { // the last one turns out well
			l.rename(l, l.entry().File, FileName(l.entry().Generation, 0))
		}
		goesOn(t, l.machine, l.running, last, l.known)
		if t.Failed() {
			return
		}
	}
	t.Logf("RESULT %d power cuts in %d lives", cuts, *lives)
}

// say notes what happens; a failure tells it all.
func (l *life) say(format string, args ...any) {
	l.story = append(l.story, fmt.Sprintf(format, args...))
}

func (l *life) fatal(format string, args ...any) {
	l.Helper()
	l.Fatalf("%s\nafter %q", fmt.Sprintf(format, args...), l.story)
}

// entry is the entry of the system that runs; nil when a torn rename has lost it.
func (l *life) entry() *Entry {
	l.Helper()
	return l.status().Booted.Entry
}

func (l *life) status() Status {
	l.Helper()
	st, err := Inspect(l.facts(l, l.running))
	if err != nil {
		l.fatal("%v", err)
	}
	return st
}

func (l *life) trial() bool { l.Helper(); return l.status().Trial() }

// change does something to the disk as far as the power lasts, and returns how often
// that failed: 0 or 1.
func (l *life) change() int {
	l.Helper()
	l.next = nil
	if l.trial() {
		return l.judge()
	}
	plan, write := PlanRollback, system{}
	switch l.rnd.IntN(4) {
	case 0:
		plan = PlanUnstage
	case 1:
	default:
		write = l.known[l.rnd.IntN(len(l.known)-1)]
		plan = upgradeTo(write)
	}
	p, err := plan(l.facts(l, l.running))
	if err != nil {
		// It is the one that runs, or there is nothing to go back to, or its entry is lost.
		l.say("cannot: %v", err)
		return 0
	}
	asked := p.RootHash
	if p.Records.Of(p.Slot.Slot) == nil { // dropped
		asked = l.running
	}
	first, err := l.boot(l.known, nil) // that was staged, perhaps
	must(l, err)
	l.machine.done, l.machine.cutAt = 0, 1+l.rnd.IntN(80)
	err = l.writer(write).Run(l.Context(), p)
	l.say("%d steps for %.8s: %v", len(p.Steps), p.RootHash, err)
	if err != nil && !errors.Is(err, errPower) {
		l.fatal("%v", err)
	}
	l.machine = l.after(l.rnd)
	if err != nil {
		l.next = []string{first, l.running, asked}
		return 1
	}
	l.next = []string{asked}
	return 0
}

// judge ends the trial of the system that runs, or the power does.
func (l *life) judge() int {
	l.Helper()
	e := l.entry()
	switch l.rnd.IntN(4) {
	case 0:
		l.say("a power cut on trial")
		return 1
	case 1:
		l.say("found bad")
		return l.tear(e.File, fmt.Sprintf("kairos-%06d+0-%d.efi", e.Generation, e.Done))
	}
	l.say("found good")
	return l.tear(e.File, FileName(e.Generation, 0))
}

// tear renames a file; one time in four the power fails meanwhile. FAT has two
// entries of a directory to write then, and fsck leaves the content to one of two
// names; to none where both are gone.
func (l *life) tear(from, to string) int {
	l.Helper()
	if l.rnd.IntN(4) > 0 {
		l.rename(l, from, to)
		return 0
	}
	const dir = entriesDir + "/"
	content := l.files[dir+from]
	delete(l.files, dir+from)
	how := l.rnd.IntN(5)
	switch how {
	case 0:
		l.files[dir+from] = content
	case 1:
		l.files[dir+to] = content
	case 2:
		l.files[dir+from], l.files[dir+to] = content, newBlob(nil)
	case 3:
		l.files[dir+from], l.files[dir+to] = newBlob(nil), content
	}
	l.say("a torn rename of %s to %s, case %d", from, to, how)
	return 1
}

// start boots the machine, counting the boot as systemd-boot does.
func (l *life) start() {
	l.Helper()
	before := l.running
	for range 20 {
		got, err := l.boot(l.known, nil)
		if err != nil || l.next != nil && !slices.Contains(l.next, got) {
			l.fatal("boots %.8s, want one of %q; %v", got, l.next, err)
		}
		l.running, l.next = got, nil // what follows depends on how often the boot loader is cut
		e := l.entry()
		if e == nil || !e.Counted || e.Left == 0 {
			l.say("runs %.8s", got)
			return
		}
		if l.tear(e.File, fmt.Sprintf("kairos-%06d+%d-%d.efi", e.Generation, e.Left-1, e.Done+1)) == 0 {
			l.say("runs %.8s on trial", got)
			return
		}
	}
	l.fatal("it does not come to run anything, after %.8s", before)
}
