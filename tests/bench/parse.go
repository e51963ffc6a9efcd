package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// traffic is what arrived of a run of iperf3.
type traffic struct {
	Bytes   float64
	Seconds float64
}

func (t traffic) bitsPerSecond() float64 { return t.Bytes * 8 / t.Seconds }

// parseIperf reads what an iperf3 client wrote. What counts is what the server received.
func parseIperf(out string) (traffic, error) {
	var report struct {
		Error string `json:"error"`
		End   struct {
			Received *struct {
				Bytes   float64 `json:"bytes"`
				Seconds float64 `json:"seconds"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		return traffic{}, fmt.Errorf("read iperf3's report: %w", err)
	}
	r := report.End.Received
	switch {
	case report.Error != "":
		return traffic{}, fmt.Errorf("iperf3: %s", report.Error)
	case r == nil || r.Seconds <= 0 || r.Bytes <= 0:
		return traffic{}, errors.New("read iperf3's report: nothing was received")
	}
	return traffic{Bytes: r.Bytes, Seconds: r.Seconds}, nil
}

// parsePing is the times of the answers that ping wrote, in milliseconds, and how many
// it has asked for.
func parsePing(out string) (times []float64, sent int, err error) {
	for line := range strings.Lines(out) {
		if count, _, ok := strings.Cut(line, " packets transmitted"); ok {
			if sent, err = strconv.Atoi(count); err != nil {
				return nil, 0, fmt.Errorf("read ping's line %q: %w", line, err)
			}
		}
		_, rest, ok := strings.Cut(line, " time=")
		if !ok || strings.Contains(line, "DUP!") {
			continue
		}
		ms, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " ms"), 64)
		if err != nil {
			return nil, 0, fmt.Errorf("read ping's line %q: %w", line, err)
		}
		times = append(times, ms)
	}
	return times, sent, nil
}

// medianOf is the median of n pings of which some were answered. One without an answer
// took longer than any other.
func medianOf(times []float64, n int) (float64, error) {
	all := slices.Clone(times)
	for len(all) < n {
		all = append(all, math.Inf(1))
	}
	m := median(all)
	if math.IsInf(m, 1) || math.IsNaN(m) {
		return 0, fmt.Errorf("only %d of %d pings were answered", len(times), n)
	}
	return m, nil
}

// median of the values; NaN if there are none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}

// ticks is the unit of times in /proc, which is the same on every Linux that Go knows.
const ticks = 100

// parseStat is the processor time, user and system, in /proc/PID/stat.
func parseStat(text string) (time.Duration, error) {
	// The name, in parentheses, may have any character in it.
	_, rest, ok := cutLast(text, ") ")
	f := strings.Fields(rest)
	if !ok || len(f) < 13 {
		return 0, fmt.Errorf("read the processor time in %q", text)
	}
	user, err := strconv.ParseInt(f[11], 10, 64) // field 14 of proc(5)
	if err != nil {
		return 0, fmt.Errorf("read the user time: %w", err)
	}
	system, err := strconv.ParseInt(f[12], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the system time: %w", err)
	}
	return time.Duration(user+system) * time.Second / ticks, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// parseRSS is the resident memory in /proc/PID/status, in MB.
func parseRSS(text string) (float64, error) {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "VmRSS:")
		if !ok {
			continue
		}
		kb, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
		if err != nil {
			return 0, fmt.Errorf("read the memory in %q: %w", line, err)
		}
		return kb * 1024 / 1e6, nil
	}
	return 0, errors.New("read the memory: the process has none")
}

// pingSequence is the numbers of the pings that were answered, as ping wrote them so far.
func pingSequence(out string) []int {
	var numbers []int
	for line := range strings.Lines(out) {
		_, rest, ok := strings.Cut(line, " icmp_seq=")
		number, _, whole := strings.Cut(rest, " ttl=")
		if !ok || !whole || strings.Contains(line, "DUP!") {
			continue
		}
		if n, err := strconv.Atoi(number); err == nil { // other lines are about errors
			numbers = append(numbers, n)
		}
	}
	return numbers
}

// parseTxPackets is how many packets a card has sent by /proc/net/dev.
func parseTxPackets(text, dev string) (int, error) {
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		f := strings.Fields(rest)
		if ok && name == dev && len(f) > 9 {
			return strconv.Atoi(f[9]) // after eight of what was received: bytes, packets
		}
	}
	return 0, fmt.Errorf("read how much %s has sent: it is not there", dev)
}

// parseBenchmark is what a benchmark of Go has reported, by unit: pairs of a value and
// its unit behind the name and the count.
func parseBenchmark(out, name string) (map[string]float64, error) {
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 4 || f[0] != name && !strings.HasPrefix(f[0], name+"-") {
			continue
		}
		values := map[string]float64{}
		for i := 2; i+1 < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return nil, fmt.Errorf("read the benchmark's line %q: %w", line, err)
			}
			values[f[i+1]] = v
		}
		return values, nil
	}
	return nil, fmt.Errorf("read the benchmark %s: it has reported nothing", name)
}
