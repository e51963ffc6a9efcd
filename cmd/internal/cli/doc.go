// Package cli is the command line of both programs: kairos, for a person, and
// kairos-agent, for the units of a node. One file per verb; each parses and
// checks its input, calls one function of the product and prints. The rules of
// output are at the top of output.go.
package cli
