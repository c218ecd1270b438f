package northbound

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A nameServer answers for cloud.test. Until the test ends the process asks it.
type nameServer struct{ answer atomic.Pointer[nameAnswer] }

type nameAnswer struct {
	silent    bool
	code      byte
	addresses []net.IP
}

var atHome = nameAnswer{addresses: []net.IP{net.IPv4(127, 0, 0, 1)}}

func serveNames(t *testing.T) *nameServer {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{}
	s.answer.Store(&atHome)
	done := make(chan struct{})
	go func() { // ends with pc
		defer close(done)
		b := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			if a := s.answer.Load(); !a.silent {
				pc.WriteTo(a.to(b[:n]), from)
			}
		}
	}()
	was := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
	t.Cleanup(func() { net.DefaultResolver = was; pc.Close(); <-done })
	return s
}

// to answers a query of one question (RFC 1035, section 4).
func (a *nameAnswer) to(query []byte) []byte {
	end := 12 + bytes.IndexByte(query[12:], 0) + 5 // name, type, class
	out := bytes.Clone(query[:end])
	out[2], out[3] = 0x81, 0x80|a.code
	binary.BigEndian.PutUint16(out[10:], 0) // additional records
	if kind := binary.BigEndian.Uint16(query[end-4:]); kind != 1 {
		return out
	}
	binary.BigEndian.PutUint16(out[6:], uint16(len(a.addresses)))
	for _, ip := range a.addresses {
		out = append(out, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		out = append(out, ip.To4()...)
	}
	return out
}

// closeDoor has connections refused, closed at once, or their SYN swallowed,
// until the door is opened.
func (b *breaker) closeDoor(how fault) (open func()) {
	address := b.address()
	b.close()
	switch how {
	case resets: // nobody listens
		return func() { b.open(address) }
	case cutOff:
		ln, err := net.Listen("tcp", address)
		if err != nil {
			b.t.Fatal(err)
		}
		b.done.Go(func() { // ends with ln
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		})
		return func() { ln.Close(); b.done.Wait(); b.open(address) }
	}
	return b.swallow(address)
}

// swallow listens with a queue that is full: the kernel drops each further SYN.
func (b *breaker) swallow(address string) (open func()) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	a, _ := net.ResolveTCPAddr("tcp", address)
	if err == nil {
		err = os.NewSyscallError("setsockopt", syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1))
	}
	if err == nil {
		err = syscall.Bind(fd, &syscall.SockaddrInet4{Port: a.Port, Addr: [4]byte(a.IP.To4())})
	}
	if err == nil {
		err = syscall.Listen(fd, 0)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	var waiting []net.Conn
	for {
		c, err := net.DialTimeout("tcp", address, 300*time.Millisecond)
		if err != nil {
			break
		}
		waiting = append(waiting, c)
	}
	return func() {
		syscall.Close(fd)
		for _, c := range waiting {
			c.Close()
		}
		b.open(address)
	}
}

// No name, no address, nobody at the address: the link is back within 5 s of
// the network's return.
func TestCutBeforeTLS(t *testing.T) {
	ca := newAuthority(t, "Our CA")
	secure := startMosquitto(t, ca)
	client := ca.client("gw")
	heard := listenTLS(t, secure, ca)
	names := serveNames(t)
	byName := func(answer nameAnswer) func(*breaker) (undo func()) {
		return func(b *breaker) func() {
			names.answer.Store(&answer)
			b.closeAll()
			return func() { names.answer.Store(&atHome) }
		}
	}
	door := func(how fault) func(*breaker) (undo func()) {
		return func(b *breaker) func() { return b.closeDoor(how) }
	}
	for _, tc := range []struct {
		name  string
		fault func(*breaker) (undo func())
		said  string
	}{
		{"DNS silent", byName(nameAnswer{silent: true}), "no address for the name cloud.test"},
		{"DNS fails", byName(nameAnswer{code: 2}), "no address for the name cloud.test"},
		{"DNS knows no such name", byName(nameAnswer{code: 3}), "no address for the name cloud.test"},
		{"SYN refused", door(resets), "nothing listens on port"},
		{"SYN accepted by nobody", door(cutOff), "cloud.test"},
		{"SYN swallowed", door(blackHole), "no answer in time"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &cutCase{breaker: newBreaker(t, secure, place{name: "none", tls: true, is: func([]byte) bool { return false }}, cutOff, false), heard: heard}
			cfg := cutConfig(t.Name())
			cfg.ConnectTimeout = 3 * time.Second // so long a swallowed SYN or question lasts
			_, port, _ := net.SplitHostPort(c.address())
			cfg.Servers, cfg.TLS = []string{"cloud.test:" + port}, named(clientTLS(ca, &client))
			l, src := c.start(t, cfg)
			for round := range rounds() {
				heard.online(t, l)
				undo := tc.fault(c.breaker)
				c.feed(t, src, round)
				soon(t, tc.said, func() bool { return strings.Contains(l.Stats().LastError, tc.said) })
				undo()
				c.wantBack(t, l, l.Stats().Reconnects)
				c.wantAll(t, src, round)
			}
			c.end(t, l)
		})
	}
}

// named checks the server's certificate for the address behind the name.
func named(cfg func(string) (*tls.Config, error)) func(string) (*tls.Config, error) {
	return func(host string) (*tls.Config, error) {
		c, err := cfg(host)
		c.ServerName = "127.0.0.1"
		return c, err
	}
}

// The first address of a name is a dead one: the next is tried.
func TestDeadAddressFirst(t *testing.T) {
	ca := newAuthority(t, "Our CA")
	secure := startMosquitto(t, ca)
	client := ca.client("gw")
	names := serveNames(t)
	for _, dead := range []string{"127.0.0.77", "192.0.2.1"} { // refuses; leads nowhere
		names.answer.Store(&nameAnswer{addresses: []net.IP{net.ParseIP(dead), net.IPv4(127, 0, 0, 1)}})
		cfg := testConfig()
		_, port, _ := net.SplitHostPort(secure)
		cfg.ClientID = fmt.Sprint("gw-", dead)
		cfg.Servers, cfg.TLS = []string{"cloud.test:" + port}, named(clientTLS(ca, &client))
		src := newSource(t, nil)
		src.put(t, numbered(5)...)
		l, err := NewLink(cfg, src)
		if err != nil {
			t.Fatal(err)
		}
		runUntil(t, l, func() bool { return src.Acked() == 5 })
		if got := l.Stats().Reconnects; got != 0 {
			t.Errorf("%s: %d reconnects", dead, got)
		}
	}
}
