package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
)

// column is a figure in the table.
type column struct {
	key, head string
	digits    int
}

var columns = []column{
	{"tcp1", "TCP 1\nGbit/s", 2},
	{"tcp1cpu", "CPU\ns/GB", 2},
	{"tcp4", "TCP 4\nGbit/s", 2},
	{"tcp4cpu", "CPU, 4\ns/GB", 2},
	{"udp64", "UDP 64 B\nk/s", 1},
	{"ping", "ping\nus", 0},
	{"loadping", "loaded\nms", 2},
	{"rss", "RSS\nMB", 1},
	{"rssload", "flooded\nMB", 1},
	{figureRoam, "roam\nms", 0},
	{figureDead, "dead path\nms", 0},
	{"loss0.1", "0.1% loss\nMbit/s", 1},
	{"loss1", "1% loss\nMbit/s", 1},
}

// sample is one measured value.
type sample struct {
	Round     int     `json:"round"`
	Contender string  `json:"contender"`
	Figure    string  `json:"figure"`
	Value     float64 `json:"value"`
}

// medians are the samples' medians by contender and figure.
type medians map[string]map[string]float64

func mediansOf(samples []sample) medians {
	values := map[string]map[string][]float64{}
	for _, s := range samples {
		if values[s.Contender] == nil {
			values[s.Contender] = map[string][]float64{}
		}
		values[s.Contender][s.Figure] = append(values[s.Contender][s.Figure], s.Value)
	}
	m := medians{}
	for who, figures := range values {
		m[who] = map[string]float64{}
		for figure, v := range figures {
			m[who][figure] = median(v)
		}
	}
	return m
}

// of is a median; NaN if there is none.
func (m medians) of(who, figure string) float64 {
	if v, ok := m[who][figure]; ok {
		return v
	}
	return math.NaN()
}

// table is the medians, each with its ratio to wireguard-go's.
func table(m medians) string {
	var shown []column
	for _, c := range columns {
		for _, who := range contenders {
			if !math.IsNaN(m.of(who.name, c.key)) {
				shown = append(shown, c)
				break
			}
		}
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 1, ' ', tabwriter.AlignRight)
	for line := range 2 {
		fmt.Fprintf(w, "%-*s\t", len(nameStream), "")
		for _, c := range shown {
			fmt.Fprintf(w, "  %s\t\t", strings.Split(c.head, "\n")[line])
		}
		fmt.Fprintln(w)
	}
	for _, who := range contenders {
		if m[who.name] == nil {
			continue
		}
		fmt.Fprintf(w, "%-*s\t", len(nameStream), who.name)
		for _, c := range shown {
			v, ratio := m.of(who.name, c.key), m.of(who.name, c.key)/m.of(nameWG, c.key)
			fmt.Fprintf(w, "  %s\t%s\t", number(v, c.digits), number(ratio, 2)+times(ratio))
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	return b.String()
}

func times(ratio float64) string {
	if math.IsNaN(ratio) {
		return ""
	}
	return "x"
}

func number(v float64, digits int) string {
	if math.IsNaN(v) {
		return "-"
	}
	return strconv.FormatFloat(v, 'f', digits, 64)
}

// goal is something to reach: a figure of ours, or its ratio to another one.
type goal struct {
	text    string
	who     string // of ours
	figure  string
	against string // whose figure is 1; "" for the value itself
	base    string // which figure of against, if not the same
	atLeast bool   // otherwise at most
	limit   float64
}

var goals = []goal{
	{"TCP, one stream", nameFast, "tcp1", nameWG, "", true, 1.8},
	{"TCP, one stream", nameFast, "tcp1", nameNebula, "", true, 6},
	{"TCP, four streams", nameFast, "tcp4", nameWG, "", true, 1.8},
	{"TCP, four streams", nameFast, "tcp4", nameNebula, "", true, 6},
	{"CPU per GB", nameFast, "tcp1cpu", nameWG, "", false, 0.45},
	{"CPU per GB, four streams", nameFast, "tcp4cpu", nameWG, "", false, 0.45},
	{"UDP, 64 bytes", nameFast, "udp64", nameWG, "", true, 4},
	{"ping", nameFast, "ping", nameWG, "", false, 0.75},
	{"ping under load, ms", nameFast, "loadping", "", "", false, 2},
	{"RSS after overload, MB", nameFast, "rssload", "", "", false, 40},
	{"RSS after overload", nameFast, "rssload", nameFast, "rss", false, 1.2},
	{"TCP at 0.1 % loss", nameFast, "loss0.1", nameWG, "", true, 0.95},
	{"TCP at 1 % loss", nameFast, "loss1", nameWG, "", true, 0.95},
	{"new address, ms", nameFast, figureRoam, "", "", false, 1000},
	{"dead path, ms", nameFast, figureDead, "", "", false, 2000},
	{"TCP, one stream", nameFast, "tcp1", nameBefore, "", true, 0.97},
	{"TCP, four streams", nameFast, "tcp4", nameBefore, "", true, 0.97},
	{"CPU per GB", nameFast, "tcp1cpu", nameBefore, "", false, 0.94},
	{"UDP, 64 bytes", nameFast, "udp64", nameBefore, "", true, 0.97},
	{"ping", nameFast, "ping", nameBefore, "", false, 1.03},
	{"ping under load", nameFast, "loadping", nameBefore, "", false, 1.03},
	{"TCP by the stream", nameStream, "tcp1", nameFast, "", true, 0.8},
}

// verdict is what became of a goal.
type verdict struct {
	Goal     string  `json:"goal"`
	Measured float64 `json:"measured"`
	Pass     bool    `json:"pass"`
}

// judge says how each goal stands that was measured.
func judge(m medians) []verdict {
	var all []verdict
	for _, g := range goals {
		value := m.of(g.who, g.figure)
		sign, unit := "<=", ""
		if g.atLeast {
			sign = ">="
		}
		if g.against != "" {
			base := g.base
			if base == "" {
				base = g.figure
			}
			value /= m.of(g.against, base)
			unit = " x " + g.against
			if g.base != "" {
				unit += ", idle"
			}
		}
		if math.IsNaN(value) {
			continue
		}
		v := verdict{Goal: fmt.Sprintf("%s of %s %s %s%s", g.text, g.who, sign, number(g.limit, -1), unit), Measured: value}
		v.Pass = value <= g.limit
		if g.atLeast {
			v.Pass = value >= g.limit
		}
		all = append(all, v)
	}
	return all
}

func (v verdict) String() string {
	word := "FALL SHORT"
	if v.Pass {
		word = "PASS"
	}
	return fmt.Sprintf("%-10s %6.2f  %s", word, v.Measured, v.Goal)
}

// report is what goes to the file.
type report struct {
	Rounds   int       `json:"rounds"`
	Seconds  int       `json:"seconds"`
	Overload int       `json:"overload_seconds"`
	Medians  medians   `json:"medians"`
	Goals    []verdict `json:"goals"`
	Samples  []sample  `json:"samples"`
	Failed   []string  `json:"failed,omitempty"`
}

func (r report) write(path string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
