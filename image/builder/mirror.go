package builder

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Mirrors says where Debian packages come from.
type Mirrors struct {
	Main     string // the archive, for example http://deb.debian.org/debian
	Security string // security updates; "none" leaves them out
}

// FindMirrors fills in what a caller left empty: from $KAIROS_MIRROR and
// $KAIROS_SECURITY_MIRROR, then from the apt sources below dir (/etc/apt), then
// from the public defaults. What is found is used for the build only and never
// becomes part of an image.
func FindMirrors(given Mirrors, getenv func(string) string, dir string) (Mirrors, error) {
	host, err := aptMirrors(dir)
	if err != nil {
		return Mirrors{}, err
	}
	first := func(values ...string) string {
		for _, v := range values {
			if v != "" {
				return strings.TrimRight(v, "/")
			}
		}
		return ""
	}
	return Mirrors{
		Main:     first(given.Main, getenv("KAIROS_MIRROR"), host.Main, Mirror),
		Security: first(given.Security, getenv("KAIROS_SECURITY_MIRROR"), host.Security, SecurityMirror),
	}, nil
}

// sources returns the lines of a sources.list for suite. Firmware and microcode
// have a component of their own.
func (m Mirrors) sources(suite string) []string {
	lines := []string{
		fmt.Sprintf("deb %s %s main non-free-firmware", m.Main, suite),
		fmt.Sprintf("deb %s %s-updates main non-free-firmware", m.Main, suite),
	}
	if m.Security != "none" {
		lines = append(lines, fmt.Sprintf("deb %s %s-security main non-free-firmware", m.Security, suite))
	}
	return lines
}

// aptMirrors reads the Debian archives out of a machine's apt sources, in both
// formats of sources.list(5). A machine that is not Debian has none.
func aptMirrors(dir string) (Mirrors, error) {
	names := []string{filepath.Join(dir, "sources.list")}
	for _, pattern := range []string{"*.list", "*.sources"} {
		found, err := filepath.Glob(filepath.Join(dir, "sources.list.d", pattern))
		if err != nil {
			return Mirrors{}, fmt.Errorf("list apt sources: %w", err)
		}
		names = append(names, found...)
	}
	var m Mirrors
	for _, name := range names {
		data, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return Mirrors{}, fmt.Errorf("read apt sources: %w", err)
		}
		for _, uri := range debianURIs(string(data), strings.HasSuffix(name, ".sources")) {
			switch {
			case strings.HasSuffix(uri, "/debian-security") && m.Security == "":
				m.Security = uri
			case strings.HasSuffix(uri, "/debian") && m.Main == "":
				m.Main = uri
			}
		}
	}
	return m, nil
}

// debianURIs returns the archive addresses of one sources file, without a
// trailing slash. Whether they are Debian's shows in how they end.
func debianURIs(text string, deb822 bool) []string {
	var out []string
	enabled := true
	sc := bufio.NewScanner(strings.NewReader(text))
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		fields := strings.Fields(line)
		switch {
		case line == "":
			enabled = true
		case strings.HasPrefix(line, "#"):
		case deb822 && strings.EqualFold(fields[0], "Enabled:"):
			enabled = !slices.Contains([]string{"no", "false"}, strings.ToLower(fields[len(fields)-1]))
		case deb822 && enabled && strings.EqualFold(fields[0], "URIs:"):
			out = append(out, fields[1:]...)
		case !deb822 && fields[0] == "deb":
			out = append(out, oneLineURI(fields[1:])...)
		}
	}
	for i, uri := range out {
		out[i] = strings.TrimRight(uri, "/")
	}
	return out
}

// oneLineURI skips the options in brackets that may stand before the address.
func oneLineURI(fields []string) []string {
	inside := false
	for _, f := range fields {
		if strings.HasPrefix(f, "[") {
			inside = true
		}
		if !inside {
			return []string{f}
		}
		if strings.HasSuffix(f, "]") {
			inside = false
		}
	}
	return nil
}

// aptOptions picks from `apt-config dump` what it takes to reach a mirror from
// here: proxies, TLS settings, retries, and whether dates are checked.
func aptOptions(dump string) []string {
	wanted := []string{"Acquire::http::", "Acquire::https::", "Acquire::Retries ", "Acquire::ForceIPv", "Acquire::Check-Valid-Until ", "Acquire::Check-Date "}
	var out []string
	for line := range strings.Lines(dump) {
		line = strings.TrimSuffix(strings.TrimSpace(line), ";")
		key, value, _ := strings.Cut(line, " ")
		if value == `""` || strings.HasSuffix(key, "::") {
			continue
		}
		if slices.ContainsFunc(wanted, func(p string) bool { return strings.HasPrefix(line, p) }) {
			out = append(out, line)
		}
	}
	return out
}
