// Command echo is what the tests run in pods: an HTTP server that says who
// answered and who asked, and a small client for use by `kubectl exec`, as the
// image holds no shell.
//
//	echo                serve on :8080, HTTP and UDP, one log line per request
//	echo get URL        print the body of URL
//	echo post URL SIZE  send SIZE bytes, print the answer (their SHA-256)
//	echo udp ADDR SIZE  send a datagram of SIZE bytes, print the answer
//	echo lookup NAME    print the addresses of a name, by the pod's resolv.conf
//	echo read FILE      print a file
//	echo write FILE TEXT
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 0:
		return serve()
	case len(args) == 2 && args[0] == "get":
		return show(client().Get(args[1]))
	case len(args) == 3 && args[0] == "post":
		size, err := strconv.ParseInt(args[2], 10, 64)
		if err != nil {
			return fmt.Errorf("read SIZE: %w", err)
		}
		return show(client().Post(args[1], "application/octet-stream", strings.NewReader(strings.Repeat("kairos..", int(size/8)))))
	case len(args) == 3 && args[0] == "udp":
		size, err := strconv.Atoi(args[2])
		if err != nil {
			return fmt.Errorf("read SIZE: %w", err)
		}
		return datagram(args[1], size)
	case len(args) == 2 && args[0] == "lookup":
		addrs, err := net.LookupHost(args[1])
		fmt.Println(strings.Join(addrs, " "))
		return err
	case len(args) == 2 && args[0] == "read":
		text, err := os.ReadFile(args[1])
		if err != nil {
			return err
		}
		_, err = os.Stdout.Write(text)
		return err
	case len(args) == 3 && args[0] == "write":
		return os.WriteFile(args[1], []byte(args[2]), 0o644)
	default:
		return errors.New("usage: echo [get URL | post URL SIZE | udp ADDR SIZE | lookup NAME | read FILE | write FILE TEXT]")
	}
}

func client() *http.Client { return &http.Client{Timeout: 30 * time.Second} }

func show(resp *http.Response, err error) error {
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(os.Stdout, resp.Body); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// datagram asks once: what is lost shall be seen.
func datagram(addr string, size int) error {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	answer := make([]byte, 1<<10)
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write(make([]byte, size)); err != nil {
		return err
	}
	n, err := c.Read(answer)
	fmt.Print(string(answer[:n]))
	return err
}

// serveUDP answers each datagram with who answered, who asked, and how large it was.
func serveUDP(name string) error {
	c, err := net.ListenPacket("udp", ":8080")
	if err != nil {
		return err
	}
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return err
		}
		fmt.Printf("UDP from %s: %d bytes\n", from, n)
		if _, err := c.WriteTo(fmt.Appendf(nil, "host=%s client=%s size=%d\n", name, from, n), from); err != nil {
			fmt.Println(err)
		}
	}
}

func serve() error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	go func() { fmt.Println(serveUDP(name)) }()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		fmt.Printf("GET %s from %s\n", r.URL.Path, r.RemoteAddr)
		fmt.Fprintf(w, "host=%s client=%s\n", name, r.RemoteAddr)
	})
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Printf("POST %s from %s: %d bytes\n", r.URL.Path, r.RemoteAddr, n)
		fmt.Fprintf(w, "%d %s\n", n, hex.EncodeToString(sum.Sum(nil)))
	})
	fmt.Printf("serving as %s on :8080\n", name)
	server := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	return server.ListenAndServe()
}
