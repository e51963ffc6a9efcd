package config

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// What is not refused and does not do what its writer meant is told with its place.
func TestWarnings(t *testing.T) {
	key := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIrxvLgmCDDbxPMAMrVDwdmIPTmUEgVoa0JTnO3yMkVq ada"
	noHash := "is not the hash of a password, which cloud-init takes it for: nobody can log in with it; make one with `openssl passwd -6`"
	for _, tt := range []struct {
		name, text string
		want       []string // after the file's name; the first line is the fourth
	}{
		{"nothing", "", nil},
		{"what cloud-init reads", "users:\n- {name: ada, passwd: $6$x$y, ssh_authorized_keys: ['" + key + "']}\nssh_authorized_keys:\n- restrict " + key + "\nunheard_of: 1\n", nil},
		{"a locked password", "users:\n- {name: ada, passwd: '!', hashed_passwd: '*', plain_text_passwd: secret}\n", nil},

		{"the block in capitals", "Kairos: {role: worker}\n", []string{":4: Kairos: unknown key; did you mean kairos?"}},
		{"the block misspelt", "users: []\nkairso: {role: worker}\n", []string{":5: kairso: unknown key; did you mean kairos?"}},
		{"the block by its old name", "p2p: {network_token: x}\n", []string{":4: p2p: " + nobodyReads + "the block is called kairos here, and `kairos-agent config --schema` lists its keys"}},
		{"a key of the block beside it", "role: worker\nnetwork_token: x\nk3s: {args: []}\n", []string{":4: role: " + nobodyReads + "it belongs below kairos",
			":5: network_token: " + nobodyReads + "it belongs below kairos", ":6: k3s: " + nobodyReads + "it belongs below kairos"}},
		{"keys of other systems", "install: {device: auto}\nstages:\n  boot: []\n", []string{":4: install: " + nobodyReads + "`kairos install` is told the disk when it is run",
			":5: stages: " + nobodyReads + "write cloud-init's keys, such as write_files, bootcmd and runcmd"}},

		{"keys of cloud-init misspelt (fault H8)", "ssh_authorised_keys: ['" + key + "']\nhost-name: a\nusers: [{name: ada, ssh-authorised-keys: ['" + key + "']}]\n", []string{
			":4: ssh_authorised_keys: cloud-init knows no such key; did you mean ssh_authorized_keys?",
			":5: host-name: cloud-init knows no such key; did you mean hostname?",
			":6: users[0].ssh-authorised-keys: cloud-init knows no such key; did you mean ssh_authorized_keys?"}},
		{"keys of cloud-init with other dashes", "ssh-authorized-keys: ['" + key + "']\nwrite-files: []\n", nil},

		{"a password in clear", "users:\n- name: ada\n  passwd: s3cret\n", []string{":6: users[0].passwd: " + noHash}},
		{"a password of digits", "users:\n- name: ada\n  hashed_passwd: 1234\n", []string{":6: users[0].hashed_passwd: " + noHash}},
		{"a password in clear of one user", "user: {name: ada, passwd: s3cret}\n", []string{":4: user.passwd: " + noHash}},
		{"a password to be changed to", "chpasswd:\n  users:\n  - {name: ada, password: s3cret}\n  - {name: bob, password: s3cret, type: text}\n  - {name: eve, type: RANDOM}\n",
			[]string{":6: chpasswd.users[0].password: " + noHash}},
		{"keys of an account", "ssh_authorized_keys:\n- github:ada\nusers:\n- {name: ada, ssh_authorized_keys: ['gh:ada', '" + key + "']}\n", []string{
			`:5: ssh_authorized_keys[0]: "github:ada" lets nobody in, keys are not fetched from there: write the public key itself`,
			`:7: users[0].ssh_authorized_keys[0]: "gh:ada" lets nobody in, keys are not fetched from there: write the public key itself`}},
		{"no key at all", "ssh_authorized_keys: [s3cret]\n", []string{":4: ssh_authorized_keys[0]: is not an ssh public key, so it lets nobody in: it begins with ssh-ed25519, say"}},
		{"keys by a program that is not there", "ssh_import_id: ['gh:ada']\nusers: [{name: ada, ssh_import_id: ['gh:ada']}]\n", []string{":4: ssh_import_id: " + noImport, ":5: users[0].ssh_import_id: " + noImport}},
		{"a key twice", "runcmd: [a]\nusers: []\nruncmd: [b]\n", []string{":6: runcmd: is there twice, first on line 4: only the last one counts"}},
		{"an alias", "keys: &k [github:ada]\nssh_authorized_keys: *k\n", []string{`:4: ssh_authorized_keys[0]: "github:ada" lets nobody in, keys are not fetched from there: write the public key itself`}},
		{"another way of merging", "merge_how: list(append)\nmerge_type: x\n", []string{
			":4: merge_how: is not followed: later files win key by key, and their lists replace earlier ones as a whole",
			":5: merge_type: is not followed: later files win key by key, and their lists replace earlier ones as a whole"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := write(t, t.TempDir(), "a.yaml", block(newToken(t), "")+tt.text)
			loaded, err := Check(file)
			if err != nil {
				t.Fatal(err)
			}
			merged, err := Load(file)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for _, w := range tt.want {
				want = append(want, file+w)
			}
			for who, got := range map[string]Problems{"the check": loaded.Warnings, "the machine": merged.Warnings} {
				if got.Error() != strings.Join(want, "\n") {
					t.Errorf("%s says\n%s\nwant\n%s", who, got.Error(), strings.Join(want, "\n"))
				}
			}
			if strings.Contains(loaded.Warnings.Error(), "s3cret") {
				t.Error("a secret is told")
			}
		})
	}
}

// Beside a good file, what is passed over is told; alone it is an error.
func TestFilesPassedOver(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       string // after the file's name
		alone      bool   // it is an error without another file, with the same reason
	}{
		{"a space in the first line", "# cloud-config\nusers: []\n", ":1: nothing of this file counts: the first line must be exactly #cloud-config", true},
		{"capitals in the first line", "#Cloud-Config\nusers: []\n", ":1: nothing of this file counts: the first line must be exactly #cloud-config", true},
		{"no first line", "users: []\n", ":1: nothing of this file counts: is not a cloud-config: the first line must be #cloud-config", true},
		{"a template", "## template: jinja\n#cloud-config\nusers: []\n", ":1: nothing of this file counts: templates such as Jinja's are not filled in: the first line must be #cloud-config", true},
		{"an empty line before", "\n#cloud-config\nusers: []\n", ":1: nothing of this file counts: is not a cloud-config: the first line must be #cloud-config", true},
		{"a script", "#!/bin/sh\ntrue\n", ":1: nothing of this file counts: is not a cloud-config: the first line must be #cloud-config", true},
		{"not YAML", "\x00\x05\x16\x07", ":1: nothing of this file counts: is not a cloud-config: the first line must be #cloud-config", true},
		{"UTF-16", "\xff\xfea\x00:\x00 \x00b\x00", ":1: nothing of this file counts: is UTF-16: save the file as UTF-8", true},
		{"the block misspelt", "#cloud-config\nKAIROS: {}\n", ":2: KAIROS: unknown key; did you mean kairos?", true},
		{"the block by its old name", "#cloud-config\np2p: {}\n", ":2: p2p: " + foreign["p2p"], true},
		{"the token without its block", "#cloud-config\nnetwork_token: x\n", ":2: network_token: " + nobodyReads + "it belongs below kairos", true},
		{"other keys without a block", "#cloud-config\nk3s: {}\n", ":2: k3s: " + nobodyReads + "it belongs below kairos", false},
		{"nothing stands in it", "", "", false},
		{"only comments", "# cloud-config\n# users: []\n", "", false},
		{"keys of cloud-init's", "#cloud-config\nusers: []\n", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			file := write(t, dir, "b.yaml", tt.text)
			l, err := Load(write(t, dir, "a.yaml", block(newToken(t), "")), file)
			if err != nil {
				t.Fatal(err)
			}
			want := ""
			if tt.want != "" {
				want = file + tt.want
			}
			if got := l.Warnings.Error(); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			_, err = Load(file)
			reason := strings.ReplaceAll(want, "nothing of this file counts: ", "")
			if !errors.Is(err, ErrNoBlock) || tt.alone && !strings.HasSuffix(err.Error(), ": "+reason) {
				t.Errorf("alone: %v\nwant %s", err, reason)
			}
		})
	}
}

// Who asks for lists to be joined is told of each that is not.
func TestListsThatReplaceEachOther(t *testing.T) {
	for _, tt := range []struct {
		name          string
		first, second string
		want          []string // the last words of each line
	}{
		{"as documented", "runcmd: [a]\n", "runcmd: [b]\n", nil},
		{"in spite of merge_how", "runcmd: [a]\n", "merge_how: x\nruncmd: [b]\n", []string{"as a whole", "b.yaml:3: runcmd: replaces the list of a.yaml:2 as a whole"}},
		{"asked for by the first", "merge_how: x\nruncmd: [a]\n", "runcmd: [b]\n", []string{"as a whole", "b.yaml:2: runcmd: replaces the list of a.yaml:3 as a whole"}},
		{"a list below a key", "ntp: {servers: [a]}\n", "merge_how: x\nntp:\n  servers: [b]\n", []string{"as a whole", "b.yaml:4: ntp.servers: replaces the list of a.yaml:2 as a whole"}},
		{"lists of other keys", "runcmd: [a]\n", "merge_how: x\nbootcmd: [b]\n", []string{"as a whole"}},
		{"our own", "merge_how: x\nkairos: {overlay: {peers: ['a:1']}}\n", "kairos: {overlay: {peers: ['b:1']}}\n", []string{"as a whole"}},
		{"an alias of itself", "a: &a {b: *a, c: [1]}\n", "merge_how: x\na: &a {b: *a, d: [1]}\n", []string{"as a whole"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			l, err := Load(write(t, dir, "0.yaml", block(newToken(t), "")), write(t, dir, "a.yaml", "#cloud-config\n"+tt.first), write(t, dir, "b.yaml", "#cloud-config\n"+tt.second))
			if err != nil {
				t.Fatal(err)
			}
			if len(l.Warnings) != len(tt.want) {
				t.Fatalf("got\n%v\nwant %q", l.Warnings, tt.want)
			}
			for i, w := range tt.want {
				if got := strings.ReplaceAll(l.Warnings[i].Error(), dir+"/", ""); !strings.HasSuffix(got, w) {
					t.Errorf("got %s, want %s", got, w)
				}
			}
		})
	}
}

func TestMisnamed(t *testing.T) {
	espOnly := "is not read: the one file that is read there is called config.yaml"
	dir := t.TempDir()
	files := map[string]string{ // "": nothing is told
		"efi/config.yaml": "", "efi/CONFIG.YML": espOnly, "efi/config.yml": espOnly, "efi/config.yaml.txt": espOnly, "efi/.config.yaml": espOnly, "efi/user-data": "", "efi/readme.txt": "",
		"efi/EFI/Linux/x.yaml": "",
		"oem/a.yaml":           "", "oem/a.yml": "is not read under this name by a machine: call it a.yaml",
		"oem/b.yaml.txt": "is not read under this name by a machine: call it b.yaml", "oem/C.YAML": "is not read under this name by a machine: call it c.yaml",
		"oem/.x.yaml": "is hidden, and is read all the same: remove it, or call it x.yaml", "oem/._y.yaml": "is hidden, and is read all the same: remove it, or call it y.yaml",
		"oem/a.yaml.bak": "", "oem/a.yaml~": "", "oem/.a.yml": "", "oem/sub.yml/a": "", "oem/notes.txt": "",
		"etc/kairos/k.yml": "is not read under this name by a machine: call it k.yaml",
	}
	var want []string
	for name, reason := range files {
		file := write(t, dir, name, "")
		if reason != "" {
			want = append(want, file+": "+reason)
		}
	}
	problems, err := Misnamed(dir)
	var got []string
	for _, p := range problems {
		got = append(got, p.Error())
	}
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v\ngot  %s\nwant %s", err, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
	if got, err := Misnamed(t.TempDir()); err != nil || len(got) != 0 {
		t.Errorf("an empty machine: %v, %v", got, err)
	}
	for name, want := range map[string]string{"config.yml": "call it config.yaml", "config.yaml.txt": "call it config.yaml", ".x.yaml": "is hidden", "config.yaml": "", "user-data": ""} {
		l, err := Check(write(t, dir, name, block(newToken(t), "")))
		if err != nil || (want == "") != (len(l.Warnings) == 0) || !strings.Contains(l.Warnings.Error(), want) {
			t.Errorf("%s: %v, %v", name, l.Warnings, err)
		}
	}
}
