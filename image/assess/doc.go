// Package assess decides whether a boot is good.
//
// A new system boots with tries left (systemd's boot assessment). It is kept
// when this package calls the boot good, and given up otherwise:
//
//	before an upgrade   Expect: what this machine had  ──> expect.json
//	after the reboot    Judge(Expect, Facts, Clock)    ──> waiting | good | bad
//	                    Record: what was found, why    ──> assess.json
//
// Judge is pure. What is observed reaches it as Facts; nothing here talks to the
// overlay, the agent or systemd. Both files are in Dir and are written so that a
// power cut leaves the old content or the new one.
package assess
