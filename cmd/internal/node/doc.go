// Package node is the program of a node, kairos-agent: what its units start, one
// subcommand each, and the verbs of a person that are about the operating system
// of the machine itself, for which kairos runs this program. One file per verb;
// the rules of output are those of package cli.
package node
