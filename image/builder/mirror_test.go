package builder

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const deb822Sources = `# comment
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
Enabled: no
URIs: http://off.example/debian

Types: deb
URIs: http://mirror.example/debian-security/
Suites: bookworm-security
`

func TestDebianURIs(t *testing.T) {
	tests := []struct {
		name   string
		text   string
		deb822 bool
		want   []string
	}{
		{"deb822", deb822Sources, true, []string{"http://mirror.example/debian", "http://mirror.example/debian-security"}},
		{"one line", "deb http://a.example/debian trixie main\n", false, []string{"http://a.example/debian"}},
		{"one line with options", "deb [ arch=amd64 signed-by=/k.gpg ] http://a.example/debian/ trixie main non-free-firmware", false, []string{"http://a.example/debian"}},
		{"options without blanks", "deb [arch=amd64] http://a.example/debian trixie main non-free-firmware", false, []string{"http://a.example/debian"}},
		{"sources and comments are no binaries", "# deb http://x/debian a b\ndeb-src http://y/debian a b\n", false, nil},
		{"cut off", "deb [arch=amd64", false, nil},
		{"empty", "", true, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := debianURIs(tt.text, tt.deb822); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzDebianURIs(f *testing.F) {
	f.Add(deb822Sources, true)
	f.Add("deb [a] b c", false)
	f.Fuzz(func(_ *testing.T, text string, deb822 bool) { debianURIs(text, deb822) })
}

func TestFindMirrors(t *testing.T) {
	apt := t.TempDir()
	if err := os.Mkdir(filepath.Join(apt, "sources.list.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(apt, "sources.list.d/debian.sources"), []byte(deb822Sources), 0o644); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"KAIROS_MIRROR": "http://env.example/debian/"}
	tests := []struct {
		name  string
		given Mirrors
		env   map[string]string
		apt   string
		want  Mirrors
	}{
		{"public default", Mirrors{}, nil, t.TempDir(), Mirrors{Mirror, SecurityMirror}},
		{"this machine's apt", Mirrors{}, nil, apt, Mirrors{"http://mirror.example/debian", "http://mirror.example/debian-security"}},
		{"environment before apt", Mirrors{}, env, apt, Mirrors{"http://env.example/debian", "http://mirror.example/debian-security"}},
		{"flag before all", Mirrors{"http://flag.example/debian", "none"}, env, apt, Mirrors{"http://flag.example/debian", "none"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := FindMirrors(tt.given, func(k string) string { return tt.env[k] }, tt.apt)
			if err != nil || got != tt.want {
				t.Errorf("got %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

func TestSources(t *testing.T) {
	got := Mirrors{"http://m/debian", "none"}.sources("trixie")
	want := []string{"deb http://m/debian trixie main non-free-firmware", "deb http://m/debian trixie-updates main non-free-firmware"}
	if !slices.Equal(got, want) {
		t.Errorf("without security: %q", got)
	}
	got = Mirrors{"http://m/debian", "http://s/debian-security"}.sources("trixie")
	if want = append(want, "deb http://s/debian-security trixie-security main non-free-firmware"); !slices.Equal(got, want) {
		t.Errorf("with security: %q", got)
	}
}

func TestAptOptions(t *testing.T) {
	const dump = `Acquire "";
Acquire::cdrom::mount "/media/cdrom/";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::https::Verify-Peer "";
Acquire::Check-Valid-Until "false";
Acquire::Languages:: "none";
Acquire::Retries "5";
`
	want := []string{`Acquire::http::Proxy "http://proxy.example:3128"`, `Acquire::Check-Valid-Until "false"`, `Acquire::Retries "5"`}
	if got := aptOptions(dump); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
