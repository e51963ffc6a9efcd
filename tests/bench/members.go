package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/kairos-io/kairos/tests/internal/run"
)

// figureMembers is what members cost that are connected and idle, many in one process.
// It is measured once: see BenchmarkMembers in overlay/overlaytest.
const figureMembers = "members"

// memberCounts are the sizes of the mesh. Every member is connected to every other.
var memberCounts = []int{16, 64, 250}

// mostBefore bounds the size for a tree of before, which may need more memory for a peer
// than there is for 250 times 249 of them.
const mostBefore = 64

// memberUnits are what BenchmarkMembers tells, in the order of the table.
var memberUnits = []string{"goroutines/member", "KiB/member", "KiB/min/member", "s-to-connect"}

// buildMembers builds the program for a tree.
func buildMembers(ctx context.Context, tree, to string) error {
	_, err := run.Do(ctx, run.Cmd{Dir: tree, Env: []string{"CGO_ENABLED=0"}, Args: []string{"nice", "go", "test", "-c", "-o", to, "./overlay/overlaytest"}})
	return err
}

// measureMembers runs the program in a network namespace of its own.
func (b *bench) measureMembers(ctx context.Context, programs string, n int) (map[string]float64, error) {
	const inside = `ip link set lo up && exec "$0" -test.run='^$' -test.bench="^BenchmarkMembers/$1\$" -test.benchtime=1x -test.timeout=20m`
	out, err := run.Do(ctx, run.Cmd{Dir: b.root, Args: []string{"unshare", "--net", "sh", "-c", inside, filepath.Join(programs, "members.test"), strconv.Itoa(n)}})
	if err != nil {
		return nil, err
	}
	return parseBenchmark(out, "BenchmarkMembers/"+strconv.Itoa(n))
}

// tryMembers measures a mesh of each size, for ours and for ours before.
func (b *bench) tryMembers(ctx context.Context, note func(who, figure string, values map[string]float64, err error)) {
	for _, who := range b.only {
		programs := b.program("")
		switch who {
		case nameBefore:
			programs = b.program("before")
		case nameFast:
		default:
			continue
		}
		for _, n := range memberCounts {
			if who == nameBefore && n > mostBefore || ctx.Err() != nil {
				continue
			}
			values, err := b.measureMembers(ctx, programs, n)
			columns := map[string]float64{}
			for unit, v := range values {
				columns[memberColumn(n, unit)] = v
			}
			note(who, memberColumn(n, ""), columns, err)
		}
	}
}

func memberColumn(n int, unit string) string { return figureMembers + strconv.Itoa(n) + " " + unit }

// membersTable is what members cost; empty if that was not measured.
func membersTable(m medians) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "members, all connected\t%s\t\n", strings.Join(memberUnits, "\t"))
	rows := 0
	for _, who := range []string{nameFast, nameBefore} {
		for _, n := range memberCounts {
			if _, ok := m[who][memberColumn(n, memberUnits[0])]; !ok {
				continue
			}
			rows++
			fmt.Fprintf(w, "%d, %s\t", n, who)
			for _, unit := range memberUnits {
				fmt.Fprintf(w, "%s\t", number(m.of(who, memberColumn(n, unit)), 1))
			}
			fmt.Fprintln(w)
		}
	}
	w.Flush()
	if rows == 0 {
		return ""
	}
	return b.String()
}
