package offload

import (
	"bytes"
	"slices"
	"testing"
)

// notMerged are changes to the second of three segments, none of which a Cutter makes:
// it has to stay a packet of its own. The third may follow the second or not.
var notMerged = map[string]struct {
	only  func(sample) bool // nil: for every kind
	first func(*sample)     // a change to the first one
	next  func(*sample)
	edit  func(s sample, pkt []byte)
}{
	"another source port":      {edit: func(s sample, pkt []byte) { pkt[s.l4()+1]++ }},
	"another destination port": {edit: func(s sample, pkt []byte) { pkt[s.l4()+3]++ }},
	"another source":           {edit: func(s sample, pkt []byte) { pkt[source(s)]++ }},
	"another destination":      {edit: func(s sample, pkt []byte) { pkt[destination(s)]++ }},
	"longer than the first":    {next: func(s *sample) { *s = again(*s, 1001) }},
	"no data":                  {next: func(s *sample) { *s = again(*s, 0) }},
	"a first one of 1 byte":    {first: func(s *sample) { *s = again(*s, 1) }, next: func(s *sample) { *s = again(*s, 1) }},

	"another TTL":              {only: overIPv4, edit: func(_ sample, pkt []byte) { pkt[8]-- }},
	"another TOS":              {only: overIPv4, edit: func(_ sample, pkt []byte) { pkt[1]++ }},
	"may be fragmented":        {only: overIPv4, edit: func(_ sample, pkt []byte) { pkt[6] &^= 0x40 }},
	"the evil bit":             {only: overIPv4, edit: func(_ sample, pkt []byte) { pkt[6] |= 0x80 }},
	"another hop limit":        {only: overIPv6, edit: func(_ sample, pkt []byte) { pkt[7]-- }},
	"another traffic class":    {only: overIPv6, edit: func(_ sample, pkt []byte) { pkt[1] ^= 0x10 }},
	"another flow label":       {only: overIPv6, edit: func(_ sample, pkt []byte) { pkt[3]++ }},
	"another option of IPv4":   {only: func(s sample) bool { return len(s.options) > 0 }, edit: func(_ sample, pkt []byte) { pkt[22] = 0 }},
	"another extension header": {only: func(s sample) bool { return len(s.ext) > 0 }, edit: func(s sample, pkt []byte) { pkt[44]++ }},

	"a gap":                    {only: isTCP, next: func(s *sample) { s.seq++ }},
	"bytes seen before":        {only: isTCP, next: func(s *sample) { s.seq-- }},
	"a duplicate":              {only: isTCP, next: func(s *sample) { s.seq -= 1000 }},
	"another acknowledgement":  {only: isTCP, edit: func(s sample, pkt []byte) { pkt[s.l4()+11]++ }},
	"another window":           {only: isTCP, edit: func(s sample, pkt []byte) { pkt[s.l4()+15]++ }},
	"an urgent pointer":        {only: isTCP, edit: func(s sample, pkt []byte) { pkt[s.l4()+19]++ }},
	"a reserved bit":           {only: isTCP, edit: func(s sample, pkt []byte) { pkt[s.l4()+12] |= 1 }},
	"SYN":                      {only: isTCP, next: func(s *sample) { s.flags = 0x02 }},
	"RST":                      {only: isTCP, next: func(s *sample) { s.flags = 0x04 }},
	"URG":                      {only: isTCP, next: func(s *sample) { s.flags = 0x20 }},
	"ECE":                      {only: isTCP, next: func(s *sample) { s.flags = 0x40 }},
	"CWR":                      {only: isTCP, next: func(s *sample) { s.flags = 0x80 }},
	"no ACK":                   {only: isTCP, edit: func(s sample, pkt []byte) { pkt[s.l4()+13] = 0 }},
	"behind FIN":               {only: isTCP, first: func(s *sample) { s.flags = flagFIN }},
	"behind PSH":               {only: isTCP, first: func(s *sample) { s.flags = flagPSH }},
	"behind SYN":               {only: isTCP, first: func(s *sample) { s.flags = 0x02 }},
	"behind CWR":               {only: isTCP, first: func(s *sample) { s.flags = 0x80 }},
	"another time":             {only: func(s sample) bool { return isTCP(s) && len(s.tcp) > 0 }, edit: func(s sample, pkt []byte) { pkt[s.l4()+27]++ }},
	"options where were none":  {only: isTCP, next: func(s *sample) { s.tcp = append([]byte{1, 1, 1, 1}, s.tcp...) }},
	"data where options were":  {only: isTCP, first: func(s *sample) { s.tcp = append([]byte{1, 1, 1, 1}, s.tcp...) }},
	"behind one without data":  {only: isTCP, first: func(s *sample) { *s = again(*s, 0) }},
	"the other protocol":       {next: func(s *sample) { s.udp, s.tcp = !s.udp, nil }},
	"the other IP":             {next: func(s *sample) { s.v6, s.ext, s.options = !s.v6, nil, nil }},
	"behind one of the two":    {first: func(s *sample) { s.v6, s.ext, s.options = !s.v6, nil, nil }},
	"one of the same, shorter": {first: func(s *sample) { *s = again(*s, 999) }},
}

func overIPv4(s sample) bool { return !s.v6 }
func overIPv6(s sample) bool { return s.v6 }
func isTCP(s sample) bool    { return !s.udp }

// source and destination are the offsets of the last bytes of the addresses.
func source(s sample) int {
	if s.v6 {
		return 23
	}
	return 15
}

func destination(s sample) int {
	if s.v6 {
		return 39
	}
	return 19
}

// again gives a sample n bytes of other payload.
func again(s sample, n int) sample {
	s.payload = bytes.Repeat([]byte{0x5a}, n)
	return s
}

func TestWhatIsNotMerged(t *testing.T) {
	for name, s := range kinds {
		for what, c := range notMerged {
			if c.only != nil && !c.only(s) {
				continue
			}
			t.Run(name+"/"+what, func(t *testing.T) {
				three := s.with(3000).segments(1000)
				if got := merge(new(Merger), partials(three...)); len(got) != 1 {
					t.Fatalf("without a change: %d packets", len(got))
				}
				if c.first != nil {
					c.first(&three[0])
				}
				if c.next != nil {
					c.next(&three[1])
				}
				if c.edit != nil {
					changed := three[1]
					three[1].edit = func(pkt []byte) { c.edit(changed, pkt) }
				}
				got := merge(new(Merger), partials(three...))
				if got[0].parts != 1 {
					t.Error("the second is merged with the first")
				}
				wantSame(t, got, apart(t, partials(three...)))
			})
		}
	}
}

// What ends a run, and what comes of packets that are mixed: how many parts each
// packet for the kernel has.
func TestRuns(t *testing.T) {
	tcp, udp := sample{}, sample{udp: true}
	six := tcp.with(6000).segments(1000)
	grams := udp.with(6000).segments(1000)
	flagged := func(flags byte) []sample {
		all := slices.Clone(six)
		all[2].flags = flags
		return all
	}
	shorter := slices.Clone(grams)
	shorter[2] = again(grams[2], 900)
	short := tcp.with(5900).segments(1000)
	for name, c := range map[string]struct {
		in   []sample
		want []int
	}{
		"six segments":                    {six, []int{6}},
		"six datagrams":                   {grams, []int{6}},
		"the last is shorter":             {short, []int{6}},
		"PSH ends a run":                  {flagged(flagPSH), []int{3, 3}},
		"FIN ends a run":                  {flagged(flagFIN), []int{3, 3}},
		"a shorter one ends a run":        {append(tcp.with(2900).segments(1000), rest(tcp, 2900)...), []int{3, 3}},
		"a shorter datagram ends a run":   {shorter, []int{3, 3}},
		"the second is the first again":   {[]sample{six[0], six[0], six[1]}, []int{1, 2}},
		"out of order":                    {[]sample{six[1], six[0], six[2], six[3]}, []int{1, 1, 2}},
		"one is lost":                     {[]sample{six[0], six[1], six[3], six[4]}, []int{2, 2}},
		"TCP and UDP by turns":            {[]sample{six[0], grams[0], six[1], grams[1]}, []int{1, 1, 1, 1}},
		"TCP, then UDP":                   {append(slices.Clone(six), grams...), []int{6, 6}},
		"acknowledgements are not merged": {[]sample{tcp, tcp, tcp}, []int{1, 1, 1}},
		"no datagram but its own length":  {[]sample{udp, udp}, []int{1, 1}},
		"datagrams of a byte":             {udp.with(3).segments(1), []int{1, 1, 1}},
		"64 segments and no more":         {tcp.with(65 * 100).segments(100), []int{64, 1}},
		"64 datagrams and no more":        {udp.with(130 * 100).segments(100), []int{64, 64, 2}},
		"65535 bytes of IPv4":             {tcp.with(65495).segments(9357), []int{7}},
		"65536 bytes of IPv4":             {tcp.with(65496).segments(9357), []int{6, 1}},
		"65535 bytes of IPv6":             {sample{v6: true}.with(65475).segments(13100), []int{5}},
		"65536 bytes of IPv6":             {sample{v6: true}.with(65476).segments(13100), []int{4, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			got := merge(new(Merger), partials(c.in...))
			var parts []int
			for _, m := range got {
				parts = append(parts, m.parts)
			}
			if !slices.Equal(parts, c.want) {
				t.Errorf("parts %v, want %v", parts, c.want)
			}
			wantSame(t, got, apart(t, partials(c.in...)))
		})
	}
}

// rest are three segments that follow n bytes.
func rest(s sample, n int) []sample {
	s.seq += uint32(n)
	return s.with(3000).segments(1000)
}

// A packet with a checksum of its own keeps it: neither it nor what is before or
// behind it is merged with it.
func TestWholeAmongPartial(t *testing.T) {
	for name, s := range kinds {
		all := s.with(5000).segments(1000)
		pkts := partials(all...)
		pkts[2] = Packet{all[2].whole(), Whole}
		want := slices.Concat(apart(t, pkts[:2]), [][]byte{all[2].whole()}, apart(t, pkts[3:]))
		got := merge(new(Merger), pkts)
		if len(got) != 3 || got[0].parts != 2 || got[1].parts != 1 || got[2].parts != 2 {
			t.Errorf("%s: %d packets", name, len(got))
		}
		wantSame(t, got, want)
	}
}
