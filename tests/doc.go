// Package tests holds what is checked about the repository as a whole: who may
// import whom, and the budgets of style. The folders beside it hold the tests
// that need more than one process: in network namespaces (netns), with the
// real operating system image (nspawn), and the programs they share (lab); bench
// measures the network beside those of others.
package tests
