// Package demo plays the product's story on one machine: a simulated Modbus
// device, the gateway, and a stand-in cloud broker with mutual TLS, joined by a
// cable that can be cut. It leaves nothing behind.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/headgate-io/headgate/gateway"
	"github.com/headgate-io/headgate/gateway/config"
	"github.com/headgate-io/headgate/gateway/pki"
	"github.com/headgate-io/headgate/southbound/modbus/simulator"
	"golang.org/x/sync/errgroup"
)

// Options say how the story is told.
type Options struct {
	Out     io.Writer
	For     time.Duration // how long; zero: until Keys says 'q'
	Keys    <-chan byte   // 'c' cuts and mends, 'q' ends; nil: it cuts and mends by itself
	Width   int           // columns, if Out is a terminal: one line is written over and over; else 0
	Version string
}

// Summary is how it ended.
type Summary struct {
	Sent       uint64  `json:"sent"`                  // batches and states that devices handed over
	Stored     uint64  `json:"stored"`                // messages on disk
	Delivered  int     `json:"delivered"`             // of them at the cloud, repeats not counted
	Lost       int     `json:"lost"`                  // stored and not at the cloud
	Duplicated int     `json:"duplicated"`            // repeats at the cloud
	First      float64 `json:"first_reading_seconds"` // from the start to the first reading at the cloud
}

// drainTime bounds the wait for the last messages at the end.
const drainTime = 20 * time.Second

// A story is the parts on stage.
type story struct {
	Options
	began   time.Time
	cloud   *cloud
	cable   *cable
	sim     *simulator.Simulator
	gateway *gateway.Gateway
}

// Run plays until the time is over, the viewer has enough, or ctx ends.
func Run(ctx context.Context, opt Options) (Summary, error) {
	dir, err := os.MkdirTemp("", "headgate-demo-")
	if err != nil {
		return Summary{}, err
	}
	defer os.RemoveAll(dir)
	s := &story{Options: opt, began: time.Now()}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	var sum Summary
	group.Go(func() error {
		defer cancel() // the story's end is everybody's
		var err error
		sum, err = s.play(ctx, group, dir)
		return err
	})
	err = group.Wait()
	if s.cloud != nil && s.cloud.queue != nil {
		err = errors.Join(err, s.cloud.queue.Close()) // nobody uses it any more
	}
	return sum, err
}

// play sets the stage, tells the story and adds it up.
func (s *story) play(ctx context.Context, group *errgroup.Group, dir string) (Summary, error) {
	s.say("a Modbus device, the gateway and a cloud broker start in %s", dir)
	if err := s.setStage(ctx, group, dir); err != nil {
		return Summary{}, err
	}
	watcher, err := s.cloud.watch(ctx)
	if err != nil {
		return Summary{}, err
	}
	defer watcher.Disconnect()
	group.Go(func() error { return s.gateway.Run(ctx) })
	if err := s.tell(ctx); err != nil {
		return Summary{}, err
	}
	return s.addUp(ctx)
}

func (s *story) setStage(ctx context.Context, group *errgroup.Group, dir string) error {
	var err error
	if s.cloud, err = newCloud(dir); err != nil {
		return fmt.Errorf("start the cloud: %w", err)
	}
	group.Go(func() error { return s.cloud.broker.Run(ctx) })
	address, err := s.cloud.address(ctx)
	if err != nil {
		return err
	}
	if s.cable, err = newCable(address); err != nil {
		return err
	}
	group.Go(func() error { return s.cable.Run(ctx) })
	if s.sim, err = simulator.Listen("127.0.0.1:0", simulator.Config{}); err != nil {
		return err
	}
	group.Go(func() error { return s.sim.Run(ctx) })
	file, err := s.writeConfig(dir)
	if err != nil {
		return err
	}
	cfg, err := config.Load(file)
	if err != nil {
		return err
	}
	s.gateway, err = gateway.New(cfg, gateway.Options{
		Version: s.Version, MaxPause: 2 * time.Second,
		Logger: slog.New(slog.DiscardHandler),
	})
	return err
}

// writeConfig writes the file that a person would write for this plant.
func (s *story) writeConfig(dir string) (string, error) {
	if err := pki.Init(filepath.Join(dir, "pki"), nil); err != nil {
		return "", err
	}
	local, err := freeAddress()
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(s.cable.ln.Addr().String())
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf(`version: 1
gateway: {id: demo, data: data}
admin: {address: ""}
broker:
  listeners:
    - {address: %q, certificate: pki/broker.crt, key: pki/broker.key, client_ca: pki/ca.crt, client_crl: pki/ca.crl}
access:
  rules:
    - {allow: subscribe, who: "link:cloud", topics: ["hg/#"]}
northbound:
  - name: cloud
    servers: ["mqtts://localhost:%s"]
    ca: cloud-pki/ca.crt
    certificate: cloud-pki/%[3]s.crt
    key: cloud-pki/%[3]s.key
    send:
      - {topics: ["hg/#"], qos: 1, prefix: "sites/{gateway}/"}
buses:
  line-1: {url: "tcp://%[4]s"}
devices:
%[5]s`, local, port, gatewayName, s.sim.Addr(), devices())
	file := filepath.Join(dir, "headgate.yaml")
	return file, os.WriteFile(file, []byte(text), 0o600)
}

func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// devices describes the simulator's units as configuration.
func devices() string {
	var b strings.Builder
	for _, d := range simulator.Devices() {
		fmt.Fprintf(&b, "  - id: %s\n    adapter: modbus\n    bus: line-1\n    unit: %d\n    groups:\n", d.ID, d.Unit)
		for _, g := range d.Groups {
			fmt.Fprintf(&b, "      %s: {interval: %s}\n", g.Name, g.Interval)
		}
		b.WriteString("    tags:\n")
		for _, t := range d.Tags {
			fmt.Fprintf(&b, "      %s: {group: %s, address: \"%s:%d\", type: %s", t.Name, t.Group, t.Table, t.Address, t.Type)
			if t.Scale != nil {
				fmt.Fprintf(&b, ", scale: %v", *t.Scale)
			}
			if t.Unit != "" {
				fmt.Fprintf(&b, ", unit: %q", t.Unit)
			}
			b.WriteString("}\n")
		}
	}
	return b.String()
}

// addUp waits until everything stored so far is at the cloud, and counts.
func (s *story) addUp(ctx context.Context) (Summary, error) {
	s.cable.plug()
	sent := s.gateway.Published()
	last := s.gateway.Status().Queue.Last
	deadline, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for s.cloud.tally.missing(last) > 0 && deadline.Err() == nil {
		select {
		case <-tick.C:
		case <-deadline.Done():
		}
	}
	if ctx.Err() != nil {
		return Summary{}, ctx.Err()
	}
	lost := s.cloud.tally.missing(last)
	_, repeats, first, _, _ := s.cloud.tally.snapshot()
	sum := Summary{
		Sent: sent, Stored: last, Delivered: int(last) - lost, Lost: lost, Duplicated: repeats,
	}
	if !first.IsZero() {
		sum.First = first.Sub(s.began).Seconds()
	}
	return sum, nil
}
