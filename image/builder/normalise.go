package builder

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// normaliserVersion is part of the cache key: raise it with every change of what
// normalise lets through.
const normaliserVersion = 6

// Directories whose content is made anew by every machine; they stay, empty.
var emptied = []string{
	"dev", "proc", "sys", "run", "tmp", "var/tmp",
	"var/cache/apt", "var/cache/debconf", "var/cache/ldconfig", "var/cache/man",
	"var/lib/apt", "var/lib/cloud", "var/lib/systemd",
}

// Directories that a machine without people at it does not need.
var dropped = []string{
	"usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/i18n",
	"usr/share/lintian", "usr/share/doc-base", "usr/share/bug", "etc/apt",
}

// Single files that are an identity, a trace of the building machine, or a
// backup copy that differs from one installation to the next.
var unwanted = []string{
	"etc/ssh/ssh_host_*", "etc/hostname", "etc/resolv.conf", "etc/.resolv.conf.*", "etc/machine-id",
	"var/lib/dbus/machine-id", "etc/.pwd.lock", "etc/.updated", "var/.updated",
	"etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-",
	"var/lib/dpkg/*-old", "var/lib/dpkg/lock*", "var/lib/dpkg/triggers/Lock", "root/.*_history",
	"etc/dpkg/dpkg.cfg.d/99mmdebstrap", "lost+found", ".dockerenv",
	// The kernel stays in /boot, for the release that is made of the image.
	"vmlinuz*", "initrd.img*", "boot/initrd.img*",
	// Turned on by packages; a first boot only adds to what is on.
	"etc/systemd/system/*.wants/e2scrub_*", "etc/systemd/system/*.wants/dpkg-db-backup.timer",
	"etc/systemd/system/*.wants/cloud-init-hotplugd.socket",
	// The ESP is written by installing and upgrading only, in an order that a power cut cannot hurt.
	"etc/systemd/system/*.wants/systemd-boot-update.service",
}

// normalise copies a root file system so that only what Debian's packages say
// remains: names without "./", numeric owners, times not after baseEpoch, no
// device nodes, and none of the above. Order is kept: mmdebstrap sorts.
func normalise(in io.Reader, out io.Writer) error {
	tr, tw := tar.NewReader(in), tar.NewWriter(out)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		if err := normaliseEntry(h, tr, tw); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	for _, e := range blankIdentity {
		if err := writeEntry(tw, e); err != nil {
			return err
		}
	}
	return tw.Close()
}

// blankIdentity stands where a machine's own will be: systemd takes the word
// uninitialized for a first boot, in which presets and users are applied.
var blankIdentity = []*entry{
	{name: "etc/machine-id", mode: 0o444, data: []byte("uninitialized\n")},
	{name: "etc/resolv.conf", link: "../run/systemd/resolve/stub-resolv.conf"},
}

func normaliseEntry(h *tar.Header, body io.Reader, tw *tar.Writer) error {
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	if name == "" || !keep(name, h.Typeflag) {
		return nil
	}
	clean := &tar.Header{
		Typeflag: h.Typeflag, Name: name, Linkname: h.Linkname, Size: h.Size,
		Mode: h.Mode & 0o7777, Uid: h.Uid, Gid: h.Gid,
		ModTime: h.ModTime.UTC(), Format: tar.FormatPAX,
	}
	if clean.ModTime.After(baseEpoch) {
		clean.ModTime = baseEpoch
	}
	clean.ModTime = clean.ModTime.Truncate(1e9)
	switch h.Typeflag {
	case tar.TypeDir:
		clean.Name += "/"
	case tar.TypeLink:
		clean.Linkname = strings.TrimPrefix(path.Clean("/"+h.Linkname), "/")
		if !keep(clean.Linkname, tar.TypeReg) {
			return fmt.Errorf("is a hard link to %s, which is left out", clean.Linkname)
		}
	case tar.TypeReg, tar.TypeSymlink:
	default:
		return fmt.Errorf("has the unexpected type %q", h.Typeflag)
	}
	clean.PAXRecords = xattrs(h)
	if name == "etc/shadow" {
		return copyShadow(clean, body, tw)
	}
	if err := tw.WriteHeader(clean); err != nil {
		return err
	}
	_, err := io.Copy(tw, body)
	return err
}

// keep decides by name.
func keep(name string, kind byte) bool {
	if kind == tar.TypeChar || kind == tar.TypeBlock || kind == tar.TypeFifo {
		return false
	}
	for _, dir := range emptied {
		if strings.HasPrefix(name, dir+"/") {
			return false
		}
	}
	for _, dir := range dropped {
		if name == dir || strings.HasPrefix(name, dir+"/") {
			return false
		}
	}
	for _, pattern := range unwanted {
		if ok, _ := path.Match(pattern, name); ok {
			return false
		}
	}
	switch {
	case strings.HasPrefix(name, "var/log/"):
		return kind == tar.TypeDir
	case strings.HasPrefix(name, "usr/share/doc/"):
		// Licences stay: they are owed.
		return kind == tar.TypeDir || path.Base(name) == "copyright"
	}
	return true
}

// xattrs keeps file capabilities. Other attributes, such as the journal's access
// list, are set by the machine itself, and the records of the tar format are
// tar.Writer's.
func xattrs(h *tar.Header) map[string]string {
	var out map[string]string
	for k, v := range h.PAXRecords {
		if k == "SCHILY.xattr.security.capability" {
			out = map[string]string{k: v}
		}
	}
	return out
}

// copyShadow makes sure that no account of the image has a password: not an
// empty one, not a default one.
func copyShadow(h *tar.Header, body io.Reader, tw *tar.Writer) error {
	data, err := io.ReadAll(io.LimitReader(body, 1<<20))
	if err != nil {
		return err
	}
	var out bytes.Buffer
	for line := range strings.Lines(string(data)) {
		fields := strings.Split(line, ":")
		if len(fields) > 1 && fields[1] != "*" && !strings.HasPrefix(fields[1], "!") {
			fields[1] = "*"
		}
		out.WriteString(strings.Join(fields, ":"))
	}
	h.Size = int64(out.Len())
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	_, err = tw.Write(out.Bytes())
	return err
}
