package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"time"
)

// volumeFlag is how much the tests of integrity send in each direction, by each
// protocol: -volume 1g.
type volumeFlag int64

func (v *volumeFlag) String() string { return strconv.FormatInt(int64(*v), 10) }

func (v *volumeFlag) Set(text string) error {
	unit := int64(1)
	if n := len(text) - 1; n > 0 {
		switch text[n] {
		case 'm':
			text, unit = text[:n], 1<<20
		case 'g':
			text, unit = text[:n], 1<<30
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	*v = volumeFlag(n * unit)
	return err
}

// noise is a stream of bytes that follows from its seed.
func noise(seed string) io.Reader {
	var key [32]byte
	copy(key[:], seed)
	return rand.NewChaCha8(key)
}

const block = 64 << 10

// sendBytes is a helper: it connects to ADDRESS and sends SIZE bytes of the noise
// SEED, one block at once, or one block every PAUSE.
func sendBytes(ctx context.Context, args []string) error {
	size, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		return err
	}
	var pace <-chan time.Time
	if len(args) > 3 {
		pause, err := time.ParseDuration(args[3])
		if err != nil {
			return err
		}
		tick := time.NewTicker(pause)
		defer tick.Stop()
		pace = tick.C
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	buf, from := make([]byte, block), noise(args[1])
	for sent := int64(0); sent < size; {
		part := buf[:min(block, size-sent)]
		if _, err := io.ReadFull(from, part); err != nil {
			return err
		}
		n, err := c.Write(part)
		if sent += int64(n); err != nil {
			return fmt.Errorf("after %d bytes: %w", sent, err)
		}
		if pace != nil {
			<-pace
		}
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, c) // until the other end has it all
	return err
}

// takeBytes is a helper: it listens on ADDRESS and compares what the first to connect
// sends with SIZE bytes of the noise SEED. It says "listens ADDRESS", "took N" after
// each MiB, and how long it took.
func takeBytes(_ context.Context, args []string) error {
	size, err := strconv.ParseInt(args[2], 10, 64)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println("listens", l.Addr())
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	began := time.Now()
	want, got, expect := make([]byte, block), make([]byte, block), noise(args[1])
	at := int64(0)
	for {
		n, err := c.Read(got)
		if _, err := io.ReadFull(expect, want[:n]); err != nil {
			return err
		}
		if !bytes.Equal(got[:n], want[:n]) {
			return fmt.Errorf("other bytes than were sent, from %d to %d", at, at+int64(n))
		}
		if before := at; (before+int64(n))>>20 > before>>20 {
			fmt.Println("took", before+int64(n))
		}
		at += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("after %d bytes: %w", at, err)
		}
	}
	if at != size {
		return fmt.Errorf("%d bytes arrived, %d were sent", at, size)
	}
	fmt.Println("seconds", time.Since(began).Seconds())
	return nil
}
