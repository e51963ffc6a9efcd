// Package cli is kairos, the command line of a person, on a node and anywhere
// else. One file per verb; each parses and checks its input, calls one function of
// the product and prints. The rules of output, which the node's program follows
// too, are at the top of output.go.
package cli
