package main

import (
	"crypto/ecdh"
	"encoding/json"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, tc := range []struct {
		values []float64
		want   float64
	}{
		{nil, math.NaN()},
		{[]float64{3}, 3},
		{[]float64{9, 1}, 5},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		given := slices.Clone(tc.values)
		if got := median(tc.values); got != tc.want && !(math.IsNaN(got) && math.IsNaN(tc.want)) {
			t.Errorf("median of %v: %v, want %v", tc.values, got, tc.want)
		}
		if !slices.Equal(given, tc.values) {
			t.Errorf("%v was sorted in place", given)
		}
	}
}

func TestMedianOfPings(t *testing.T) {
	for _, tc := range []struct {
		name  string
		times []float64
		n     int
		want  float64 // 0: an error
	}{
		{"all", []float64{3, 1, 2}, 3, 2},
		{"a lost one is the slowest", []float64{1, 2}, 3, 2},
		{"half are lost", []float64{1, 2}, 4, 0},
		{"none came back", nil, 4, 0},
		{"none at all", nil, 0, 0},
	} {
		got, err := medianOf(tc.times, tc.n)
		if got != tc.want || (err == nil) != (tc.want > 0) {
			t.Errorf("%s: %v, %v", tc.name, got, err)
		}
	}
}

func TestParseIperf(t *testing.T) {
	for _, tc := range []struct {
		name, text, fault string
		want              traffic
	}{
		{"tcp", `{"start":{}, "end":{"sum_sent":{"bytes":9,"seconds":1}, "sum_received":{"bytes":2500,"seconds":2}}}`, "", traffic{2500, 2}},
		{"refused", `{"intervals":[],"end":{},"error":"unable to connect"}`, "unable to connect", traffic{}},
		{"an error with figures", `{"end":{"sum_received":{"bytes":1,"seconds":1}},"error":"control socket"}`, "control socket", traffic{}},
		{"nothing arrived", `{"end":{"sum_received":{"bytes":0,"seconds":1}}}`, "nothing was received", traffic{}},
		{"no time", `{"end":{"sum_received":{"bytes":1,"seconds":0}}}`, "nothing was received", traffic{}},
		{"no sum", `{"end":{}}`, "nothing was received", traffic{}},
		{"nothing", "", "read iperf3's report", traffic{}},
	} {
		got, err := parseIperf(tc.text)
		if got != tc.want || !told(err, tc.fault) {
			t.Errorf("%s: %+v, %v", tc.name, got, err)
		}
	}
	if got := (traffic{Bytes: 1e9, Seconds: 4}).bitsPerSecond(); got != 2e9 {
		t.Errorf("1 GB in 4 s is %v bit/s", got)
	}
}

// told: an error that says this; none if it is "".
func told(err error, what string) bool {
	if what == "" || err == nil {
		return err == nil && what == ""
	}
	return strings.Contains(err.Error(), what)
}

func TestParsePing(t *testing.T) {
	for _, tc := range []struct {
		name, text, fault string
		want              []float64
		sent              int
	}{
		{"answers", "PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.\n64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=0.031 ms\n" +
			"64 bytes from 10.0.0.1: icmp_seq=3 ttl=64 time=12 ms\n\n--- 10.0.0.1 ping statistics ---\n" +
			"3 packets transmitted, 2 received, 33% packet loss, time 4ms\nrtt min/avg/max/mdev = 0.014/0.020/0.031/0.007 ms\n", "", []float64{0.031, 12}, 3},
		{"one twice", "64 bytes: icmp_seq=1 ttl=64 time=1 ms\n64 bytes: icmp_seq=1 ttl=64 time=2 ms (DUP!)\n", "", []float64{1}, 0},
		{"garbage", "64 bytes: icmp_seq=1 ttl=64 time=soon\n", "soon", nil, 0},
		{"garbage at the end", "many packets transmitted, 2 received\n", "many", nil, 0},
		{"nothing", "", "", nil, 0},
	} {
		got, sent, err := parsePing(tc.text)
		if !slices.Equal(got, tc.want) || sent != tc.sent || !told(err, tc.fault) {
			t.Errorf("%s: %v of %d, %v", tc.name, got, sent, err)
		}
	}
}

func TestParseProc(t *testing.T) {
	const rest = " S 1 42 42 0 -1 4194560 100 0 0 0 250 30 7 7 20 0 1 0 100 1000 200"
	for _, tc := range []struct {
		name, text string
		want       time.Duration
		fault      string
	}{
		{"plain", "42 (cat)" + rest, 2800 * time.Millisecond, ""},
		{"a name with everything in it", "42 (a) S 1 (b c)" + rest, 2800 * time.Millisecond, ""},
		{"cut", "42 (cat) S 1", 0, "processor time"},
		{"empty", "", 0, "processor time"},
		{"no number", strings.Replace("42 (cat)"+rest, "250", "x", 1), 0, "user time"},
		{"no number", strings.Replace("42 (cat)"+rest, " 30 ", " x ", 1), 0, "system time"},
	} {
		got, err := parseStat(tc.text)
		if got != tc.want || !told(err, tc.fault) {
			t.Errorf("stat, %s: %v, %v", tc.name, got, err)
		}
	}
	for _, tc := range []struct {
		name, text string
		want       float64
		fault      string
	}{
		{"plain", "Name:\tcat\nVmHWM:\t  9999 kB\nVmRSS:\t   15625 kB\nThreads:\t1\n", 16, ""},
		{"a kernel thread", "Name:\tkthreadd\n", 0, "has none"},
		{"no number", "VmRSS:\tmuch\n", 0, "much"},
	} {
		got, err := parseRSS(tc.text)
		if got != tc.want || !told(err, tc.fault) {
			t.Errorf("status, %s: %v, %v", tc.name, got, err)
		}
	}
	// What this kernel writes is understood as well.
	for name, parse := range map[string]func(string) error{
		"stat":   func(s string) error { _, err := parseStat(s); return err },
		"status": func(s string) error { _, err := parseRSS(s); return err },
	} {
		text, err := os.ReadFile(filepath.Join("/proc/self", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := parse(string(text)); err != nil {
			t.Error(err)
		}
	}
}

func TestListens(t *testing.T) {
	const table = "  sl  local_address rem_address   st tx_queue rx_queue\n" +
		"   0: 0258580A:1451 00000000:0000 0A 00000000:00000000\n" +
		"   1: 0258580A:1F90 0158580A:1452 01 00000000:00000000\n"
	for port, want := range map[int]bool{5201: true, 8080: false, 5202: false} {
		if got := listens(table, port); got != want {
			t.Errorf("port %d: %v", port, got)
		}
	}
}

func TestUAPI(t *testing.T) {
	key := func(b byte) *ecdh.PrivateKey {
		k, err := ecdh.X25519().NewPrivateKey([]byte(strings.Repeat(string(rune(b)), 32)))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	peer := key('b').PublicKey()
	got := uapiSet(key('a'), peer, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("10.0.0.2"))
	lines := strings.Split(got, "\n")
	want := []string{"set=1", "private_key=" + strings.Repeat("61", 32), "listen_port=51820", "replace_peers=true", "public_key=", "endpoint=192.0.2.1:51820",
		"replace_allowed_ips=true", "allowed_ip=10.0.0.2/32", "", ""}
	if len(lines) != len(want) {
		t.Fatalf("%q", got)
	}
	for i := range want {
		if lines[i] != want[i] && !(i == 4 && len(lines[i]) == len("public_key=")+64) {
			t.Errorf("line %d: %q, want %q", i+1, lines[i], want[i])
		}
	}
}

func TestNebulaConfig(t *testing.T) {
	first, second := nebulaConfig(0, underlayAddr[0]), nebulaConfig(1, underlayAddr[0])
	if !strings.Contains(first, "am_lighthouse: true") || strings.Contains(first, "static_host_map") || !strings.Contains(first, "/a.crt") {
		t.Errorf("the lighthouse:\n%s", first)
	}
	if strings.Contains(second, "am_lighthouse") || !strings.Contains(second, "static_host_map: {'10.88.0.1': ['10.99.0.1:4242']}") || !strings.Contains(second, "/b.crt") {
		t.Errorf("the other:\n%s", second)
	}
}

// fill is samples of one round.
func fill(values map[string]map[string]float64) []sample {
	var all []sample
	for who, figures := range values {
		for figure, v := range figures {
			all = append(all, sample{Round: 1, Contender: who, Figure: figure, Value: v})
		}
	}
	return all
}

func TestTable(t *testing.T) {
	samples := fill(map[string]map[string]float64{
		nameWG:   {"tcp1": 2, "ping": 200},
		nameFast: {"tcp1": 3},
	})
	samples = append(samples, sample{2, nameFast, "tcp1", 7}, sample{3, nameFast, "tcp1", 6})
	got := strings.Split(strings.TrimRight(table(mediansOf(samples)), "\n"), "\n")
	want := [][]string{
		{"TCP", "1", "ping"},
		{"Gbit/s", "us"},
		{"wireguard-go", "2.00", "1.00x", "200", "1.00x"},
		{"ours", "(fast)", "6.00", "3.00x", "-", "-"},
	}
	if len(got) != len(want) {
		t.Fatalf("got:\n%s", strings.Join(got, "\n"))
	}
	for i, line := range got {
		if !slices.Equal(strings.Fields(line), want[i]) {
			t.Errorf("line %d: %q", i+1, line)
		}
	}
	// Without wireguard-go there are no ratios.
	alone := table(mediansOf(fill(map[string]map[string]float64{nameRaw: {"tcp4": 20}})))
	if !strings.Contains(alone, "20.00") || strings.Contains(alone, "x") || strings.Contains(alone, "TCP 1") {
		t.Errorf("got:\n%s", alone)
	}
}

func TestGoals(t *testing.T) {
	for _, tc := range []struct {
		name   string
		values map[string]map[string]float64
		want   []string
	}{
		{"nothing measured", nil, nil},
		{"only ours", map[string]map[string]float64{nameFast: {"tcp1": 9, "loadping": 1, "rss": 20, "rssload": 41}}, []string{
			"PASS         1.00  ping under load, ms of ours (fast) <= 2",
			"FALL SHORT  41.00  RSS after overload, MB of ours (fast) <= 40",
			"FALL SHORT   2.05  RSS after overload of ours (fast) <= 1.2 x ours (fast), idle",
		}},
		{"just reached", map[string]map[string]float64{
			nameFast: {"tcp1": 1.8, "tcp1cpu": 0.45, "loss1": 95}, nameWG: {"tcp1": 1, "tcp1cpu": 1, "loss1": 100}, nameNebula: {"tcp1": 0.3},
			nameStream: {"tcp1": 1}}, []string{
			"PASS         1.80  TCP, one stream of ours (fast) >= 1.8 x wireguard-go",
			"PASS         6.00  TCP, one stream of ours (fast) >= 6 x nebula",
			"PASS         0.45  CPU per GB of ours (fast) <= 0.45 x wireguard-go",
			"PASS         0.95  TCP at 1 % loss of ours (fast) >= 0.95 x wireguard-go",
			"FALL SHORT   0.56  TCP by the stream of ours (stream) >= 0.8 x ours (fast)",
		}},
	} {
		var got []string
		for _, v := range judge(mediansOf(fill(tc.values))) {
			got = append(got, v.String())
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s:\n%s\nwant\n%s", tc.name, strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
		}
	}
}

// A goal about a figure or a contender that does not exist would never be judged.
func TestGoalsSpeakOfWhatThereIs(t *testing.T) {
	names := append(contenderNames(), "")
	keys := []string{""}
	for _, c := range columns {
		keys = append(keys, c.key)
	}
	for _, g := range goals {
		if !slices.Contains(names, g.who) || !slices.Contains(names, g.against) || !slices.Contains(keys, g.figure) || !slices.Contains(keys, g.base) {
			t.Errorf("%+v", g)
		}
	}
	for _, rate := range lossRates {
		if !slices.Contains(keys, lossColumn(rate)) {
			t.Errorf("no column %s", lossColumn(rate))
		}
	}
}

func TestReport(t *testing.T) {
	path := filepath.Join(t.TempDir(), "below", "bench.json")
	samples := fill(map[string]map[string]float64{nameFast: {"loadping": 3}})
	m := mediansOf(samples)
	if err := (report{Rounds: 1, Medians: m, Goals: judge(m), Samples: samples}).write(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if back.Medians.of(nameFast, "loadping") != 3 || len(back.Goals) != 1 || back.Goals[0].Pass || !slices.Equal(back.Samples, samples) {
		t.Errorf("%s", text)
	}
}

func TestFlags(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		ok   bool
		only int
	}{
		{"none", nil, true, len(contenders) - 1},
		{"before", []string{"-before", "HEAD"}, true, len(contenders)},
		{"before what", []string{"-only", nameBefore}, false, 0},
		{"before, not asked for", []string{"-before", "HEAD", "-only", nameFast}, false, 0},
		{"quick", []string{"-rounds", "1", "-seconds", "2", "-only", "wireguard-go, ours (fast)", "-figures", "tcp1,ping"}, true, 2},
		{"no such contender", []string{"-only", "wireguard"}, false, 0},
		{"no such figure", []string{"-figures", "tcp9"}, false, 0},
		{"no rounds", []string{"-rounds", "0"}, false, 0},
		{"no time", []string{"-seconds", "0"}, false, 0},
		{"arguments", []string{"all"}, false, 0},
	} {
		b, err := parseFlags(tc.args)
		if (err == nil) != tc.ok || tc.ok && len(b.only) != tc.only {
			t.Errorf("%s: %+v, %v", tc.name, b, err)
		}
	}
}

func TestPingSequence(t *testing.T) {
	out := "PING 10.0.0.2 (10.0.0.2) 56(84) bytes of data.\n64 bytes from 10.0.0.2: icmp_seq=1 ttl=64 time=0.1 ms\n" +
		"From 10.0.0.1 icmp_seq=2 Destination Host Unreachable\n64 bytes from 10.0.0.2: icmp_seq=3 ttl=64 time=0.1 ms\n" +
		"64 bytes from 10.0.0.2: icmp_seq=3 ttl=64 time=0.1 ms (DUP!)\n64 bytes from 10.0.0.2: icmp_seq=7"
	if got := pingSequence(out); !slices.Equal(got, []int{1, 3}) {
		t.Errorf("got %v", got)
	}
	for _, c := range []struct {
		numbers []int
		want    int
	}{{nil, 0}, {[]int{5}, 0}, {[]int{1, 2, 3}, 0}, {[]int{1, 7, 5}, 3}} {
		if got := longestGap(c.numbers); got != c.want {
			t.Errorf("%v: %d, want %d", c.numbers, got, c.want)
		}
	}
}

func TestParseTxPackets(t *testing.T) {
	text := "Inter-|   Receive | Transmit\n face |bytes packets\n    lo: 1 2 3 4 5 6 7 8 9 10 11\n veth0: 11 12 13 14 15 16 17 18 19 20 21 22\n"
	if n, err := parseTxPackets(text, "veth0"); n != 20 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	if _, err := parseTxPackets(text, "veth1"); err == nil {
		t.Error("a card that is not there has sent something")
	}
}

func TestMembers(t *testing.T) {
	out := "goos: linux\nBenchmarkMembers/16-2   1  90000 ns/op  12.5 goroutines/member  300 KiB/member  7 KiB/min/member  0.5 s-to-connect\nPASS\n"
	got, err := parseBenchmark(out, "BenchmarkMembers/16")
	if err != nil || got["goroutines/member"] != 12.5 || got["KiB/member"] != 300 || got["s-to-connect"] != 0.5 {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := parseBenchmark(out, "BenchmarkMembers/1"); err == nil {
		t.Error("another benchmark is taken for it")
	}
	if text := membersTable(medians{}); text != "" {
		t.Errorf("nothing measured: %q", text)
	}
	m := medians{nameFast: {memberColumn(64, "goroutines/member"): 9, memberColumn(64, "KiB/member"): 1234.56}}
	if text := membersTable(m); !strings.Contains(text, "64, ours (fast)") || !strings.Contains(text, "1234.6") || strings.Contains(text, "250") {
		t.Errorf("table:\n%s", text)
	}
}
