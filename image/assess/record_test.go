package assess

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

func TestLogKeepsTheLastRecordOfEachSystem(t *testing.T) {
	var l Log
	for i := range maxRecords + 3 {
		l = l.With(Record{RootHash: fmt.Sprint(i), Verdict: Bad})
	}
	l = l.With(Record{RootHash: "9", Verdict: Good, Reason: "all is well"})
	if len(l.Records) != maxRecords || l.Records[0].RootHash != "9" {
		t.Errorf("%d records, the first of %q", len(l.Records), l.Records[0].RootHash)
	}
	if r, ok := l.Of("9"); !ok || r.Verdict != Good {
		t.Errorf("system 9: %v, %+v", ok, r)
	}
	if _, ok := l.Of("0"); ok {
		t.Error("the oldest is still there")
	}
}

func TestFilesComeBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "os")
	if l, err := LoadLog(dir); err != nil || len(l.Records) != 0 {
		t.Fatalf("no file: %+v, %v", l, err)
	}
	if e, err := LoadExpect(dir); err != nil || e != nil {
		t.Fatalf("no file: %+v, %v", e, err)
	}
	l := Log{}.With(Record{RootHash: "ab", Verdict: Bad, Reason: "k3s never ready", BootID: "1", When: noon})
	e := Expect{When: noon, Mesh: true, NICs: []NIC{{Name: "eth0", MAC: "52:54:00:00:00:01", Carrier: true,
		Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/24")}}},
		Probes: []Probe{{Name: "gateway", Addr: netip.MustParseAddrPort("10.0.0.1:53"), Gateway: true, Answers: true}}}
	if err := l.Save(dir); err != nil {
		t.Fatal(err)
	}
	if err := e.Save(dir); err != nil {
		t.Fatal(err)
	}
	l.Version, e.Version = version, version
	if got, err := LoadLog(dir); err != nil || !reflect.DeepEqual(got, l) {
		t.Errorf("log: %+v, %v", got, err)
	}
	if got, err := LoadExpect(dir); err != nil || !reflect.DeepEqual(*got, e) {
		t.Errorf("expectation: %+v, %v", got, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
}

func TestDamageIsNotAbsence(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{recordFile, expectFile} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(`{"version":`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := LoadLog(dir); err == nil {
		t.Error("a damaged log was read")
	}
	if _, err := LoadExpect(dir); err == nil {
		t.Error("a damaged expectation was read")
	}
}

// The system that boots after a rollback is the older one: it keeps what it does
// not know of the log.
func TestLogKeepsWhatALaterVersionAdds(t *testing.T) {
	dir := t.TempDir()
	later := `{"version":1,"later":{"x":1},"records":[{"root_hash":"ab","verdict":"good","later":"y"}]}`
	if err := os.WriteFile(filepath.Join(dir, recordFile), []byte(later), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := LoadLog(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.With(Record{RootHash: "cd", Verdict: Bad}).Save(dir); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil || strings.Count(string(raw), "later") != 2 || strings.Count(string(raw), "root_hash") != 2 {
		t.Errorf("%s, %v", raw, err)
	}
}
