package identity

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

var (
	// ErrKeyFile is returned, wrapped, for a key file that is there but does
	// not hold exactly one Ed25519 key. It is never replaced by a new key:
	// that would silently make the node somebody else.
	ErrKeyFile = errors.New("not an identity key file")
	// ErrKeyMode is returned, wrapped, for a key that others may read or replace.
	ErrKeyMode = errors.New("the key is open to other users")
)

const (
	keyMode    = 0o600
	keyDirMode = 0o700
	// maxKeyFile is far above the 119 bytes of a PEM encoded Ed25519 key.
	maxKeyFile = 4096
	pemType    = "PRIVATE KEY" // RFC 7468 section 10, RFC 8410
)

// LoadOrCreate reads the key at path, or makes one if nothing is there. The
// file is PKCS #8 in PEM, mode 0600, in a directory made with mode 0700 if it
// is missing. created tells which of the two happened. Only a file that does
// not exist is created: one that cannot be read or decoded is an error, as is
// one with a wider mode. When two processes create at once, both end up with
// the same key. After it returns, the key survives a power failure.
func LoadOrCreate(path string, random io.Reader) (key Key, created bool, err error) {
	key, err = load(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	if err := os.MkdirAll(filepath.Dir(path), keyDirMode); err != nil {
		return Key{}, false, fmt.Errorf("create directory of the key: %w", err)
	}
	if err := checkDir(filepath.Dir(path)); err != nil {
		return Key{}, false, err
	}
	key, err = Generate(random)
	if err != nil {
		return Key{}, false, err
	}
	if err := create(path, key); err != nil {
		if !errors.Is(err, fs.ErrExist) {
			return Key{}, false, err
		}
		key, err = load(path) // somebody was faster
		return key, false, err
	}
	return key, true, nil
}

// NewKeyFile makes a key and the file at path for it, in the form of LoadOrCreate. It is
// for a key that a person keeps somewhere: nothing that is there is replaced
// (fs.ErrExist), no directory is made, and a place that cannot keep a file from other
// users is refused (ErrKeyMode). After it returns, the key survives a power failure; after
// an error there is no file that was not there before.
func NewKeyFile(path string, random io.Reader) (key Key, err error) {
	if !hasModes {
		return Key{}, fmt.Errorf("create key file: %w: files have no modes here", errors.ErrUnsupported)
	}
	if key, err = Generate(random); err != nil {
		return Key{}, err
	}
	raw, err := encodeKey(key)
	if err != nil {
		return Key{}, err
	}
	// Written in place: file systems of sticks have no links.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, keyMode)
	if err != nil {
		return Key{}, fmt.Errorf("create key file: %w", err)
	}
	if err = keepsSecrets(f); err == nil {
		err = writeSynced(f, raw)
	} else {
		err = errors.Join(err, f.Close())
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return Key{}, errors.Join(fmt.Errorf("write key file: %w", err), os.Remove(path))
	}
	return key, nil
}

// keepsSecrets looks whether the file system has taken the mode: FAT has none.
func keepsSecrets(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o there: %w; choose a place on a disk with permissions, or mount it with umask=077", f.Name(), mode, ErrKeyMode)
	}
	return checkDir(filepath.Dir(f.Name()))
}

func load(path string) (key Key, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return Key{}, fmt.Errorf("open identity key: %w", err)
	}
	defer f.Close() // opened for reading only: nothing can be lost
	info, err := f.Stat()
	if err != nil {
		return Key{}, fmt.Errorf("stat identity key: %w", err)
	}
	if !info.Mode().IsRegular() {
		return Key{}, fmt.Errorf("open identity key %s: not a regular file: %w", path, ErrKeyFile)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return Key{}, fmt.Errorf("open %s: mode %04o instead of %04o: %w; if nobody else has read it, run: chmod 600 %s",
			path, mode, keyMode, ErrKeyMode, path)
	}
	if err := checkDir(filepath.Dir(path)); err != nil {
		return Key{}, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return Key{}, fmt.Errorf("read identity key: %w", err)
	}
	key, err = decodeKey(raw)
	if err != nil {
		return Key{}, fmt.Errorf("read %s: %w; restore it from a backup, or move it away to let this node become a new one", path, err)
	}
	return key, nil
}

// checkDir refuses a directory in which any user could replace the key.
func checkDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("stat directory of the key: %w", err)
	}
	if info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("directory %s is writable by everybody: %w; run: chmod 700 %s", dir, ErrKeyMode, dir)
	}
	return nil
}

// create writes key to path, which must not exist: a link, unlike a rename,
// does not replace what is there.
func create(path string, key Key) error {
	raw, err := encodeKey(key)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".identity-*") // mode 0600
	if err != nil {
		return fmt.Errorf("create identity key: %w", err)
	}
	err = writeSynced(tmp, raw)
	if err == nil {
		err = os.Link(tmp.Name(), path)
	}
	// The temporary name holds the key too, so that failing to remove it matters.
	if rmErr := os.Remove(tmp.Name()); err == nil {
		err = rmErr
	}
	if err != nil {
		return fmt.Errorf("write identity key: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func writeSynced(f *os.File, raw []byte) error {
	_, err := f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open directory of the key: %w", err)
	}
	defer d.Close() // opened for reading only
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory of the key: %w", err)
	}
	return nil
}

func encodeKey(key Key) ([]byte, error) {
	if key.secret == nil {
		return nil, errNoKey
	}
	der, err := x509.MarshalPKCS8PrivateKey((*key.secret).key)
	if err != nil {
		return nil, fmt.Errorf("encode identity key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), nil
}

// decodeKey reads what encodeKey wrote, and nothing else. Its errors do not
// quote the input.
func decodeKey(raw []byte) (Key, error) {
	if len(raw) > maxKeyFile {
		return Key{}, fmt.Errorf("more than %d bytes: %w", maxKeyFile, ErrKeyFile)
	}
	block, rest := pem.Decode(raw)
	if block == nil || block.Type != pemType || len(block.Headers) != 0 || len(rest) != 0 {
		return Key{}, fmt.Errorf("not exactly one PEM block of type %s: %w", pemType, ErrKeyFile)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Key{}, fmt.Errorf("decode PKCS #8: %w", ErrKeyFile)
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return Key{}, fmt.Errorf("another algorithm than Ed25519: %w", ErrKeyFile)
	}
	return wrap(private), nil
}
