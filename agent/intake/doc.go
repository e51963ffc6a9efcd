// Package intake takes in the configuration that reaches a machine by other
// ways than a datasource of cloud-init's, before cloud-init runs:
//
//	config.yaml on the ESP          -> /oem/80-esp.yaml, then removed from the ESP
//	system credential kairos.config -> /run/kairos/sources/50-credential.yaml
//	kernel argument kairos.config=  -> /run/kairos/sources/60-argument.yaml
//
// The argument is base64:TEXT or a URL; what a URL gave is kept, so that a
// boot without network has it too (see Fetch). Nothing is taken in that
// package config refuses. All of it lands in files that package config reads.
//
// These files, and those in /oem and /etc/kairos, may also hold keys of
// cloud-init's (users, write_files, runcmd and so on). HandOver gives those to
// cloud-init, by one of two ways:
//
//   - No datasource is there: they become a NoCloud seed in /run. Its
//     instance ID is a hash of the content, so changed content counts as a new
//     machine and is applied again.
//   - There is one: they are laid over what it says, key by key, as cloud-init's
//     environment file; changed content makes cloud-init forget what it had
//     applied to this instance.
//
// Either way a key in a local file wins over the same key of a datasource, and
// the kairos block never goes to cloud-init. A machine with no such key in a
// local file is left to cloud-init, which stays out of the boot where there is
// no datasource.
package intake
