// Package api is the vocabulary that the agent shares with whoever asks it: the
// command line, and the other rooms of the agent. It holds words, and the files
// in which a machine's units leave notes; it decides nothing.
package api
