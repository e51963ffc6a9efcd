// Package appliance tests the whole appliance as people have it: a disk that is
// flashed, boots by its firmware, takes its configuration, joins the network,
// and upgrades and rolls back by itself. The machines are virtual ones (tests/vm).
// `make test` runs the life of one machine by README; the rest, which takes root and
// an hour or two, is `make machines`, and with -soak many hours. What those claim of
// systems that are given up, of power cuts, of the installer and of the cluster is
// held by tests without a virtual machine too: tests/nspawn, image/slots, agent/store
// and image/disk.
package appliance

import (
	"flag"
	"os"
	"testing"

	"github.com/kairos-io/kairos/image/builder"
)

var (
	soak     = flag.Bool("soak", false, "the full numbers: 20 upgrades of each kind, 50 power cuts, 1000 state writes")
	seed     = flag.Uint64("seed", 0, "of the random choices; 0: by the clock")
	patience = flag.Float64("patience", 1, "multiplies every deadline, for a machine with other work to do")
	flavour  = flag.String("flavour", string(builder.Generic), "of the system that the machines run: generic or cloud")
	given    = flag.String("disk", "", "use this disk image instead of building one")
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(m.Run())
}
