// Package api is how a person or a program sees and steers a running overlay:
// HTTP with JSON. The TCP listener on localhost is read-only, checks Host and
// Origin and holds no secret; everything that changes or reveals goes through
// the unix socket, which checks the caller's credentials.
package api
