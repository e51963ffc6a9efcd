package slots

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/kairos-io/kairos/image/slots/slotstest"
)

// variants is how many disks are looked at for each moment of a power cut.
const variants = 6

// flashed returns a machine as it comes from the factory: one system in slot a.
func flashed(t testing.TB, s system) *machine {
	t.Helper()
	m := &machine{disk: newBlob(slotstest.Disk()), files: map[string]*blob{}, made: map[string]*blob{}, gone: map[string]*blob{}}
	f := m.facts(t, "")
	p, err := PlanInstall(f, s.Release)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.writer(s).Run(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	return m.clone()
}

func (m *machine) facts(t testing.TB, rootHash string) Facts {
	t.Helper()
	f, err := ReadFacts(onDisk{m}, onESP{m}, rootHash)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (m *machine) writer(s system) *Writer {
	return &Writer{Disk: onDisk{m}, ESP: onESP{m}, Source: s, Release: s.Release}
}

// run plans and carries out.
func (m *machine) run(t testing.TB, s system, plan func(Facts) (Plan, error), rootHash string) error {
	t.Helper()
	p, err := plan(m.facts(t, rootHash))
	if err != nil {
		return err
	}
	return m.writer(s).Run(t.Context(), p)
}

func upgradeTo(s system) func(Facts) (Plan, error) {
	return func(f Facts) (Plan, error) { return PlanUpgrade(f, s.Release) }
}

// rename is what systemd-boot and systemd-bless-boot do to a UKI's name.
func (m *machine) rename(t testing.TB, from, to string) {
	t.Helper()
	b, ok := m.files[entriesDir+"/"+from]
	if !ok {
		t.Fatalf("there is no %s", from)
	}
	delete(m.files, entriesDir+"/"+from)
	m.files[entriesDir+"/"+to] = b
}

// Walks a power cut through every operation of every kind of change: what boots
// afterwards is always a whole system, the old one or the new one, and the new
// one once Run has returned. If the new one fails its tries, a whole one boots.
// And whatever the cut has left, the next upgrade works.
func TestPowerCut(t *testing.T) {
	one, two, three, four := newSystem("v1"), newSystem("v2"), newSystem("v3"), newSystem("v4")
	known := []system{one, two, three, four}
	start := map[string]*machine{}
	m := flashed(t, one)
	start["flashed"] = m.clone()
	torn := m.clone()
	clear(torn.disk.seen[1024:1100]) // the primary copy's entries, by a cut long ago
	start["one partition table"] = torn.clone()
	must(t, m.run(t, two, upgradeTo(two), one.Config.RootHash))
	start["staged"] = m.clone()
	m.rename(t, "kairos-000002+3.efi", "kairos-000002+0-3.efi")
	start["failed"] = m.clone()
	m.rename(t, "kairos-000002+0-3.efi", "kairos-000002.efi")
	start["upgraded"] = m.clone()

	for _, tc := range []struct {
		name   string
		from   string
		booted system
		write  system
		plan   func(Facts) (Plan, error)
		after  system // that boots when all went well
	}{
		{"first upgrade", "flashed", one, three, upgradeTo(three), three},
		{"upgrade with one whole partition table", "one partition table", one, three, upgradeTo(three), three},
		{"over a staged one", "staged", one, three, upgradeTo(three), three},
		{"over a failed one", "failed", one, three, upgradeTo(three), three},
		{"the failed one again", "failed", one, two, upgradeTo(two), two},
		{"second upgrade", "upgraded", two, three, upgradeTo(three), three},
		{"back by image", "upgraded", two, one, upgradeTo(one), one},
		{"rollback", "upgraded", two, system{}, PlanRollback, one},
		{"drop what was staged", "staged", one, system{}, PlanUnstage, one},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, 2))
			disks, done := 0, false
			before, err := start[tc.from].boot(known, nil)
			must(t, err)
			old := []string{before, tc.booted.Config.RootHash} // the first is a staged one, where there is one
			for cut := 1; !done; cut++ {
				m := start[tc.from].clone()
				m.cutAt = cut
				err := m.run(t, tc.write, tc.plan, tc.booted.Config.RootHash)
				if done = err == nil; !done && !errors.Is(err, errPower) {
					t.Fatal(err)
				}
				for v := range variants {
					disks++
					after := m.after(rnd)
					got, err := after.boot(known, nil)
					ok := err == nil && (got == tc.after.Config.RootHash || !done && slices.Contains(old, got))
					if !ok {
						t.Fatalf("power cut at operation %d (done: %v): boots %.8s, %v", cut, done, got, err)
					}
					if err := fallsBack(after, known); err != nil {
						t.Fatalf("power cut at operation %d (done: %v): %v", cut, done, err)
					}
					if v%3 == 0 {
						goesOn(t, after, got, four, known)
					}
				}
			}
			t.Logf("RESULT %d disks", disks)
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fallsBack says whether a whole system boots when the tries of what boots first are spent.
func fallsBack(m *machine, known []system) error {
	spent := map[string]bool{}
	for name := range m.files {
		if e, ok := ParseEntry(name[len(entriesDir)+1:]); ok && e.Counted {
			spent[e.File] = true
		}
	}
	if _, err := m.boot(known, spent); err != nil {
		return fmt.Errorf("with the tries spent: %w", err)
	}
	return nil
}

// goesOn finishes an upgrade on what a power cut has left. A system on trial is
// found good first.
func goesOn(t *testing.T, m *machine, booted string, next system, known []system) {
	t.Helper()
	m = m.clone()
	st, err := Inspect(m.facts(t, booted))
	must(t, err)
	if st.Booted.Record == nil {
		t.Fatal("nobody knows what the running system is called")
	}
	if st.Trial() {
		if err := m.run(t, next, upgradeTo(next), booted); !errors.Is(err, ErrTrial) {
			t.Fatalf("upgrade of a system on trial: %v", err)
		}
		m.rename(t, st.Booted.Entry.File, FileName(st.Booted.Entry.Generation, 0))
	}
	must(t, m.run(t, next, upgradeTo(next), booted))
	got, err := m.boot(known, nil)
	if err != nil || got != next.Config.RootHash {
		t.Fatalf("the next upgrade: boots %.8s, %v", got, err)
	}
	st, err = Inspect(m.facts(t, booted))
	must(t, err)
	if st.Other.State != Staged || st.Other.Record == nil || st.Other.Record.Version != "v4" {
		t.Fatalf("the next upgrade: %+v", st.Other)
	}
	if n := len(m.facts(t, booted).Entries); n != 2 {
		t.Fatalf("the next upgrade: %d UKIs are left", n)
	}
}
