package datapath

import (
	"encoding/binary"

	"github.com/kairos-io/kairos/overlay/path"
	"github.com/kairos-io/kairos/overlay/session"
)

// Control messages travel sealed like packets. Their first byte is no version of IP:
//
//	0x00 nonce (8 bytes) padding   a probe: as large as the packets it stands for
//	0x01 nonce (8 bytes)           its answer, by the path that the probe came by
const (
	controlProbe  = 0x00
	controlAnswer = 0x01
	controlSize   = path.Small
)

// say sends a control message, or loses it where that would take time: it runs on
// the goroutine that reads for everybody.
func (p *peer) say(e *endpoint, message []byte) error {
	keys, _ := p.session.Probing(p.d.now())
	if keys == nil {
		return nil
	}
	e.saying.Lock()
	defer e.saying.Unlock()
	if e.control == nil {
		control, err := p.d.network.Sender(e.Path)
		if err != nil {
			return err
		}
		e.control, e.scratch = control, make([]byte, 0, p.d.dev.MTU()+session.Overhead)
	}
	packet, err := keys.Seal(e.scratch[:0], message, 0)
	if err != nil {
		return err
	}
	return e.control.Offer(packet)
}

// hear takes a control message that came by a path.
func (p *peer) hear(from path.Path, message []byte) {
	if len(message) < controlSize {
		return
	}
	nonce := binary.BigEndian.Uint64(message[1:])
	if message[0] == controlAnswer {
		p.mu.Lock()
		defer p.mu.Unlock()
		now := p.d.now()
		p.paths.Answered(from, nonce, now)
		p.choose(now)
		p.nudge()
		return
	}
	e := p.heard.Load()
	if e == nil || e.Path != from { // there are too many candidates
		return
	}
	if err := p.say(e, binary.BigEndian.AppendUint64([]byte{controlAnswer}, nonce)); err != nil {
		p.d.log.Debug("answering a probe of peer failed", "peer", p.account.id.Short(), "path", from.String(), "err", err)
	}
}
