package builder

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// file is one entry of a tar that a test makes.
type file struct {
	tar.Header
	data string
}

func makeTar(t testing.TB, files ...file) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, f := range files {
		h := f.Header
		h.Size = int64(len(f.data))
		h.Format = tar.FormatPAX
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatalf("%s: %v", h.Name, err)
		}
		if _, err := io.WriteString(tw, f.data); err != nil {
			t.Fatalf("%s: %v", h.Name, err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func readTar(t *testing.T, data []byte) map[string]file {
	t.Helper()
	out := map[string]file{}
	tr := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := out[h.Name]; twice {
			t.Errorf("%s is there twice", h.Name)
		}
		out[h.Name] = file{*h, string(body)}
	}
}

func entryOf(name string, kind byte, data string) file {
	return file{tar.Header{Name: name, Typeflag: kind}, data}
}

func TestNormaliseKeepsAndDrops(t *testing.T) {
	tests := []struct {
		name string
		kind byte
		want string // name in the result, empty if it must not be there
	}{
		{"./usr/bin/ping", tar.TypeReg, "usr/bin/ping"},
		{"./dev/", tar.TypeDir, "dev/"},
		{"./dev/null", tar.TypeChar, ""},
		{"./dev/stdin", tar.TypeSymlink, ""},
		{"./var/lib/some.pipe", tar.TypeFifo, ""},
		{"./etc/ssh/sshd_config", tar.TypeReg, "etc/ssh/sshd_config"},
		{"./etc/ssh/ssh_host_rsa_key", tar.TypeReg, ""},
		{"./etc/ssh/ssh_host_rsa_key.pub", tar.TypeReg, ""},
		{"./etc/hostname", tar.TypeReg, ""},
		{"./var/lib/dbus/machine-id", tar.TypeReg, ""},
		{"./var/lib/systemd/random-seed", tar.TypeReg, ""},
		{"./var/lib/systemd/credential.secret", tar.TypeReg, ""},
		{"./etc/apt/apt.conf.d/99mmdebstrap", tar.TypeReg, ""},
		{"./etc/.resolv.conf.systemd-resolved.bak", tar.TypeReg, ""},
		{"./var/log/", tar.TypeDir, "var/log/"},
		{"./var/log/dpkg.log", tar.TypeReg, ""},
		{"./var/log/journal/", tar.TypeDir, "var/log/journal/"},
		{"./var/cache/apt/pkgcache.bin", tar.TypeReg, ""},
		{"./usr/share/doc/runc/copyright", tar.TypeReg, "usr/share/doc/runc/copyright"},
		{"./usr/share/doc/runc/changelog.gz", tar.TypeReg, ""},
		{"./usr/share/locale/de/LC_MESSAGES/x.mo", tar.TypeReg, ""},
		{"./etc/systemd/system/timers.target.wants/dpkg-db-backup.timer", tar.TypeSymlink, ""},
		{"./etc/systemd/system/sysinit.target.wants/systemd-boot-update.service", tar.TypeSymlink, ""},
		{"./etc/systemd/system/multi-user.target.wants/ssh.service", tar.TypeSymlink, "etc/systemd/system/multi-user.target.wants/ssh.service"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := entryOf(tt.name, tt.kind, "")
			if tt.kind == tar.TypeSymlink {
				f.Linkname = "target"
			}
			got := readTar(t, normalised(t, f))
			delete(got, "etc/machine-id")
			delete(got, "etc/resolv.conf")
			if _, ok := got[tt.want]; tt.want != "" && !ok {
				t.Errorf("is gone; there is %v", got)
			}
			if tt.want == "" && len(got) > 0 {
				t.Errorf("is still there: %v", got)
			}
		})
	}
}

func normalised(t *testing.T, files ...file) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := normalise(bytes.NewReader(makeTar(t, files...)), &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestNormaliseHeader(t *testing.T) {
	old := time.Date(2020, 1, 2, 3, 4, 5, 600, time.UTC)
	ping := file{tar.Header{
		Name: "./usr/bin/ping", Mode: 0o4755, Uid: 0, Gid: 7, Uname: "root", Gname: "builder", ModTime: old, AccessTime: time.Now(),
		PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "\x01cap", "SCHILY.xattr.user.note": "made here"},
	}, "elf"}
	young := file{tar.Header{Name: "./etc/young", ModTime: time.Now()}, "x"}
	got := readTar(t, normalised(t, ping, young))

	p := got["usr/bin/ping"]
	if p.Mode != 0o4755 || p.Gid != 7 || p.Uname != "" || p.Gname != "" || p.data != "elf" {
		t.Errorf("header became %+v", p.Header)
	}
	if !p.ModTime.Equal(old.Truncate(time.Second)) || !p.AccessTime.IsZero() {
		t.Errorf("times became %v, %v", p.ModTime, p.AccessTime)
	}
	if p.PAXRecords["SCHILY.xattr.security.capability"] != "\x01cap" || len(p.PAXRecords) != 1 {
		t.Errorf("attributes became %q", p.PAXRecords)
	}
	if y := got["etc/young"]; !y.ModTime.Equal(baseEpoch) {
		t.Errorf("a file made now is from %v", y.ModTime)
	}
	if id := got["etc/machine-id"]; id.data != "uninitialized\n" {
		t.Errorf("machine-id is %q", id.data)
	}
}

func TestNormaliseLeavesNoPassword(t *testing.T) {
	shadow := "root::20309::::::\nuser:$y$j9T$abc:20309::::::\nlocked:!:1::::::\nstar:*:1::::::\nbang:!*:1::::::\n"
	got := readTar(t, normalised(t, entryOf("./etc/shadow", tar.TypeReg, shadow)))["etc/shadow"].data
	want := "root:*:20309::::::\nuser:*:20309::::::\nlocked:!:1::::::\nstar:*:1::::::\nbang:!*:1::::::\n"
	if got != want {
		t.Errorf("shadow became\n%swant\n%s", got, want)
	}
}

func TestNormaliseRefuses(t *testing.T) {
	link := entryOf("./usr/bin/x", tar.TypeLink, "")
	link.Linkname = "./var/log/y"
	tests := []struct {
		name string
		data []byte
	}{
		{"a hard link to a file that is left out", append(makeTar(t, link), 0)},
		{"half a tar", makeTar(t, entryOf("./a", tar.TypeReg, strings.Repeat("x", 2000)))[:1024]},
		{"no tar", bytes.Repeat([]byte("x"), 4096)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := normalise(bytes.NewReader(tt.data), io.Discard); err == nil {
				t.Error("no error")
			}
		})
	}
}
