package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// nobodyReads begins what is said of a key that has no reader.
const nobodyReads = "nobody reads it here: "

// foreign are top-level keys that other systems read, by what to write instead.
var foreign = map[string]string{
	"p2p":           nobodyReads + "the block is called " + root + " here, and `kairos-agent config --schema` lists its keys",
	"install":       nobodyReads + "`kairos install` is told the disk when it is run",
	"stages":        nobodyReads + "write cloud-init's keys, such as write_files, bootcmd and runcmd",
	"k3s-agent":     nobodyReads + "one setting for servers and workers belongs below " + root + ".k3s",
	"k0s":           nobodyReads + "Kubernetes is k3s, set below " + root + ".k3s",
	"bundles":       nobodyReads + "an upgrade brings a whole system",
	"ssh_import_id": noImport,
}

const noImport = "nobody reads it here: write the keys themselves below ssh_authorized_keys"

// nearBlocks are the top-level keys with which a person meant our block. A file
// without one is wrong because of them; beside one they are told.
func nearBlocks(file string, doc *yaml.Node) Problems {
	var out Problems
	for k := range topLevel(doc) {
		p := Problem{Origin{file, k.Line}, shorten(k.Value), "", ""}
		switch {
		case k.Value == root:
			continue
		case nearest(k.Value, []string{root}) != "":
			p.Reason, p.Suggest = "unknown key", root
		case k.Value == "p2p":
			p.Reason = foreign[k.Value]
		case k.Value == "network_token":
			p.Reason = nobodyReads + "it belongs below " + root
		default:
			continue
		}
		out = append(out, p)
	}
	return out
}

// topLevel yields the keys of a document with their values.
func topLevel(doc *yaml.Node) func(yield func(k, v *yaml.Node) bool) {
	return func(yield func(k, v *yaml.Node) bool) {
		if doc == nil || doc.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(doc.Content); i += 2 {
			if !yield(doc.Content[i], resolve(doc.Content[i+1])) {
				return
			}
		}
	}
}

// advisor finds in one file what is not refused and will not do what its writer
// meant, since cloud-init or nobody at all is to read it.
type advisor struct {
	*loader
	file   string
	budget int // of values to look at: aliases can stand for any number
}

func (l *loader) advise(s source) {
	a := advisor{l, s.file, maxNodes}
	own := fieldsOf(reflect.TypeFor[Config]())
	near := nearBlocks(s.file, s.doc)
	seen := map[string]int{} // without the block, whose duplicates are refused
	for k, v := range topLevel(s.doc) {
		if first := seen[k.Value]; first > 0 {
			a.tell(k, shorten(k.Value), fmt.Sprintf("is there twice, first on line %d: only the last one counts", first))
		} else if k.Value != root {
			seen[k.Value] = k.Line
		}
		_, ours := own[k.Value]
		switch {
		case slices.ContainsFunc(near, func(p Problem) bool { return p.Line == k.Line && p.Key == k.Value }): // told already
		case foreign[k.Value] != "":
			a.tell(k, k.Value, foreign[k.Value])
		case ours:
			a.tell(k, k.Value, nobodyReads+"it belongs below "+root)
		case k.Value == "merge_how" || k.Value == "merge_type":
			l.mergeHow = true
			a.tell(k, k.Value, "is not followed: later files win key by key, and their lists replace earlier ones as a whole")
		case k.Value == "ssh_authorized_keys":
			a.sshKeys(v, k.Value)
		case k.Value == "users" || k.Value == "user":
			a.users(v, k.Value)
		case k.Value == "chpasswd":
			a.chpasswd(v)
		default:
			a.misspelt(k, k.Value, cloudKeys)
		}
		if k.Value != root && len(k.Value) <= maxKey {
			a.lists(v, k.Value, 1)
		}
	}
}

// keys is topLevel of any mapping, within the budget.
func (a *advisor) keys(n *yaml.Node) func(yield func(k, v *yaml.Node) bool) {
	return func(yield func(k, v *yaml.Node) bool) {
		for k, v := range topLevel(n) {
			if a.budget--; a.budget < 0 || !yield(k, v) {
				return
			}
		}
	}
}

func (a *advisor) tell(n *yaml.Node, key, reason string) { a.warn(Origin{a.file, n.Line}, key, reason) }

// each calls f for the items of a list, or for what stands in place of a list of one.
func (a *advisor) each(n *yaml.Node, key string, f func(n *yaml.Node, key string)) {
	if n.Kind != yaml.SequenceNode {
		f(n, key)
		return
	}
	for i, item := range n.Content {
		if a.budget--; a.budget < 0 {
			return
		}
		f(resolve(item), key+"["+strconv.Itoa(i)+"]")
	}
}

// misspelt tells of a key that is nearly one of cloud-init's, which drops it without a
// word. One that is like none of them may be of a module that is not listed here.
func (a *advisor) misspelt(k *yaml.Node, key string, known []string) {
	if slices.Contains(known, strings.ReplaceAll(k.Value, "-", "_")) {
		return
	}
	if like := nearest(k.Value, known); like != "" {
		a.out.Warnings = append(a.out.Warnings, Problem{Origin{a.file, k.Line}, shorten(key), "cloud-init knows no such key", like})
	}
}

func (a *advisor) users(n *yaml.Node, key string) {
	a.each(n, key, func(user *yaml.Node, at string) {
		for k, v := range a.keys(user) {
			switch name := strings.ReplaceAll(k.Value, "-", "_"); name {
			case "passwd", "hashed_passwd":
				a.hash(v, at+"."+k.Value)
			case "ssh_authorized_keys":
				a.sshKeys(v, at+"."+k.Value)
			case "ssh_import_id":
				a.tell(k, at+"."+k.Value, noImport)
			default:
				a.misspelt(k, at+"."+k.Value, userKeys)
			}
		}
	})
}

func (a *advisor) chpasswd(n *yaml.Node) {
	for k, list := range a.keys(n) {
		if k.Value != "users" {
			continue
		}
		a.each(list, "chpasswd.users", func(user *yaml.Node, at string) {
			var password *yaml.Node
			hashed := true
			for k, v := range a.keys(user) {
				switch k.Value {
				case "type":
					hashed = v.Value == "hash"
				case "password":
					password = v
				}
			}
			if hashed && password != nil {
				a.hash(password, at+".password")
			}
		})
	}
}

// hash looks at what cloud-init writes into /etc/shadow as it is. ! and * lock.
func (a *advisor) hash(n *yaml.Node, key string) {
	if n.Kind != yaml.ScalarNode || isNull(n) || n.Value == "" || strings.ContainsAny(n.Value[:1], "$!*") {
		return
	}
	a.tell(n, key, "is not the hash of a password, which cloud-init takes it for: nobody can log in with it; make one with `openssl passwd -6`")
}

// sshKeys looks at lines of an authorized_keys file. Only a name of somewhere else
// is quoted: who pasted something wrong may have pasted a secret.
func (a *advisor) sshKeys(n *yaml.Node, key string) {
	a.each(n, key, func(item *yaml.Node, at string) {
		if item.Kind != yaml.ScalarNode || isNull(item) {
			return
		}
		from, name, _ := strings.Cut(item.Value, ":")
		switch {
		case slices.Contains([]string{"github", "gitlab", "gh", "gl", "lp"}, from):
			a.tell(item, at, fmt.Sprintf("%q lets nobody in, keys are not fetched from there: write the public key itself", shorten(from+":"+name)))
		case !slices.ContainsFunc([]string{"ssh-", "ecdsa-", "sk-"}, func(kind string) bool { return strings.Contains(item.Value, kind) }):
			a.tell(item, at, "is not an ssh public key, so it lets nobody in: it begins with ssh-ed25519, say")
		}
	})
}

// Bounds of the dotted keys of lists: no key of cloud-init's comes near, and an alias
// may stand in what it stands for.
const maxDepth, maxKey = 8, 64

// lists notes every list that replaces one of an earlier file.
func (a *advisor) lists(n *yaml.Node, path string, depth int) {
	if n.Kind != yaml.SequenceNode {
		for k, v := range a.keys(n) {
			if depth < maxDepth && len(k.Value) <= maxKey {
				a.lists(v, path+"."+k.Value, depth+1)
			}
		}
		return
	}
	if before, ok := a.earlier[path]; ok && before.File != a.file {
		a.replaced = append(a.replaced, Problem{Origin{a.file, n.Line}, shorten(path), "replaces the list of " + before.String() + " as a whole", ""})
	}
	a.earlier[path] = Origin{a.file, n.Line}
}

// warnings is all that is to be told of files that are not refused.
func (l *loader) warnings(files []string) Problems {
	out := slices.Concat(l.out.Warnings, l.nearBlock)
	for _, p := range l.skipped {
		p.Reason = "nothing of this file counts: " + p.Reason
		out = append(out, p)
	}
	if l.mergeHow { // who did not ask for it knows how files are merged
		out = append(out, l.replaced...)
	}
	return out.sorted(files)
}
