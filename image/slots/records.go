package slots

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/kairos-io/kairos/overlay/keepjson"
)

// Names of the two copies of slots.json on the ESP.
const (
	recordsFile  = recordsDir + "/slots.json"
	recordsSpare = recordsDir + "/slots.old"
)

// recordsSize is the size of a copy in bytes: it never changes, so that writing
// it changes no directory and no allocation.
const recordsSize = 4096

// recordsDoc is the form of the file.
type recordsDoc struct {
	Slots Records `json:"slots"`
}

// EncodeRecords returns the content of slots.json. What a later version wrote is
// kept as long as there is room: it must not keep a machine from an upgrade.
func EncodeRecords(r Records) ([]byte, error) {
	raw, err := json.MarshalIndent(recordsDoc{r}, "", "  ")
	if err == nil && len(raw) >= recordsSize {
		raw, err = json.MarshalIndent(recordsDoc{r.known()}, "", "  ")
	}
	if err != nil {
		return nil, fmt.Errorf("encode slots.json: %w", err)
	}
	if len(raw) >= recordsSize {
		return nil, fmt.Errorf("encode slots.json: it would have %d bytes", len(raw))
	}
	return append(append(raw, bytes.Repeat([]byte(" "), recordsSize-len(raw)-1)...), '\n'), nil
}

// known is r without what a later version wrote.
func (r Records) known() Records {
	r.unknown = keepjson.Unknown{}
	for _, rec := range []**Record{&r.A, &r.B} {
		if *rec != nil {
			without := **rec
			without.unknown = keepjson.Unknown{}
			*rec = &without
		}
	}
	return r
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *Records) UnmarshalJSON(raw []byte) (err error) {
	type plain Records
	r.unknown, err = keepjson.Unmarshal(raw, (*plain)(r))
	return err
}

// MarshalJSON implements json.Marshaler.
func (r Records) MarshalJSON() ([]byte, error) {
	type plain Records
	return keepjson.Marshal(plain(r), r.unknown)
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

// ReadRecords reads slots.json, or its spare copy when a power cut tore it. What
// cannot be read is no records: they only give names to what boots anyway.
func ReadRecords(esp ESP) (Records, error) {
	for _, name := range []string{recordsFile, recordsSpare} {
		raw := make([]byte, recordsSize)
		n := 0
		err := each(func() (File, error) { return esp.Open(name, Read) }, func(f File) error {
			var err error
			if n, err = f.ReadAt(raw, 0); errors.Is(err, io.EOF) {
				return nil
			}
			return err
		})
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Records{}, fmt.Errorf("read %s: %w", name, err)
		}
		var doc recordsDoc
		if json.Unmarshal(bytes.TrimRight(raw[:n], "\x00"), &doc) == nil {
			return doc.Slots, nil
		}
	}
	return Records{}, nil
}

// WriteRecords makes the records durable: the spare copy first, so that one of
// the two is whole at every moment.
func WriteRecords(esp ESP, r Records) error {
	raw, err := EncodeRecords(r)
	if err != nil {
		return err
	}
	for _, name := range []string{recordsSpare, recordsFile} {
		if err := writeInPlace(esp, name, raw); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

func writeInPlace(esp ESP, name string, raw []byte) error {
	write := func(f File) error {
		if _, err := f.WriteAt(raw, 0); err != nil {
			return err
		}
		return f.Sync()
	}
	err := each(func() (File, error) { return esp.Open(name, Write) }, write)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := each(func() (File, error) { return esp.Create(name) }, write); err != nil {
		return err
	}
	return esp.SyncDir(recordsDir)
}
