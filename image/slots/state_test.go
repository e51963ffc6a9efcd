package slots

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/quick"
)

func TestParseEntry(t *testing.T) {
	for name, want := range map[string]Entry{
		"kairos-000001.efi":      {Generation: 1},
		"kairos-000002+3.efi":    {Generation: 2, Counted: true, Left: 3},
		"kairos-000002+2-1.efi":  {Generation: 2, Counted: true, Left: 2, Done: 1},
		"kairos-000002+0-3.efi":  {Generation: 2, Counted: true, Done: 3},
		"kairos-1234567+10.efi":  {Generation: 1234567, Counted: true, Left: 10},
		"kairos-000003+03-0.efi": {Generation: 3, Counted: true, Left: 3},
	} {
		want.File = name
		if got, ok := ParseEntry(name); !ok || got != want {
			t.Errorf("%s: %+v, %v", name, got, ok)
		}
	}
	for _, name := range []string{"", "kairos.efi", "kairos-1.efi", "kairos-000001", "kairos-000001.efi.tmp", "kairos-000001+.efi", "kairos-000001+x.efi",
		"kairos-000001+3-.efi", "kairos-000001+3-1-1.efi", "kairos--00001.efi", "linux-000001.efi", "kairos-9999999999999999999.efi", "../kairos-000001.efi", "kairos-000001+99999.efi"} {
		if e, ok := ParseEntry(name); ok {
			t.Errorf("%q was taken: %+v", name, e)
		}
	}
	check := func(generation uint32, tries uint8) bool {
		e, ok := ParseEntry(FileName(uint64(generation), int(tries)))
		return ok && e.Generation == uint64(generation) && e.Left == int(tries) && e.Counted == (tries > 0)
	}
	if err := quick.Check(check, nil); err != nil {
		t.Error(err)
	}
}

// What systemd-boot takes first: the highest generation that has tries left.
func TestCompare(t *testing.T) {
	want := []string{"kairos-1000000+1-2.efi", "kairos-999999.efi", "kairos-000003+3.efi", "kairos-000002.efi", "kairos-000009+0-3.efi", "kairos-000001+0-3.efi"}
	var entries []Entry
	for _, name := range want {
		e, ok := ParseEntry(name)
		if !ok {
			t.Fatal(name)
		}
		entries = append(entries, e)
	}
	slices.Reverse(entries)
	slices.SortFunc(entries, Compare)
	for i, e := range entries {
		if e.File != want[i] {
			t.Errorf("%d: %s, want %s", i, e.File, want[i])
		}
	}
}

var (
	hashA = strings.Repeat("0a", 32)
	hashB = strings.Repeat("0b", 32)
	hashC = strings.Repeat("0c", 32)
)

// factsOf is a machine that runs a; b is what the other slot's partitions say.
func factsOf(t *testing.T, b string, entries ...string) Facts {
	t.Helper()
	f := Facts{RootHash: hashA, Partitions: []Partition{{Number: 1, Label: ESPLabel}, {Number: 6, Label: DataLabel}}}
	for s, h := range map[Slot]string{A: hashA, B: b} {
		root, verity, err := UUIDs(h)
		if err != nil {
			t.Fatal(err)
		}
		f.Partitions = append(f.Partitions, Partition{Number: 2 + 2*int(s), Label: s.RootLabel(), UUID: root, Size: 1 << 20},
			Partition{Number: 3 + 2*int(s), Label: s.VerityLabel(), UUID: verity, Size: 1 << 20})
	}
	for _, e := range entries {
		name, hash, _ := strings.Cut(e, " ")
		parsed, ok := ParseEntry(name)
		if !ok {
			t.Fatal(name)
		}
		parsed.RootHash = map[string]string{"a": hashA, "b": hashB, "c": hashC, "": ""}[hash]
		f.Entries = append(f.Entries, parsed)
	}
	f.Records = Records{A: &Record{Version: "v1", RootHash: hashA, Generation: 1}, B: &Record{Version: "v2", RootHash: hashB, Generation: 2}}
	return f
}

func TestInspect(t *testing.T) {
	for _, tc := range []struct {
		name    string
		b       string
		entries []string
		state   State
		trial   bool
		version string // of the other slot
	}{
		{"as flashed", strings.Repeat("00", 32), []string{"kairos-000001.efi a"}, Empty, false, ""},
		{"staged", hashB, []string{"kairos-000001.efi a", "kairos-000002+3.efi b"}, Staged, false, "v2"},
		{"staged, one boot was cut short", hashB, []string{"kairos-000001.efi a", "kairos-000002+2-1.efi b"}, Staged, false, "v2"},
		{"staged, but its UKI is half written", hashB, []string{"kairos-000001.efi a", "kairos-000002+3.efi "}, Empty, false, ""},
		{"staged, but its partitions are another's", hashC, []string{"kairos-000001.efi a", "kairos-000002+3.efi b"}, Empty, false, ""},
		{"failed", hashB, []string{"kairos-000001.efi a", "kairos-000002+0-3.efi b"}, Failed, false, "v2"},
		{"good", hashB, []string{"kairos-000003.efi a", "kairos-000002.efi b"}, Rollback, false, "v2"},
		{"on trial", hashB, []string{"kairos-000003+2-1.efi a", "kairos-000002.efi b"}, Rollback, true, "v2"},
		{"on its last try", hashB, []string{"kairos-000003+0-3.efi a", "kairos-000002.efi b"}, Staged, true, "v2"},
		{"a system without a record", hashC, []string{"kairos-000003.efi a", "kairos-000002.efi c"}, Rollback, false, ""},
		{"a rollback was cut short", hashB, []string{"kairos-000001.efi a", "kairos-000003.efi b", "kairos-000000.efi b"}, Staged, false, "v2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			st, err := Inspect(factsOf(t, tc.b, tc.entries...))
			if err != nil {
				t.Fatal(err)
			}
			if st.Booted.Slot != A || st.Booted.State != Booted || st.Booted.Record.Version != "v1" || st.Trial() != tc.trial {
				t.Errorf("booted: %+v", st.Booted)
			}
			version := ""
			if st.Other.Record != nil {
				version = st.Other.Record.Version
			}
			if st.Other.Slot != B || st.Other.State != tc.state || version != tc.version {
				t.Errorf("other: %+v, record %q", st.Other, version)
			}
		})
	}
}

func TestInspectOtherDisks(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(*Facts)
		want string
	}{
		{"no partitions", func(f *Facts) { f.Partitions = nil }, "0 partitions called kairos-root-a"},
		{"one slot", func(f *Facts) { f.Partitions = f.Partitions[:len(f.Partitions)-1] }, "0 partitions called kairos-verity-"},
		{"two of one name", func(f *Facts) { f.Partitions[0].Label = A.RootLabel() }, "2 partitions called kairos-root-a"},
		{"another system runs", func(f *Facts) { f.RootHash = hashC }, "neither slot holds the running system"},
		{"both are the same", func(f *Facts) { *f = factsOf(t, hashA) }, "both slots"},
	} {
		f := factsOf(t, hashB)
		tc.edit(&f)
		if _, err := Inspect(f); !errors.Is(err, ErrLayout) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// steps writes a plan as words.
func steps(p Plan) string {
	var out []string
	for _, s := range p.Steps {
		out = append(out, strings.Trim(string(s.Op)+" "+s.From+" "+string(s.Part)+s.File, " "))
	}
	return strings.ReplaceAll(strings.Join(out, ", "), "  ", " ")
}

func TestPlans(t *testing.T) {
	rel := newSystem("v3").Release
	write := "write root, name root, write verity, name verity, verify, record, "
	for _, tc := range []struct {
		name    string
		plan    func(Facts) (Plan, error)
		entries []string
		want    string
	}{
		{"upgrade of what was flashed", upgradeTo(system{Release: rel}), []string{"kairos-000001.efi a"},
			"kernel kairos-000003+3.efi, " + write + "enter kairos-000003+3.efi"}, // slots.json knows a generation 2
		{"upgrade over the way back", upgradeTo(system{Release: rel}), []string{"kairos-000004.efi a", "kairos-000002.efi b"},
			"kernel kairos-000005+3.efi, drop kairos-000002.efi, " + write + "enter kairos-000005+3.efi"},
		{"upgrade over a staged one", upgradeTo(system{Release: rel}), []string{"kairos-000001.efi a", "kairos-000002+3.efi b"},
			"kernel kairos-000003+3.efi, drop kairos-000002+3.efi, " + write + "enter kairos-000003+3.efi"},
		{"upgrade over a failed one", upgradeTo(system{Release: rel}), []string{"kairos-000001.efi a", "kairos-000002+0-3.efi b"},
			"kernel kairos-000003+3.efi, drop kairos-000002+0-3.efi, " + write + "enter kairos-000003+3.efi"},
		{"remains go first", upgradeTo(system{Release: rel}), []string{"kairos-000001.efi a", "kairos-000007+3.efi ", "kairos-000002.efi b", "kairos-000003.efi b"},
			"drop kairos-000007+3.efi, kernel kairos-000008+3.efi, drop kairos-000002.efi, drop kairos-000003.efi, " + write + "enter kairos-000008+3.efi"},
		{"what fsck has found goes first", func(f Facts) (Plan, error) {
			f.Lost = []string{"FSCK0000.REC", "FSCK0001.REC"}
			return PlanUpgrade(f, rel)
		}, []string{"kairos-000001.efi a"},
			"sweep FSCK0000.REC, sweep FSCK0001.REC, kernel kairos-000003+3.efi, " + write + "enter kairos-000003+3.efi"},
		{"rollback", PlanRollback, []string{"kairos-000003.efi a", "kairos-000002.efi b"},
			"copy kairos-000002.efi kairos-000004.efi, record, enter kairos-000004.efi, drop kairos-000002.efi"},
		{"rollback of one on trial", PlanRollback, []string{"kairos-000003+2-1.efi a", "kairos-000002.efi b"},
			"copy kairos-000002.efi kairos-000004.efi, record, enter kairos-000004.efi, drop kairos-000002.efi"},
		{"drop what was staged", PlanUnstage, []string{"kairos-000001.efi a", "kairos-000002+3.efi b"}, "drop kairos-000002+3.efi, record"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := tc.plan(factsOf(t, hashB, tc.entries...))
			if err != nil {
				t.Fatal(err)
			}
			if got := steps(p); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
			if p.Slot.Slot != B || !reflect.DeepEqual(p.Records.A, factsOf(t, hashB).Records.A) {
				t.Errorf("changes slot %s, records %+v", p.Slot.Slot, p.Records)
			}
		})
	}
}

func TestPlansThatAreRefused(t *testing.T) {
	rel := newSystem("v3").Release
	same, large := rel, newSystem("v4").Release
	same.Config.RootHash = hashA
	large.Pieces[Root] = Piece{Size: 1<<20 + 1}
	for _, tc := range []struct {
		name    string
		plan    func(Facts) (Plan, error)
		entries []string
		want    string
	}{
		{"the running system", upgradeTo(system{Release: same}), []string{"kairos-000001.efi a"}, ErrCurrent.Error()},
		{"the running system is on trial", upgradeTo(system{Release: rel}), []string{"kairos-000003+2-1.efi a", "kairos-000002.efi b"}, ErrTrial.Error()},
		{"the running system has no UKI", upgradeTo(system{Release: rel}), []string{"kairos-000002.efi b"}, "no UKI for the running system"},
		{"larger than the partition", upgradeTo(system{Release: large}), []string{"kairos-000001.efi a"}, "its partition kairos-root-b only 1048576"},
		{"nothing to go back to", PlanRollback, []string{"kairos-000001.efi a"}, "the other slot is empty"},
		{"back to one that failed", PlanRollback, []string{"kairos-000001.efi a", "kairos-000002+0-3.efi b"}, "the other slot is failed"},
		{"back to one that was never booted", PlanRollback, []string{"kairos-000001.efi a", "kairos-000002+3.efi b"}, "the other slot is staged"},
		{"nothing is staged", PlanUnstage, []string{"kairos-000001.efi a"}, "nothing is staged"},
	} {
		if _, err := tc.plan(factsOf(t, hashB, tc.entries...)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestRootHashOf(t *testing.T) {
	for cmdline, want := range map[string]string{
		"quiet roothash=ABCD panic=10": "abcd", "": "", "xroothash=1": "", "roothash=1 roothash=2": "2",
	} {
		if got := RootHashOf(cmdline); got != want {
			t.Errorf("%q: %q", cmdline, got)
		}
	}
}

// What a later version wrote stays while there is room for it.
func TestRecordsKeepWhatALaterVersionAdds(t *testing.T) {
	for _, tc := range []struct {
		extra int
		want  int // of "later" that are left
	}{{10, 3}, {recordsSize, 0}} {
		later := `{"later":1,"a":{"image":"i","later":"` + strings.Repeat("x", tc.extra) + `"},"b":{"image":"j","later":2}}`
		var r Records
		if err := json.Unmarshal([]byte(later), &r); err != nil {
			t.Fatal(err)
		}
		raw, err := EncodeRecords(r)
		if err != nil || len(raw) != recordsSize || strings.Count(string(raw), "later") != tc.want {
			t.Errorf("with %d bytes of a later version: %s, %v", tc.extra, raw, err)
		}
	}
}
