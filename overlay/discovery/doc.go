// Package discovery finds the addresses at which other members may be: the
// peers that a person configured, the local network by multicast DNS
// (RFC 6762), and the schedule on which an address is tried again.
//
// Nothing found here is trusted. An address is a rumour until the connection
// to it has been authenticated and admitted, which is the mesh's work.
package discovery
