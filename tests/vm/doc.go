// Package vm runs virtual machines for tests: the firmware, the boot loader, the
// kernel and the disks that a real machine has, in QEMU under software
// emulation. There is no KVM in it, so it runs wherever Go and mmdebstrap do;
// a boot takes tens of seconds, and the package is made for sharing boots.
//
//	┌─ network namespace of a LAN ───────────────┐
//	│  bridge lan 172.31.0.1/24, dnsmasq         │   DHCP without a router: the
//	│     │ tap1          │ tap2                 │   machines reach each other and
//	│  ┌──┴───────┐    ┌──┴───────┐              │   what the test itself serves
//	│  │ QEMU     │    │ QEMU     │              │   there (LAN.Listen), nothing
//	│  └──────────┘    └──────────┘              │   else
//	└────────────────────────────────────────────┘
//	      │ stdin, stdout = Console (serial port)
//	      │ unix socket   = power button, reset, cable
//	      │ LAN.Dial      = ssh
//
// QEMU and the tools around it come from a Debian tree of their own (Toolbox),
// the same version on every host, which only ever lies over /usr in the mount
// namespace of a child. Every child dies with the process that started it, even
// if that is killed, and takes its namespaces along; what is left then are files
// below build/vm, which the next Open removes.
//
// Nothing here waits by the clock: Console.Wait and Machine.AwaitBoot return when
// what they wait for happens, or with the end of their context. Deadlines are
// generous because two machines share two cores with whatever else runs.
package vm
