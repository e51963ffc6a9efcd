package lab

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Home is where labs keep their directories.
const Home = "/var/lib/kairos-lab"

// ErrNoLab says that there is no lab of that name.
var ErrNoLab = errors.New("no such lab")

var goodName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,20}$`)

// state is what of a lab survives its process: lab.json.
type state struct {
	Name     string         `json:"name"`
	ID       string         `json:"id"` // 6 characters that are in the name of everything made
	Net      netip.Prefix   `json:"net"`
	Host     bool           `json:"host,omitempty"`
	Owner    process        `json:"owner,omitzero"` // a test that owns the lab; zero: the lab outlives its maker
	Links    []hostLink     `json:"links,omitempty"`
	Machines []machineState `json:"machines,omitempty"`
}

// hostLink is a symbolic link that the lab put into the host's file system.
type hostLink struct{ Path, Target string }

type machineState struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`
	Number int    `json:"number"` // 1..: address, port and interface follow from it
	Bridge string `json:"bridge"`

	Nspawn *NspawnConfig `json:"nspawn,omitempty"`
}

// process names a process safely: a PID alone may have been used again.
type process struct {
	PID   int    `json:"pid,omitempty"`
	Start uint64 `json:"start,omitempty"` // field 22 of /proc/PID/stat
}

func thisProcess() (process, error) {
	start, err := startTime(os.Getpid())
	return process{PID: os.Getpid(), Start: start}, err
}

func (p process) alive() bool {
	start, err := startTime(p.PID)
	return err == nil && start == p.Start
}

func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is a name in parentheses that may hold anything.
	_, rest, ok := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return 0, fmt.Errorf("read /proc/%d/stat: unexpected form", pid)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// withLock runs f while no other lab process allocates names or networks.
func withLock(f func() error) error {
	for {
		if err := os.MkdirAll(Home, 0o700); err != nil {
			return fmt.Errorf("make the lab home: %w", err)
		}
		path := filepath.Join(Home, ".lock")
		lock, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return fmt.Errorf("open the lab lock: %w", err)
		}
		defer lock.Close()
		if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
			return fmt.Errorf("lock the labs: %w", err)
		}
		// The last lab removes the lock's file with the home: then the lock
		// just got is of a file that nobody else will find.
		mine, err := lock.Stat()
		if err != nil {
			return fmt.Errorf("lock the labs: %w", err)
		}
		if there, err := os.Stat(path); err == nil && os.SameFile(mine, there) {
			return f()
		}
	}
}

func readState(name string) (state, error) {
	b, err := os.ReadFile(filepath.Join(Home, name, "lab.json"))
	if errors.Is(err, os.ErrNotExist) {
		return state{}, fmt.Errorf("open lab %s: %w", name, ErrNoLab)
	}
	if err != nil {
		return state{}, fmt.Errorf("open lab %s: %w", name, err)
	}
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return state{}, fmt.Errorf("open lab %s: %w", name, err)
	}
	return s, nil
}

func (s state) dir() string { return filepath.Join(Home, s.Name) }

func (s state) save() error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("save lab %s: %w", s.Name, err)
	}
	path := filepath.Join(s.dir(), "lab.json")
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("save lab %s: %w", s.Name, err)
	}
	return os.Rename(path+".new", path)
}

// allStates reads every lab of this host. A directory without a readable
// state is an error: it may still hold mounts.
func allStates() ([]state, error) {
	entries, err := os.ReadDir(Home)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list labs: %w", err)
	}
	var all []state
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		s, err := readState(e.Name())
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func newID() string {
	b := make([]byte, 3)
	rand.Read(b) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(b)
}

// freeNet picks a /24 that neither another lab nor the host uses.
func freeNet(others []state) (netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("list the host's addresses: %w", err)
	}
	var taken []netip.Prefix
	for _, s := range others {
		taken = append(taken, s.Net)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			taken = append(taken, p)
		}
	}
	for n := range 256 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 30, byte(n), 0}), 24)
		if !slices.ContainsFunc(taken, p.Overlaps) {
			return p, nil
		}
	}
	return netip.Prefix{}, errors.New("choose a network for the lab: all of 172.30.0.0/16 is taken")
}

// host is the address with the given last byte in the lab's network.
func (s state) host(last int) netip.Addr {
	a := s.Net.Addr().As4()
	a[3] = byte(last)
	return netip.AddrFrom4(a)
}
