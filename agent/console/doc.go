// Package console says on a machine's console what the machine is and waits
// for: above the login prompt of every terminal, by a file that agetty(8)
// shows. No secret is among the facts, and what other machines wrote cannot
// steer the terminal.
//
// Render is pure. Look gathers what it needs from the machine, and Watch
// writes the file again whenever the result changed.
package console
