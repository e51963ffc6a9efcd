package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/template/parse"
)

// maxHostname is what the kernel takes, in bytes (HOST_NAME_MAX).
const maxHostname = 64

// DefaultHostname names a machine that no configuration names, so that the
// machines of one image differ.
const DefaultHostname = "kairos-{{ trunc 4 .MachineID }}"

var errTemplate = errors.New("a template may hold {{ .MachineID }} and {{ trunc N .MachineID }} only")

// RenderHostname fills the template in a host name and checks the result: DNS
// labels with dots between. The language is Go's text/template (and sprig's
// trunc) cut down to .MachineID and trunc; anything else is an error, since a
// typing error would give every machine the same name.
func RenderHostname(s, machineID string) (string, error) {
	name := s
	if strings.Contains(s, "{{") || strings.Contains(s, "}}") {
		var err error
		if name, err = fill(s, machineID); err != nil {
			return "", err
		}
	}
	if reason := checkHostname(name); reason != "" {
		if name != s {
			return "", fmt.Errorf("%q becomes %q, which %s", shorten(s), shorten(name), reason)
		}
		return "", fmt.Errorf("%q %s", shorten(s), reason)
	}
	return name, nil
}

func fill(s, machineID string) (string, error) {
	trees, err := parse.Parse(hostnameKey, s, "", "", map[string]any{"trunc": truncate})
	if err != nil {
		// "template: hostname:1: function "foo" not defined": the place is told by the caller.
		_, reason, _ := strings.Cut(err.Error(), ":1: ")
		return "", fmt.Errorf("%q is not a template (%s); %w", shorten(s), shorten(reason), errTemplate)
	}
	if machineID == "" {
		return "", errors.New("this machine has no ID yet (/etc/machine-id): a template cannot be filled in")
	}
	var b strings.Builder
	for _, n := range trees[hostnameKey].Root.Nodes {
		switch n := n.(type) {
		case *parse.TextNode:
			b.Write(n.Text)
		case *parse.ActionNode:
			text, err := evaluate(n.Pipe, machineID)
			if err != nil {
				return "", fmt.Errorf("%q: %w", shorten(s), err)
			}
			b.WriteString(text)
		default:
			return "", fmt.Errorf("%q: %w", shorten(s), errTemplate)
		}
	}
	return b.String(), nil
}

// evaluate knows `.MachineID`, `trunc N .MachineID` and `.MachineID | trunc N`.
func evaluate(pipe *parse.PipeNode, machineID string) (string, error) {
	var words []parse.Node // in the order trunc N .MachineID
	switch {
	case len(pipe.Decl) > 0:
	case len(pipe.Cmds) == 1:
		words = pipe.Cmds[0].Args
	case len(pipe.Cmds) == 2 && len(pipe.Cmds[0].Args) == 1:
		words = append(slices.Clone(pipe.Cmds[1].Args), pipe.Cmds[0].Args[0])
	}
	switch {
	case len(words) == 1 && isMachineID(words[0]):
		return machineID, nil
	case len(words) == 3 && isTrunc(words[0]) && isMachineID(words[2]):
		if n, ok := words[1].(*parse.NumberNode); ok && n.IsInt {
			return truncate(int(n.Int64), machineID), nil
		}
	}
	return "", errTemplate
}

func isMachineID(n parse.Node) bool {
	f, ok := n.(*parse.FieldNode)
	return ok && len(f.Ident) == 1 && f.Ident[0] == "MachineID"
}

func isTrunc(n parse.Node) bool {
	f, ok := n.(*parse.IdentifierNode)
	return ok && f.Ident == "trunc"
}

// truncate is sprig's trunc: the first n characters, or the last -n.
func truncate(n int, s string) string {
	switch {
	case n < 0 && len(s)+n > 0:
		return s[len(s)+n:]
	case n >= 0 && len(s) > n:
		return s[:n]
	}
	return s
}

// checkHostname says what is wrong with a name (RFC 1123, section 2.1); "" is nothing.
func checkHostname(s string) string {
	if s == "" {
		return "is empty: leave the key out for the default"
	}
	if len(s) > maxHostname {
		return "has " + strconv.Itoa(len(s)) + " characters, the kernel takes " + strconv.Itoa(maxHostname)
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) > maxLabel {
			return "has a part of " + strconv.Itoa(len(label)) + " characters, DNS takes " + strconv.Itoa(maxLabel)
		}
		if !isLabel(strings.ToLower(label)) {
			return "is not a host name: labels of letters, digits and -, not at the ends, with dots between"
		}
	}
	return ""
}
