package assess

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kairos-io/kairos/agent/store"
	"github.com/kairos-io/kairos/overlay/keepjson"
)

// Dir is where both files are on a machine: mode 0700, on the data partition.
const Dir = "/var/lib/kairos/os"

// Names of the files in Dir.
const (
	recordFile = "assess.json"
	expectFile = "expect.json"
)

// version is that of both files. Unknown fields are kept, because the system that
// boots after a rollback is the older one.
const version = 1

// maxRecords bounds how many systems are remembered: two slots, and what was in
// them before.
const maxRecords = 8

// Verdict is what was found about a boot.
type Verdict string

// The verdicts. Good and Bad are final for their boot.
const (
	Waiting Verdict = "waiting" // none yet; as a record: the boot ended without one
	Good    Verdict = "good"
	Bad     Verdict = "bad"
)

// Record is the verdict on the last boot of one system.
type Record struct {
	RootHash string    `json:"root_hash"` // of the booted root: 64 hex digits
	Verdict  Verdict   `json:"verdict"`
	Reason   string    `json:"reason"`  // one line, for people
	BootID   string    `json:"boot_id"` // /proc/sys/kernel/random/boot_id of that boot
	When     time.Time `json:"when"`    // by the wall clock: shown, never compared

	unknown keepjson.Unknown
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *Record) UnmarshalJSON(raw []byte) (err error) {
	type plain Record
	r.unknown, err = keepjson.Unmarshal(raw, (*plain)(r))
	return err
}

// MarshalJSON implements json.Marshaler.
func (r Record) MarshalJSON() ([]byte, error) {
	type plain Record
	return keepjson.Marshal(plain(r), r.unknown)
}

// Log is the content of assess.json. The zero Log is empty and usable.
type Log struct {
	Version int      `json:"version"`
	Records []Record `json:"records"` // at most one for each root hash, the newest first

	unknown keepjson.Unknown
}

// UnmarshalJSON implements json.Unmarshaler.
func (l *Log) UnmarshalJSON(raw []byte) (err error) {
	type plain Log
	l.unknown, err = keepjson.Unmarshal(raw, (*plain)(l))
	return err
}

// MarshalJSON implements json.Marshaler.
func (l Log) MarshalJSON() ([]byte, error) {
	type plain Log
	return keepjson.Marshal(plain(l), l.unknown)
}

// Of returns the record of the system with this root hash.
func (l Log) Of(rootHash string) (Record, bool) {
	i := slices.IndexFunc(l.Records, func(r Record) bool { return r.RootHash == rootHash })
	if i < 0 {
		return Record{}, false
	}
	return l.Records[i], true
}

// With returns the log with r in place of an older record of the same system.
func (l Log) With(r Record) Log {
	records := []Record{r}
	for _, old := range l.Records {
		if old.RootHash != r.RootHash && len(records) < maxRecords {
			records = append(records, old)
		}
	}
	l.Records = records
	return l
}

// LoadLog reads assess.json in dir. An absent file is an empty log.
func LoadLog(dir string) (Log, error) {
	var l Log
	if _, err := load(filepath.Join(dir, recordFile), &l); err != nil {
		return Log{}, err
	}
	return l, nil
}

// Save makes the log durable in dir.
func (l Log) Save(dir string) error {
	l.Version = version
	return save(filepath.Join(dir, recordFile), l)
}

func load(path string, into any) (found bool, err error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the boot assessment: %w", err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return false, fmt.Errorf("decode %s: %w", path, err)
	}
	return true, nil
}

func save(path string, v any) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("save the boot assessment: %w", err)
	}
	if err := store.WriteFile(store.OS{}, path, append(raw, '\n')); err != nil {
		return fmt.Errorf("save the boot assessment: %w", err)
	}
	return nil
}
